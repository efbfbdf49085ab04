"""Kendall's tau-b of gold and predicted numbers, in O(n log n) and under weights of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio
from jaxsft.metrics.ranking import tied, upto

BITS = 2  # of ranks that are sorted at a time: measured, the fastest of 1 to 4


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns gold and predicted numbers, `[rows, targets]`, as ranks from 0 without gaps, and
    which are there.
    """
    gold, predicted = (np.asarray(outputs[n], np.float64) for n in ("targets", "predictions"))
    gold, predicted = (x[:, None] if x.ndim == 1 else x for x in (gold, predicted))
    there = np.isfinite(gold)
    return {
        "gold": _dense(np.where(there, gold, 0)),
        "predicted": _dense(np.where(there, predicted, 0)),
        "there": there,
        "broken": there & np.isnan(predicted),
    }


def _dense(x: np.ndarray) -> np.ndarray:
    """Returns the number of smaller values among the different ones of each column."""
    columns = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in x.T]
    return np.stack(columns, -1).astype(np.int32) if columns else np.zeros(x.shape, np.int32)


def reduce(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
    """Returns weights of pairs of rows, `[..., targets]`: all, those that are equal in gold, in
    predicted, in both, and those in the opposite order.

    A row of weight w stands there w times, and forms w (w - 1) / 2 pairs that are equal in both.
    """
    xp, found = namespace(weights), []
    for t in range(statistics["gold"].shape[1]):
        mass = weights * statistics["there"][:, t]
        found.append(_pairs(statistics["gold"][:, t], statistics["predicted"][:, t], mass))
    out = {name: xp.stack([x[name] for x in found], -1) for name in found[0]}
    return out | {"broken": weights @ statistics["broken"].astype(weights.dtype)}


def _pairs(x: Any, y: Any, mass: Any) -> dict[str, Any]:
    """Returns the sums of `reduce` of one target: x, y `[rows]` ranks, mass `[..., rows]`."""
    xp = namespace(mass)
    by_y = xp.argsort(y, stable=True)
    order = by_y[xp.argsort(x[by_y], stable=True)]  # by x, and by y where x is equal
    both = tied((xp.cumulative_sum(_steps(x[order], y[order])))[None])
    return {
        "pairs": _of_groups(mass.sum(-1)[..., None]),
        "same_gold": _equal(mass[..., order], tied(x[order][None])),
        "same_predicted": _equal(mass[..., by_y], tied(y[by_y][None])),
        "same_both": _equal(mass[..., order], both),
        "opposite": inversions(y[order], mass[..., order]),
    }


def _steps(x: Any, y: Any) -> Any:
    """Returns 1 where a pair of sorted values differs from the one before, else 0."""
    xp = namespace(x)
    differs = (x[1:] != x[:-1]) | (y[1:] != y[:-1])
    return xp.concat([xp.zeros(min(len(x), 1), xp.int32), differs.astype(xp.int32)])


def _of_groups(mass: Any) -> Any:
    """Returns the weight of the pairs within groups of a weight `[..., groups]`."""
    return (mass * (mass - 1)).sum(-1) / 2


def _equal(mass: Any, bounds: tuple[Any, Any]) -> Any:
    """Returns the weight of the pairs of equal rows: mass `[..., rows]` in order, and how many rows
    stand before and up to the equals of each, `[1, rows]`.
    """
    first, end = bounds
    one = mass[..., None, :]
    group = (upto(one, end) - upto(one, first))[..., 0, :]
    return (mass * (group - 1)).sum(-1) / 2


def inversions(rank: Any, mass: Any) -> Any:
    """Returns the weight of the pairs of which the earlier row has the higher rank.

    Digit by digit of the ranks, from the highest: rows that agree in the digits above form a group,
    in their first order; in it, a row with a higher digit that comes before one with a lower digit
    is decided. Rows are then sorted by the digit within their group.

    Args:
      rank: `[rows]` int, from 0 and below the number of rows; mass: `[..., rows]`.
    """
    xp, rows = namespace(mass), len(rank)
    found = xp.zeros(mass.shape[:-1], mass.dtype)
    for shift in reversed(range(0, max(rows - 1, 0).bit_length(), BITS)):
        digit, first = (rank >> shift) & (2**BITS - 1), tied((rank >> (shift + BITS))[None])[0][0]
        for low in range(2**BITS - 1):
            sums = xp.cumulative_sum(mass * (digit > low), axis=-1, include_initial=True)
            if xp is np:  # only where they are: half of the time
                at = np.flatnonzero(digit == low)
                of, before = mass[..., at], sums[..., at] - sums[..., first[at]]
            else:
                of, before = mass * (digit == low), sums[..., :-1] - sums[..., first]
            found = found + (of * before).sum(-1)
        key = rank >> shift
        # NumPy sorts by digits where they are few
        key = key.astype(np.uint16) if xp is np and rows >> shift < 2**16 else key
        order = xp.argsort(key, stable=True)
        rank, mass = rank[order], mass[..., order]
    return found


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes tau-b of every target (Kendall, 1945); NaN where either side is constant."""
    xp, n = namespace(state["pairs"]), state["pairs"]
    gold, predicted = n - state["same_gold"], n - state["same_predicted"]
    agreed = n - state["same_gold"] - state["same_predicted"] + state["same_both"]
    some = (gold > 0) & (predicted > 0)
    scale = xp.sqrt(xp.where(some, gold * predicted, 0))
    tau = xp.clip(ratio(agreed - 2 * state["opposite"], scale), -1, 1)
    return {"kendall_tau_b": xp.where(state["broken"] > 0, xp.nan, tau)}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean of tau-b over the targets."""
    return {"kendall_tau_b": each(state)["kendall_tau_b"].mean(-1)}


METRICS = {
    "kendall": Metric(
        ("kendall_tau_b",),
        ("targets", "predictions"),
        observe,
        value,
        reduce,
        each=each,
        table="kendall",
    )
}
