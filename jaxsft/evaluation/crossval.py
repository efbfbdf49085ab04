"""The scores of a cross-validation: those of the rows that were held out, pooled, and the mean over
the folds.

A fold is a vector of weights, 1 for the rows that it holds out, on what its model gave of all rows.
The training rows of two folds are nearly the same, so that their scores are not independent: the
variance of the mean is that of Nadeau and Bengio (2003), `(1/J + held/train) s^2` of J folds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.evaluation import bounds
from jaxsft.evaluation.measured import Measured
from jaxsft.metrics.base import Cells, Outputs, Statistics, select

PARTS = ("train", "held_out")


@dataclasses.dataclass(frozen=True)
class BoundOptions:
    """The arguments of `bounds.intervals`."""

    level: float = 0.95
    replicates: int = 1000
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class FoldScores:
    """The scores of the model of one fold.

    Attributes:
      measured: the metrics of all rows that gave an example, by name.
      rows: the numbers of the rows of each of `PARTS`.
      losses: of each of `PARTS`.
    """

    repeat: int
    fold: int
    measured: Mapping[str, Measured]
    rows: Mapping[str, np.ndarray]
    losses: Mapping[str, float]

    def numbers(self, part: str) -> dict[str, float]:
        """Returns the numbers of the training rows, or of those that are held out."""
        out = {}
        for one in self.measured.values():
            out |= one.numbers(self.weights(one, part))
        return {**out, "loss": self.losses[part]}

    def weights(self, one: Measured, part: str) -> np.ndarray:
        """Returns 1 for each row of a part, else 0, `[rows]`."""
        return np.isin(one.rows, self.rows[part]).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class Pooled:
    """The rows that folds held out, one fold after another.

    Attributes:
      rows: `[n]`, their numbers in the set. A row stands once in each repeat.
    """

    metric: Any
    statistics: Statistics
    rows: np.ndarray


def pooled(folds: Sequence[FoldScores]) -> dict[str, Pooled]:
    """Returns the statistics of each row from the model that did not train on it, by metric."""
    out = {}
    for name, first in folds[0].measured.items():
        kept = [np.isin(f.measured[name].rows, f.rows["held_out"]) for f in folds]
        parts = [
            select(f.measured[name].statistics, np.flatnonzero(keep))
            for f, keep in zip(folds, kept, strict=True)
        ]
        rows = [f.measured[name].rows[keep] for f, keep in zip(folds, kept, strict=True)]
        sizes = [len(one) for one in rows]
        out[name] = Pooled(first.metric, joined(parts, sizes), np.concatenate(rows))
    return out


def joined(parts: Sequence[Statistics], sizes: Sequence[int]) -> Statistics:
    """Returns the statistics of the rows of all parts, which have so many rows each."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts], sizes) for name in first}
    if not isinstance(first, Cells):
        return np.concatenate([np.asarray(part) for part in parts])
    starts = np.cumsum([0, *sizes[:-1]])
    row = None
    if first.row is not None:
        row = np.concatenate([part.row + start for part, start in zip(parts, starts, strict=True)])
    return Cells(np.concatenate([part.index for part in parts]), first.shape, row)


def outputs_of_rows(outputs: Outputs, rows: np.ndarray) -> Outputs:
    """Returns what is known of some of the rows, whose numbers are given."""
    keep = np.isin(outputs.rows, rows)
    place, arrays = np.cumsum(keep) - 1, {}
    owner = {"word": outputs.arrays.get("word.row")}
    for name in ("span.gold", "span.predicted"):
        if name in outputs.arrays:
            owner[name] = outputs.arrays[name][:, 0]
    for name, array in outputs.arrays.items():
        of = owner.get(name, owner["word"] if name.startswith("word.") else None)
        arrays[name] = array[keep] if of is None else array[keep[of]]
    if "word.row" in arrays:
        arrays["word.row"] = place[arrays["word.row"]]
    for name in owner.keys() & arrays.keys():
        arrays[name] = np.column_stack([place[arrays[name][:, 0]], arrays[name][:, 1:]])
    texts = {
        name: [text for text, kept in zip(values, keep, strict=True) if kept]
        for name, values in outputs.texts.items()
    }
    return dataclasses.replace(outputs, rows=outputs.rows[keep], arrays=arrays, texts=texts)


