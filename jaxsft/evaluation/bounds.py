"""Bounds of the numbers of a split, by the Poisson bootstrap over its rows (`unit_counts`)."""

from __future__ import annotations

import math
import statistics as stdlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse, special

from jaxsft.config.rules import least_replicates
from jaxsft.errors import ConfigError
from jaxsft.evaluation.replicates import (
    CHUNK,
    SumsOfUnits,
    UnitSums,
    mapped,
    numbers_of,
    of_table,
    replicated,
    tables,
)
from jaxsft.evaluation.unit_counts import Units, counts, units
from jaxsft.metrics.base import Cells, Metric, Statistics, total

FEW = 40  # hits or misses below which a proportion has Wilson's interval

# --- intervals
# --------------------------------------------------------------------------------------------------
Interval = dict[str, Any]


def intervals(
    metric: Metric,
    statistics: Statistics,
    rows: np.ndarray,
    *,
    clusters: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns the numbers of a metric with their bounds.

    Args:
      statistics: what `metric.observe` gave for the rows.
      rows: `[rows]`, their numbers in the split.
      clusters: `[rows]`, what a row belongs to (its document, its author), as a number or a name:
        rows of a cluster are drawn together.

    Returns: by number `value`, `low`, `high` (None: no bound, and `reason` says why), `se` (the
      standard error), `n` rows, `clusters` (None: rows are independent), `level`, and `method`:
      "percentile" of the replicates, "wilson" of a proportion with few hits or misses, "count" of
      what only counts. Under clusters `naive_se` is the standard error without them. Where a
      number is undefined in some replicates `undefined` is their share.

    Raises ConfigError for an impossible level or number of replicates, or no row.
    """
    check(level, replicates)
    of = units(rows, clusters)
    values = point(metric, statistics, of.rows)
    if of.rows == 0:
        drawn = {name: np.zeros(0) for name in metric.names}
    elif _by_table(metric, statistics, of):
        drawn = of_table(metric, statistics, replicates, seed)
    else:
        drawn = replicated(metric, statistics, of, replicates, seed)
    shares = _proportions(metric, statistics, of.rows, values)
    proportions, plain, out = {}, {}, {}
    if of.clusters is None:
        proportions = shares
    elif of.rows:
        plain = replicated(metric, statistics, units(rows), replicates, seed)
    independent = of.rows if of.clusters is None else of.clusters
    for name, value in values.items():
        entry = {"value": value, "low": None, "high": None, "n": of.rows, "clusters": of.clusters}
        if name in metric.counts:
            entry |= {"method": "count", "level": level}
        elif name in proportions:
            low, high = wilson(*proportions[name], level)
            entry |= {"low": low, "high": high, "method": "wilson", "level": level}
            entry["se"] = float(np.std(drawn[name], ddof=1))
        else:
            entry |= _of_replicates(value, drawn[name], independent, level, name in shares)
        if name in plain and name not in metric.counts:
            entry["naive_se"] = percentile(plain[name], level, of.rows)["se"]
        out[name] = entry
    return out


def _of_replicates(
    value: float, drawn: np.ndarray, independent: int, level: float, share: bool
) -> Interval:
    """Returns the bounds of a number from its replicates; `share`: it is a mean of 0 or 1."""
    out = {"method": "percentile", "level": level, **percentile(drawn, level, independent)}
    if not math.isfinite(value):
        return out | {"low": None, "high": None, "reason": "the number itself is not finite"}
    if out["se"] != 0:
        return out
    if not share:
        return out | {"low": None, "high": None, "reason": "all replicates are alike"}
    # all alike says little where they are few: as if each unit were one hit or miss
    low, high = wilson(value * independent, independent, level)
    return out | {"low": low, "high": high, "method": "wilson"}


def check(level: float, replicates: int) -> None:
    """Raises ConfigError for a level or a number of replicates that give no bounds."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: give a share between 0 and 1, such as 0.95")
    least = least_replicates(level)
    if replicates < least:
        raise ConfigError(f"replicates={replicates}: level={level} needs {least} of them at least")


