"""How much worse a model is on other rows than on those that it was trained on:
`figures/gaps.json`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxsft.evaluation import bounds
from jaxsft.evaluation.crossval import (
    PARTS,
    BoundOptions,
    FoldScores,
    corrected_mean,
    counts,
    share,
)
from jaxsft.evaluation.measured import Measured

DEFAULT = BoundOptions()


def gap_table(
    sets: Mapping[str, Mapping[str, Measured]],
    losses: Mapping[str, float],
    options: BoundOptions = DEFAULT,
) -> dict[str, Any]:
    """Returns the numbers of several sets of rows, and how far each is from the first set.

    The sets have no row in common, so that their bootstraps are independent.

    Args:
      sets: the metrics of each set, by its name; the first is what the others are compared with.
      losses: of each set.

    Returns: `sets`: of each its numbers with bounds; `gaps`: by number and set, `gap` (the number
      there less that of the first set) with `low`, `high` and `se`, and whether it is `worse`.
    """
    reference, *others = sets
    values: dict[str, dict[str, Any]] = {}
    drawn: dict[str, dict[str, np.ndarray]] = {}
    units: dict[str, dict[str, int]] = {}
    lower: set[str] = {"loss"}
    for i, (name, metrics) in enumerate(sets.items()):
        values[name], drawn[name], units[name] = {"loss": {}}, {}, {}
        for one in metrics.values():
            mine = dataclasses.asdict(dataclasses.replace(options, seed=options.seed + i))
            values[name] |= bounds.intervals(one.metric, one.statistics, one.rows, **mine)
            drawn[name] |= bounds.replicated(
                one.metric, one.statistics, bounds.units(one.rows), mine["replicates"], mine["seed"]
            )
            units[name] |= dict.fromkeys(one.metric.names, len(one.rows))
            lower |= set(one.metric.lower_is_better)
        values[name]["loss"]["value"] = losses[name]  # to the bit that of the result
    only_count = {n for one in sets[reference].values() for n in one.metric.counts}
    gaps = []
    for number in (n for n in values[reference] if n not in only_count):
        for other in (name for name in others if number in values[name]):
            gap = values[other][number]["value"] - values[reference][number]["value"]
            entry = {"number": number, "from": reference, "to": other, "gap": gap}
            if number in drawn[other]:
                apart = drawn[other][number] - drawn[reference][number]
                few = min(units[name][number] for name in (reference, other))
                entry |= bounds.percentile(apart, options.level, few)
            gaps.append(entry | {"worse": bool(gap > 0 if number in lower else gap < 0)})
    return {"reference": reference, "level": options.level, "sets": values, "gaps": gaps}


def fold_gaps(
    folds: Sequence[FoldScores],
    lower_is_better: Sequence[str],
    level: float,
    others: Mapping[str, Sequence[Mapping[str, float]]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the same of a cross-validation: what its models reach on the rows that they trained
    on, and on those that were held out from them.

    The bounds are those of a mean over folds (`crossval.corrected_mean`).

    Args:
      others: of further sets, by name, the numbers that the model of each fold has there.
    """
    by_part = {part: [fold.numbers(part) for fold in folds] for part in PARTS} | dict(others)
    reference = PARTS[0]
    names = [n for n in by_part[reference][0] if n not in counts(folds[0])]
    mean = lambda values: corrected_mean(values, share(folds), level)
    sets = {
        part: {name: mean([one[name] for one in numbers]) for name in names}
        for part, numbers in by_part.items()
    }
    gaps = []
    for name, other in itertools.product(names, [*by_part][1:]):
        pairs = zip(by_part[other], by_part[reference], strict=True)
        found = mean([there[name] - train[name] for there, train in pairs])
        gap = found.pop("value")
        worse = bool(gap > 0 if name in lower_is_better else gap < 0)
        gaps.append(
            {"number": name, "from": reference, "to": other, "gap": gap, **found, "worse": worse}
        )
    return {"reference": reference, "level": level, "sets": sets, "gaps": gaps}
