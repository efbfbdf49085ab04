"""Models trained on one language each, scored on files of several: the transfer matrix, what a
model gains on its own language, and how far languages are apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.evaluation import bounds, compare, group_gaps, robustness
from jaxsft.evaluation.compare import Arm, Settings
from jaxsft.evaluation.compared_runs import RunRows
from jaxsft.evaluation.perturbed_runs import ScoredRows
from jaxsft.evaluation.replicates import replicated


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One model on one set: its number with bounds, and the replicates of it."""

    entry: dict[str, Any]
    drawn: np.ndarray
    units: int
    lower_is_better: bool


def matrix(
    scored: Mapping[str, Mapping[str, ScoredRows]],
    number: str,
    settings: Settings,
    ids: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Returns the number of each model on each set, and what follows from it.

    Args:
      scored: by set and by model. A model whose name is that of a set was trained on its language.
      ids: of each set, by where a row stands, its id, as `aligned` gives it: rows of one id are the
        same sentence and drawn together. None: the sets are independent.

    Returns: `cells`: by model and set the number with bounds, and whether it is `own`; `gain`: how
      much better a model is on its own set than the others are there, of each set and on average
      (None without such a model, or without others); `gaps`: of each model, how far its sets are
      apart (`group_gaps.gaps`).

    Raises ConfigError for an unknown number, DataError where rows cannot be paired.
    """
    bounds.check(settings.level, settings.replicates)
    cells: dict[str, dict[str, _Cell]] = {}
    for i, (name, models) in enumerate(scored.items()):
        runs = robustness.paired({model: {None: one} for model, one in models.items()})
        own = settings
        if ids is None:
            # the sets have no row in common, so that their bootstraps are independent
            own = dataclasses.replace(settings, seed=settings.seed + i)
        for model, found in runs.items():
            places = models[model].where
            mine = None if ids is None else np.array([ids[name][where] for where in places])
            cells.setdefault(model, {})[name] = _cell(found[None], number, own, mine)
    lower = next(iter(next(iter(cells.values())).values())).lower_is_better
    told = {
        model: {name: {**one.entry, "own": model == name} for name, one in row.items()}
        for model, row in cells.items()
    }
    return {
        "number": number,
        "lower_is_better": lower,
        "cells": told,
        "gain": _gain(cells, lower, settings.level),
        "gaps": _gaps(cells, lower, settings.level),
        "paired": ids is not None,
        "level": settings.level,
        "replicates": settings.replicates,
        "seed": settings.seed,
    }


def _cell(run: RunRows, number: str, settings: Settings, ids: np.ndarray | None) -> _Cell:
    [(name, _)] = compare.shared_metrics([Arm(run.name, (run,))], [number]).items()
    metric, content = run.metrics[name], run.content
    statistics, rows = content.metrics[name], content.rows_of(name)
    how = {"level": settings.level, "replicates": settings.replicates, "seed": settings.seed}
    clusters = content.clusters_of(name)
    entry = bounds.intervals(metric, statistics, rows, clusters=clusters, **how)[number]
    if not math.isfinite(entry["value"]):
        raise DataError(f"{run.name}: {number} is {entry['value']}, which cannot be compared")
    if clusters is None and ids is not None:
        clusters = ids[rows]
    of = bounds.units(rows, clusters)
    drawn = replicated(metric, statistics, of, settings.replicates, settings.seed)[number]
    units = of.rows if of.clusters is None else of.clusters
    return _Cell(entry, drawn, units, number in metric.lower_is_better)


def _gain(
    cells: Mapping[str, Mapping[str, _Cell]], lower: bool, level: float
) -> dict[str, Any] | None:
    """Returns how much better models are on their own sets than the others are on these."""
    sign = -1 if lower else 1
    by_set: dict[str, dict[str, Any]] = {}
    values, drawn, few = [], [], []
    for name, own in ((name, row[name]) for name, row in cells.items() if name in row):
        others = [row[name] for model, row in cells.items() if model != name]
        if not others:
            return None
        mean = np.mean([other.entry["value"] for other in others])
        values.append(float(sign * (own.entry["value"] - mean)))
        drawn.append(sign * (own.drawn - np.mean([other.drawn for other in others], axis=0)))
        few.append(own.units)
        by_set[name] = {"value": values[-1], **bounds.percentile(drawn[-1], level, own.units)}
    if not values:
        return None
    mean = {"value": float(np.mean(values))}
    return {"sets": by_set, "mean": mean | bounds.percentile(np.mean(drawn, 0), level, min(few))}


def _gaps(
    cells: Mapping[str, Mapping[str, _Cell]], lower: bool, level: float
) -> dict[str, dict[str, Any]]:
    out = {}
    for model, row in cells.items():
        if len(row) > 1:
            values = np.array([one.entry["value"] for one in row.values()])
            drawn = np.stack([one.drawn for one in row.values()])
            units = [one.units for one in row.values()]
            out[model] = group_gaps.gaps([*row], values, drawn, units, lower, level)
    return out


# --- rows that are the same sentences
# --------------------------------------------------------------------------------------------------
ORDER = "order"


def aligned(sets: Mapping[str, Sequence[Row]], column: str) -> dict[str, dict[str, str]]:
    """Returns the id of each row of each set, by where it stands: rows of one id are the same
    sentence.

    Args:
      column: that has the id; `order`: the number of the row.

    Raises DataError where the sets are not parallel, and names the first id that differs.
    """
    if column == ORDER:
        ids = {n: {row.where: str(i) for i, row in enumerate(r, 1)} for n, r in sets.items()}
    else:
        ids = {name: _ids(name, rows, column) for name, rows in sets.items()}
    of = {name: [*found.values()] for name, found in ids.items()}
    (first, reference), *others = of.items()
    for name, mine in others:
        both = set(mine) & set(reference)
        for has, ids_there, lacks in ((first, reference, name), (name, mine, first)):
            if alone := [one for one in ids_there if one not in both]:
                what = "row " if column == ORDER else f"{column}="
                raise DataError(
                    f"the sets {first} and {name} are not parallel: {what}{alone[0]} of {has} is"
                    f" not in {lacks}, as {len(alone)} of its {len(ids_there)} rows"
                )
    return ids


def _ids(name: str, rows: Sequence[Row], column: str) -> dict[str, str]:
    """Returns the ids of a column, by where the row stands. Raises DataError where it has none, or
    one twice.
    """
    out, seen = {}, set()
    for row in rows:
        if column not in row.fields:
            raise DataError(f"{row.where}: has no column {column!r}, which aligned= names")
        one = out[row.where] = str(row.fields[column])
        if one in seen:
            raise DataError(f"{row.where}: {column}={one} occurs twice in the set {name}")
        seen.add(one)
    return out
