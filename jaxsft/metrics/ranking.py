"""Sums over pairs of rows that a score puts in order: the base of AUROC and average precision.

A score is sorted once; the weights of the rows are cumulated in that order. Rows of equal scores
stand together: a pair of them counts half, and they enter a curve at once.

On the host, with weights 0 and 1, values are sorted alone, and those of the positive rows looked up
among them, which is several times faster than an order of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxsft.metrics.base import Cells, namespace, ratio

HELD = 1 << 24  # weights, times columns, that a compiled program holds at once


class Cumulated(NamedTuple):
    """Weights in descending order of a score, `[..., columns, rows]` each.

    Attributes:
      weight: of each row; positive: the same where the row is positive, else 0.
      above: of positive rows before those of an equal score; upto: with them.
      all_upto: of all rows, with those of an equal score.
      order: `[columns, rows]`, the place of each row in the data.
    """

    weight: Any
    positive: Any
    above: Any
    upto: Any
    all_upto: Any
    order: Any


def tied(values: Any) -> tuple[Any, Any]:
    """Returns, of sorted values `[columns, rows]`, how many stand before those that are equal to
    each, and how many with them.
    """
    xp = namespace(values)
    columns, rows = values.shape
    start = xp.arange(columns)[:, None] * rows
    if xp is np:  # without a search: several times as fast
        fresh = np.ones((columns, rows), bool)
        fresh[:, 1:] = values[:, 1:] != values[:, :-1]
        starts, group = np.flatnonzero(fresh), np.cumsum(fresh).reshape(columns, rows) - 1
        return starts[group] - start, np.append(starts[1:], fresh.size)[group] - start
    fresh = xp.concat(
        [xp.zeros((columns, min(rows, 1)), bool), values[:, 1:] != values[:, :-1]], axis=-1
    ).astype(xp.int32)
    group = (xp.cumulative_sum(fresh, axis=-1) + start).reshape(-1)
    first, end = (xp.searchsorted(group, group, side=s) for s in ("left", "right"))
    return first.reshape(columns, rows) - start, end.reshape(columns, rows) - start


def upto(x: Any, number: Any) -> Any:
    """Returns the sum of the first `number [columns, rows]` of `x [..., columns, rows]`."""
    xp = namespace(x)
    sums = xp.cumulative_sum(x, axis=-1, include_initial=True)
    lead = (1,) * (x.ndim - number.ndim)
    return xp.take_along_axis(sums, number.reshape((*lead, *number.shape)), axis=-1)


def cumulate(score: Any, positive: Any, weights: Any, row: Any = None) -> Cumulated:
    """Returns the cumulated weights of each column by itself.

    Args:
      score, positive: `[items, columns]`; weights: `[..., rows]`.
      row: `[items]`, the row of each item; None: item i is of row i.
    """
    xp = namespace(weights)
    order = xp.argsort(-score.T, axis=-1)
    first, end = tied(xp.take_along_axis(score.T, order, axis=-1))
    weight = weights[..., order if row is None else row[order]]
    of_positive = xp.where(xp.take_along_axis(positive.T, order, axis=-1), weight, 0)
    return Cumulated(
        weight=weight,
        positive=of_positive,
        above=upto(of_positive, first),
        upto=upto(of_positive, end),
        all_upto=upto(weight, end),
        order=order,
    )


def summed(score: Any, positive: Any, weights: Any, row: Any = None) -> dict[str, Any]:
    """Returns sums `[..., columns]` of each column of a score.

    `wins`: over pairs of a positive and another row, where the positive one has the higher score,
    half where they are equal. `precision`: over the positive rows, of the precision among the rows
    of no lower score. `positive`, `negative`: weights.
    """
    xp = namespace(weights)
    if xp is not np:
        parts = [
            _summed(cumulate(score[:, c], positive[:, c], weights, row))
            for c in blocks(score.shape[1], weights)
        ]
        return {name: xp.concat([x[name] for x in parts], axis=-1) for name in parts[0]}
    if weights.ndim == 1 and ((weights == 0) | (weights == 1)).all():
        keep = weights > 0 if row is None else (weights > 0)[row]
        keep = None if keep.all() else keep
        one = lambda c: _of_equal_weights(score[:, c], positive[:, c], keep)
    else:
        one = lambda c: _summed(
            cumulate(score[:, c : c + 1], positive[:, c : c + 1], weights, row), column=0
        )
    found = of_columns(one, score.shape[1])
    return {name: np.stack([x[name] for x in found], -1) for name in found[0]}


def blocks(columns: int, weights: Any) -> list[slice]:
    """Returns the columns in blocks of so few that `HELD` weights stand in one at most."""
    size = max(1, HELD // max(weights.size, 1))
    return [slice(start, start + size) for start in range(0, columns, size)]


def of_columns(one: Callable[[int], Any], columns: int) -> list[Any]:
    """Returns what a function makes of each column, on all cores."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, range(columns)))