def point(metric: Metric, statistics: Statistics, rows: int) -> dict[str, float]:
    """Returns the numbers of all rows, each once."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = metric.value(metric.reduce(statistics, np.ones(rows)))
    return {name: float(values[name]) for name in metric.names}


def _by_table(metric: Metric, statistics: Statistics, of: Units) -> bool:
    return (
        isinstance(statistics, Cells)
        and statistics.row is None
        and metric.reduce is total
        and of.clusters is None
        and of.rows > int(np.prod(statistics.shape))
    )


def percentile(drawn: np.ndarray, level: float, independent: int) -> Interval:
    """Returns `low`, `high` and `se` of the finite replicates, and how many are not.

    The quantiles lie as far out as Student's t of so many independent units demands: plain ones
    cover too little where units are few (Hesterberg, 2015, the expanded percentile interval).
    """
    finite = drawn[np.isfinite(drawn)]
    if independent < 2:
        reason = "no row counts" if not independent else "one row or cluster has no spread"
        return {"low": None, "high": None, "se": None, "reason": reason}
    if len(finite) < 2:
        reason = "undefined in all replicates"
        return {"low": None, "high": None, "se": None, "reason": reason}
    t = t_of(level, independent - 1) * math.sqrt(independent / (independent - 1))
    tail = stdlib.NormalDist().cdf(-t)
    # (B + 1) p: of B replicates as good as of infinitely many
    low, high = np.quantile(finite, [tail, 1 - tail], method="weibull")
    out = {"low": float(low), "high": float(high), "se": float(np.std(finite, ddof=1))}
    if len(finite) < len(drawn):
        out["undefined"] = 1 - len(finite) / len(drawn)
    return out


def t_of(level: float, freedom: float) -> float:
    """Returns the quantile of Student's t that leaves `1 - level` on both sides together."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def z_of(level: float) -> float:
    """Returns the normal quantile that leaves `1 - level` on both sides together."""
    return stdlib.NormalDist().inv_cdf((1 + level) / 2)


def wilson(hits: float, n: float, level: float) -> tuple[float, float]:
    """Returns the bounds of a proportion (Wilson, 1927), which stay useful at 0 and 1."""
    z, share = z_of(level), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # exact at the ends, where rounding leaves something
    return (middle - half if hits > 0 else 0.0), (middle + half if hits < n else 1.0)


# --- numbers of one row
# --------------------------------------------------------------------------------------------------
def row_values(metric: Metric, statistics: Statistics, rows: int) -> dict[str, np.ndarray]:
    """Returns what each number is of each row alone, `[rows]`; NaN where the row does not count.

    Only of a metric whose `reduce` is a sum: its statistics of a row are the state of that row.
    """
    if isinstance(statistics, Cells) and statistics.row is None and rows:
        # rows of one cell are alike
        cells, back = np.unique(np.asarray(statistics.index), return_inverse=True)
        if len(cells) < rows:
            values = row_values(metric, Cells(cells, statistics.shape), len(cells))
            return {name: x[back] for name, x in values.items()}
    of = Units(np.zeros(rows, np.uint32), None, rows)
    of_units, parts = tables(statistics, of), []
    width = sum(_sizes(of_units))
    step = max(1, CHUNK // max(width, 1))
    for start in range(0, rows, step):
        state = mapped(lambda table: _slice(table, start, start + step), of_units)
        parts.append(state)
    return (
        numbers_of(metric, iter(parts)) if parts else {name: np.zeros(0) for name in metric.names}
    )


def _sizes(of_units: SumsOfUnits) -> list[int]:
    if isinstance(of_units, Mapping):
        return [size for one in of_units.values() for size in _sizes(one)]
    return [int(np.prod(of_units.shape))]


def _slice(table: UnitSums, start: int, stop: int) -> np.ndarray:
    part = table.matrix[start:stop]
    part = part.toarray() if sparse.issparse(part) else part
    return part.reshape(len(part), *table.shape)


def _proportions(
    metric: Metric, statistics: Statistics, rows: int, values: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Returns (hits, rows) of the numbers that are the mean of 0 or 1 over rows, where few are
    hits or few are misses.
    """
    asked = [
        name
        for name, value in values.items()
        if name not in metric.counts and 0 <= value <= 1 and min(value, 1 - value) * rows < FEW
    ]
    if metric.reduce is not total or not asked or not rows:
        return {}
    values = row_values(metric, statistics, rows)
    found = plain_means(metric, statistics, rows, {name: values[name] for name in asked})
    return {
        name: (float(np.nansum(x)), float(np.isfinite(x).sum()))
        for name, x in found.items()
        if min(np.nansum(x), np.isfinite(x).sum() - np.nansum(x)) < FEW
    }


def plain_means(
    metric: Metric, statistics: Statistics, rows: int, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns, of `values` of rows, those whose mean is the number, and which are all 0 or 1.

    Equality is tried under a few weights, so that a coincidence is not taken for the rule.
    """
    if metric.reduce is not total:
        return {}
    found, weights = {}, counts(1, np.arange(4, dtype=np.uint32), np.arange(rows, dtype=np.uint32))
    weights = np.concatenate([np.ones((1, rows)), weights.astype(np.float64)])
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = metric.value(metric.reduce(statistics, weights))
    for name, x in values.items():
        there = np.isfinite(x)
        if name in metric.counts or not there.any() or not np.isin(x[there], (0, 1)).all():
            continue
        mass = weights @ there
        mean = (weights @ np.where(there, x, 0)) / np.where(mass > 0, mass, np.nan)
        if np.allclose(mean, whole[name], rtol=0, atol=1e-12, equal_nan=True):
            found[name] = x
    return found
