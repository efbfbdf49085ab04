"""More errors of numbers: quantiles, the median and the largest one, and the variance that is
explained. Missing targets (NaN) do not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, namespace, ratio
from jaxsft.metrics.regression import observe

QUANTILES = (0.1, 0.5, 0.9)
PINBALLS = tuple(f"pinball_{q}" for q in QUANTILES)
NAMES = (*PINBALLS, "max_error", "median_absolute_error")


def reduce(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns sums over rows, the largest error and the weighted median, `[..., targets]` each."""
    xp, there = namespace(weights), statistics["there"].astype(weights.dtype)
    # predicted - gold; 0 where the target is missing
    error, gold = statistics["error"], statistics["gold"]
    columns = {"x": gold, "xx": gold**2, "e": error, "ee": error**2}
    out = {name: weights @ column for name, column in columns.items()}
    out["above"] = weights @ xp.maximum(error, 0)
    size, mass = abs(error), weights[..., None] * there
    return out | {
        "count": weights @ there,
        "max_error": xp.where(mass > 0, size, 0).max(-2, initial=0),
        "median_absolute_error": median(size, mass),
    }


def median(x: Any, mass: Any) -> Any:
    """Returns the median of each column, where row i stands `mass[i]` times: the mean of the two
    middle values where two are.

    Args:
      x: `[rows, columns]`; mass: `[..., rows, columns]`.
    """
    xp = namespace(mass)
    if (
        xp is np and mass.ndim == x.ndim and ((mass == 0) | (mass == 1)).all()
    ):  # selected, not sorted
        columns = (values[there > 0] for values, there in zip(x.T, mass.T, strict=True))
        return np.array([np.median(kept) if len(kept) else np.nan for kept in columns])
    order = xp.argsort(x, axis=0)
    values = xp.take_along_axis(x, order, axis=0)
    lead = (1,) * (mass.ndim - x.ndim)
    mass = xp.take_along_axis(mass, order.reshape((*lead, *order.shape)), axis=-2)
    sums = xp.cumulative_sum(mass, axis=-2)
    half = mass.sum(-2, keepdims=True) / 2
    first = lambda reached: xp.where(reached, values, xp.inf).min(-2, initial=xp.inf)
    middle = (first((sums >= half) & (mass > 0)) + first((sums > half) & (mass > 0))) / 2
    return xp.where(half[..., 0, :] > 0, middle, xp.nan)


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the errors of every target.

    `pinball_q`: the mean of q (gold - predicted) where gold is higher, else (1 - q) (predicted -
    gold) (Koenker and Bassett, 1978). `explained_variance`: 1 - the variance of the error / that of
    gold; NaN where gold is constant.
    """
    n, xp = state["count"], namespace(state["count"])
    above, below = state["above"], state["above"] - state["e"]
    pinball = lambda q: (1 - q) * above + q * below
    some = ratio(n, n)
    variance = lambda x, xx: state[xx] - n * ratio(state[x], n, 0.0) ** 2
    gold = variance("x", "xx")
    gold = xp.where(gold > 1e-12 * state["xx"], gold, 0)  # what rounding leaves is none
    return {
        "rows": n,
        **dict(zip(PINBALLS, (ratio(pinball(q), n) for q in QUANTILES), strict=True)),
        "max_error": state["max_error"] * some,
        "median_absolute_error": state["median_absolute_error"],
        "explained_variance": 1 - ratio(variance("e", "ee"), gold),
    }


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean of each number over the targets."""
    found = each(state)
    return {name: found[name].mean(-1) for name in (*NAMES, "explained_variance")}


METRICS = {
    "number_errors": Metric(
        (*NAMES, "explained_variance"),
        ("targets", "predictions"),
        observe,
        value,
        reduce,
        each=each,
        table="number_errors",
        lower_is_better=NAMES,
        counts=("rows",),
    )
}
