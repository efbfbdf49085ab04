"""Kendall's tau-b of gold and predicted numbers, in O(n log n) and under weights of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio
from jaxsft.metrics.ranking import tied, upto


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

    Bit by bit of the ranks, from the highest: rows that agree in the bits above form a group, in
    their first order; in it, a row with the bit comes before one without it, and their order is
    decided. Rows are then sorted into two groups each.

    Args:
      rank: `[rows]` int, from 0 and below the number of rows; mass: `[..., rows]`.
    """
    xp, rows = namespace(mass), len(rank)
    found = xp.zeros(mass.shape[:-1], mass.dtype)
    for bit in reversed(range(max(rows - 1, 0).bit_length())):
        high = (rank >> bit) & 1
        first, order = _split(rank, bit)
        sums = xp.cumulative_sum(mass * high, axis=-1, include_initial=True)
        before = sums[..., :-1] - sums[..., first]
        found = found + (mass * (1 - high) * before).sum(-1)
        rank, mass = rank[order], mass[..., order]
    return found


def _split(rank: Any, bit: int) -> tuple[Any, Any]:
    """Returns where the group of each row begins, whose ranks agree above a bit, and the order in
    which rows without the bit come first in their group.
    """
    xp, above, rows = namespace(rank), rank >> (bit + 1), len(rank)
    if xp is not np:
        first, _ = tied(above[None])
        return first[0], xp.argsort(rank >> bit, stable=True)
    # counted instead of sorted: several times as fast
    fresh = np.append(True, above[1:] != above[:-1])[:rows]
    starts, group = np.flatnonzero(fresh), np.cumsum(fresh) - 1
    first, end = starts[group], np.append(starts[1:], rows)[group]
    high, at = ((rank >> bit) & 1).astype(bool), np.arange(rows)
    zeros = np.append(0, np.cumsum(~high))
    place = np.where(high, at + zeros[end] - zeros[1:], first + zeros[:-1] - zeros[first])
    order = np.empty(rows, np.intp)
    order[place] = at
    return first, order


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