# --- numbers
# --------------------------------------------------------------------------------------------------
def pooled_bounds(
    folds: Sequence[FoldScores], unit_of_row: np.ndarray, options: BoundOptions
) -> dict[str, Any]:
    """Returns the numbers of all rows that were held out, with bounds (`bounds.intervals`).

    Args:
      unit_of_row: `[rows]`, what is never parted: rows of a unit are drawn together, as is a row
        that several repeats held out.
    """
    out: dict[str, Any] = {}
    alone = len(np.unique(unit_of_row)) == len(unit_of_row)
    for one in pooled(folds).values():
        once = len(np.unique(one.rows)) == len(one.rows)
        rows = one.rows if once else np.arange(len(one.rows))
        clusters = None if alone and once else unit_of_row[one.rows]
        out |= bounds.intervals(
            one.metric, one.statistics, rows, clusters=clusters, **dataclasses.asdict(options)
        )
    return out


def fold_bounds(fold: FoldScores, unit_of_row: np.ndarray, options: BoundOptions) -> dict[str, Any]:
    """Returns the numbers of the rows that one fold held out, with bounds."""
    return pooled_bounds([fold], unit_of_row, options)


def fold_means(folds: Sequence[FoldScores], level: float) -> dict[str, dict[str, Any]]:
    """Returns the mean over the folds of each number of the rows held out (`corrected_mean`), but
    of those that only count.
    """
    values, left_out = [fold.numbers("held_out") for fold in folds], counts(folds[0])
    return {
        name: corrected_mean([v[name] for v in values], share(folds), level)
        for name in values[0]
        if name not in left_out
    }


def counts(fold: FoldScores) -> set[str]:
    """Returns the numbers that only count what is there."""
    return {name for one in fold.measured.values() for name in one.metric.counts}


def share(folds: Sequence[FoldScores]) -> float:
    """Returns how many rows are held out for each training row."""
    return float(np.mean([len(f.rows["held_out"]) / len(f.rows["train"]) for f in folds]))


def corrected_mean(values: Sequence[float], ratio: float, level: float) -> dict[str, Any]:
    """Returns the mean of the scores of folds with bounds that hold though they are dependent.

    Args:
      ratio: rows held out for each training row.

    Returns: `value`, `sd` over the folds, `se` after Nadeau and Bengio (2003), `naive_se` as if the
      folds were independent, `low` and `high` by Student's t, and `folds`, how many there are. A
      fold whose number is not finite leaves no bounds, and `reason` says so.

    >>> one = corrected_mean([0.5, 0.7], 1.0, 0.95)
    >>> round(one["value"], 3), round(one["sd"], 3), round(one["se"] / one["naive_se"], 3)
    (0.6, 0.141, 1.732)
    """
    x = np.asarray(values, np.float64)
    out: dict[str, Any] = {"value": float(x.mean()), "folds": len(x), "low": None, "high": None}
    if not np.isfinite(x).all():
        return out | {"reason": f"not finite in {int((~np.isfinite(x)).sum())} of {len(x)} folds"}
    if len(x) < 2:
        return out | {"reason": "one fold has no spread"}
    deviation = float(x.std(ddof=1))
    se = math.sqrt(1 / len(x) + ratio) * deviation
    half = bounds.t_of(level, len(x) - 1) * se
    return out | {
        "sd": deviation,
        "se": se,
        "naive_se": deviation / math.sqrt(len(x)),
        "low": out["value"] - half,
        "high": out["value"] + half,
    }
