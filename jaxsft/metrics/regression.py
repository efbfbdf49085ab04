"""Scores of numbers as scikit-learn and scipy define them. Missing targets (NaN) do not count."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio

ERRORS = ("mse", "rmse", "mae")  # of which less is better
NUMBERS = (*ERRORS, "r2", "pearson", "spearman")


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns gold and predicted numbers, `[rows, targets]`, their difference, and which are there.

    The numbers are moved by their mean, so that sums of squares lose nothing.
    """
    gold, predicted = (np.asarray(outputs[n], np.float64) for n in ("targets", "predictions"))
    gold, predicted = (x[:, None] if x.ndim == 1 else x for x in (gold, predicted))
    there = np.isfinite(gold)
    return {
        "gold": _centred(gold, there),
        "predicted": _centred(predicted, there),
        "error": np.where(there, predicted - gold, 0),
        "there": there,
    }


def _centred(x: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Subtracts the mean of each column from what is there; a constant column becomes exactly 0."""
    low = np.where(there, x, np.inf).min(0, initial=np.inf)
    high = np.where(there, x, -np.inf).max(0, initial=-np.inf)
    mean = np.where(there, x, 0).sum(0) / np.maximum(there.sum(0), 1)
    return np.where(there & (high > low), x - mean, 0)


def reduce(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns moments of the numbers and of their ranks, `[..., targets]` each.

    Ranks are those within the weighted rows: a row of weight 2 stands there twice.
    """
    xp, there = namespace(weights), statistics["there"].astype(weights.dtype)
    x, y, error = (statistics[name] for name in ("gold", "predicted", "error"))
    out = {
        name: weights @ (value * there)
        for name, value in {
            "count": there, "absolute": abs(error), "square": error * error,
            "x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y,
        }.items()
    }  # fmt: skip
    mass = weights[..., None] * there  # [..., rows, targets]
    middle = ((mass.sum(-2) + 1) / 2)[..., None, :]
    a, b = (xp.where(mass > 0, ranks(values, mass) - middle, 0) for values in (x, y))
    return out | {
        "rank_xx": (mass * a * a).sum(-2),
        "rank_yy": (mass * b * b).sum(-2),
        "rank_xy": (mass * a * b).sum(-2),
    }


def ranks(x: Any, mass: Any) -> Any:
    """Returns the rank, from 1, of each row among rows of which row i stands there `mass[i]` times;
    equal values share the mean of their ranks.

    Args:
      x: `[rows, targets]`; mass: `[..., rows, targets]`.
    """
    xp = namespace(mass)
    out = []
    for t in range(x.shape[1]):
        order = xp.argsort(x[:, t], stable=True)
        values = x[:, t][order]
        first = xp.searchsorted(values, values, side="left")
        last = xp.searchsorted(values, values, side="right")
        before = xp.cumulative_sum(mass[..., t][..., order], axis=-1)
        before = xp.concat([xp.zeros_like(before[..., :1]), before], axis=-1)
        low, high = before[..., first], before[..., last]
        back = xp.argsort(order)
        out.append(((low + high + 1) / 2)[..., back])
    return xp.stack(out, -1)


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the scores of every target.

    r2 is 1 - the squared error / that of the mean; r2 and the correlations (Pearson, 1895;
    Spearman, 1904) are NaN where gold is constant.
    """
    n, xp = state["count"], namespace(state["count"])
    mean_x, mean_y = ratio(state["x"], n, 0.0), ratio(state["y"], n, 0.0)
    sxx, syy = (state["xx"] - n * mean_x**2, state["yy"] - n * mean_y**2)
    # what rounding leaves of equal numbers is none
    sxx, syy = (xp.where(s > 1e-12 * state[of], s, 0) for s, of in ((sxx, "xx"), (syy, "yy")))
    some = (sxx > 0) & (syy > 0)
    correlation = lambda xy, xx, yy: xp.clip(ratio(xy, xp.sqrt(xp.where(some, xx * yy, 0))), -1, 1)
    mse = ratio(state["square"], n)
    return {
        "rows": n,
        "mse": mse,
        "rmse": xp.sqrt(mse),
        "mae": ratio(state["absolute"], n),
        "r2": 1 - ratio(state["square"], sxx),
        "pearson": correlation(state["xy"] - n * mean_x * mean_y, sxx, syy),
        "spearman": correlation(state["rank_xy"], state["rank_xx"], state["rank_yy"]),
    }


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean of each score over the targets."""
    found = each(state)
    return {name: found[name].mean(-1) for name in NUMBERS}


METRICS = {
    "number_scores": Metric(
        names=NUMBERS,
        needs=("targets", "predictions"),
        observe=observe,
        reduce=reduce,
        value=value,
        each=each,
        table="targets",
        lower_is_better=ERRORS,
        counts=("rows",),
    ),
}