def _summed(c: Cumulated, column: int | None = None) -> dict[str, Any]:
    """Returns the sums of `summed`; of one column alone without its axis."""
    other = c.weight - c.positive
    found = {
        "wins": (other * (c.above + c.upto) / 2).sum(-1),
        "precision": (c.positive * ratio(c.upto, c.all_upto, 0.0)).sum(-1),
        "positive": c.positive.sum(-1),
        "negative": other.sum(-1),
    }
    return found if column is None else {name: x[..., column] for name, x in found.items()}


def _of_equal_weights(
    score: np.ndarray, positive: np.ndarray, keep: np.ndarray | None
) -> dict[str, float]:
    """Returns the sums of one column of the rows that are kept (None: of all), of weight 1."""
    if keep is not None:
        score, positive = score[keep], positive[keep]
    every, right = np.sort(score), np.sort(score[positive])
    below, upto_ = (np.searchsorted(every, right, side=s) for s in ("left", "right"))
    lower, upper = (np.searchsorted(right, right, side=s) for s in ("left", "right"))
    wins = (below - lower).sum() + ((upto_ - below) - (upper - lower)).sum() / 2
    precision = (len(right) - lower) / (len(every) - below)
    sizes = {"positive": float(len(right)), "negative": float(len(every) - len(right))}
    return {"wins": float(wins), "precision": float(precision.sum())} | sizes


def pairs(score: Any, label: Any, weights: Any) -> Any:
    """Returns a table `[..., columns, labels]`: over pairs of a row of label a and one of label b,
    where a's score a is the higher one, half where they are equal.

    Args:
      score: `[rows, labels]`; label: `[rows]`; weights: `[..., rows]`.
    """
    xp, labels = namespace(weights), score.shape[1]
    by_label = Cells.of(label, shape=(labels,))

    def of(columns: Any) -> Any:
        c = cumulate(score[:, columns], label[:, None] == xp.arange(labels)[columns], weights)
        back = xp.argsort(c.order, axis=-1)
        back = xp.broadcast_to(back, c.above.shape)
        half = xp.take_along_axis((c.above + c.upto) / 2, back, axis=-1)
        return by_label.count(half * weights[..., None, :])

    if xp is not np:
        return xp.concat([of(c) for c in blocks(labels, weights)], axis=-2)
    return np.concatenate(of_columns(lambda i: of(slice(i, i + 1)), labels), axis=-2)


def auroc(sums: dict[str, Any]) -> Any:
    """Returns the area under the ROC curve of each column: the share of pairs in the right order
    (Hanley and McNeil, 1982). NaN without a positive or without another row.
    """
    return ratio(sums["wins"], sums["positive"] * sums["negative"])


def average_precision(sums: dict[str, Any]) -> Any:
    """Returns the mean precision at the positive rows (as scikit-learn, without interpolation); NaN
    without a positive row.
    """
    return ratio(sums["precision"], sums["positive"])


def means(value: Any, support: Any) -> tuple[Any, Any]:
    """Returns the mean over the columns whose value is a number, and that weighted by support."""
    xp = namespace(value)
    there = ~xp.isnan(value)
    value, support = xp.where(there, value, 0), xp.where(there, support, 0)
    return (
        ratio(value.sum(-1), there.sum(-1)),
        ratio((value * support).sum(-1), support.sum(-1)),
    )
