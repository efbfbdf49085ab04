"""How far groups are apart, such as languages, with bounds that hold after having looked at all.

The best of several groups looks better than it is, and the worst one worse. So the bounds are those
of all differences together: the largest deviation of any of them in a replicate, in its standard
errors, says how wide all must be (max-t; Romano and Wolf, 2005).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.config.rules import least_replicates
from jaxsft.data.encoded_split import Split
from jaxsft.evaluation import bounds, slices
from jaxsft.evaluation.measured import Measured
from jaxsft.evaluation.replicates import replicated

FEWEST = 2  # rows of a group that has a spread


def gaps(
    names: Sequence[str],
    values: np.ndarray,
    drawn: np.ndarray,
    units: Sequence[int],
    lower_is_better: bool,
    level: float,
) -> dict[str, Any]:
    """Returns how far the best group is from the worst one and from the mean of all groups.

    Args:
      values: `[groups]`, a number of each; drawn: `[groups, B]`, its replicates, of which column b
        is one replicate of all groups.
      units: of each group, how many rows or clusters are independent.

    Returns: `best`, `worst`, their names; `best_minus_worst` and `best_minus_mean`, at least 0
      whichever way the number points, with `low` and `high` (None: `reason` says why).
    """
    sign = -1.0 if lower_is_better else 1.0
    values, drawn = sign * np.asarray(values, float), sign * np.asarray(drawn, float)
    best, worst = int(values.argmax()), int(values.argmin())
    count, few = len(names), min(units)
    pairs = [(i, j) for i, j in itertools.permutations(range(count), 2)]
    between = np.zeros((len(pairs), count))
    for k, (i, j) in enumerate(pairs):
        between[k, i], between[k, j] = 1, -1
    to_mean = np.eye(count) - 1 / count
    return {
        "groups": count,
        "best": names[best],
        "worst": names[worst],
        "best_minus_worst": _highest(between, values, drawn, few, level),
        "best_minus_mean": _highest(to_mean, values, drawn, few, level),
    }


def _highest(
    contrasts: np.ndarray, values: np.ndarray, drawn: np.ndarray, few: int, level: float
) -> dict[str, Any]:
    """Returns the highest of several contrasts `[contrasts, groups]`, which is never below 0, with
    bounds that hold for all of them together.
    """
    found = contrasts @ values
    out = {"value": float(found.max()), "low": None, "high": None, "level": level}
    finite = np.isfinite(drawn).all(0)
    if few < FEWEST or finite.sum() < least_replicates(level):
        return out | {"reason": "a group has fewer than two rows, or is mostly undefined"}
    if (drawn[:, finite].std(1) == 0).any():
        return out | {"reason": "all replicates of a group are alike"}
    apart = contrasts @ (drawn[:, finite] - values[:, None])
    spread = apart.std(1, ddof=1)
    seen = spread > 1e-12
    if not seen.any():
        return out | {"reason": "the groups are as far apart in all replicates"}
    # rows that are few make quantiles of replicates too narrow, by as much as those of Student's t
    wider = bounds.t_of(level, few - 1) / bounds.z_of(level) * math.sqrt(few / (few - 1))
    most = np.max(np.abs(apart[seen]) / spread[seen, None], axis=0)
    half = wider * float(np.quantile(most, level)) * spread
    return out | {"low": max(0.0, float((found - half).max())), "high": float((found + half).max())}


def of_slices(
    measured: Mapping[str, Measured],
    split: Split,
    clusters: np.ndarray | None,
    config: Any,
) -> dict[str, dict[str, Any]]:
    """Returns, by what was named in `evaluation.slices` and by number, how far its slices are
    apart: `figures/slice_gaps_<split>.json`.

    Slices of a file of rules may share rows; so may their replicates.
    """
    e, out = config.evaluation, {}
    if not e.replicates:
        return out
    for name, masks in slices.families(split, config).items():
        for one in measured.values():
            parts = {group: one.of(mask[one.rows]) for group, mask in masks.items()}
            parts = {group: part for group, part in parts.items() if len(part.rows)}
            if len(parts) > 1:
                out.setdefault(name, {}).update(_of_parts(parts, clusters, e.level, e.replicates))
    return out


def _of_parts(
    parts: Mapping[str, Measured], clusters: np.ndarray | None, level: float, replicates: int
) -> dict[str, dict[str, Any]]:
    values = [part.numbers() for part in parts.values()]
    drawn, units = [], []
    for part in parts.values():
        of = bounds.units(part.rows, None if clusters is None else clusters[part.rows])
        drawn.append(replicated(part.metric, part.statistics, of, replicates, 0))
        units.append(of.rows if of.clusters is None else of.clusters)
    metric = next(iter(parts.values())).metric
    return {
        number: gaps(
            [*parts],
            np.array([x[number] for x in values]),
            np.stack([x[number] for x in drawn]),
            units,
            number in metric.lower_is_better,
            level,
        )
        for number in metric.names
        if number not in (*metric.counts, *metric.unbounded)
        and all(math.isfinite(x[number]) for x in values)
    }
