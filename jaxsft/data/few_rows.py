"""Few rows of a split that show all of its labels (`data.limit`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def limit(records: Any, rows: int | None, task: Any = None) -> Any:
    """Keeps `rows` evenly spaced rows, some replaced so that labels keep a row.

    Every label, and of a number a high and a low one, has a row while there is room, the rarest
    first; a note tells what has none.
    """
    count = len(records.records)
    if not rows or rows >= count:
        return records
    kinds = _kinds(records.records, task)
    chosen = _with_kinds([i * count // rows for i in range(rows)], kinds)
    there, whole = (
        {kind for found in those for kind in found} for those in ([kinds[i] for i in chosen], kinds)
    )
    notes = records.notes
    if len(there) < len(whole):
        notes += (
            (
                f"data.limit={rows}: {len(there):,} of {len(whole):,} labels have a row in train,"
                " so that nothing is learnt of the others"
            ),
        )
    elif len(whole) == 1 or (task is not None and not whole and task.spec.output == "numbers"):
        notes += (
            (
                f"data.limit={rows}: all rows of train have the same to be learnt, so that learning"
                " them by heart shows nothing"
            ),
        )
    return records._replace(
        records=[records.records[i] for i in chosen],
        where=[records.where[i] for i in chosen],
        notes=notes,
    )


def _kinds(records: Sequence[Any], task: Any) -> list[frozenset[Any]]:
    """Returns what a few rows should show of each record.

    It is its labels, or that it has none; of numbers whether they lie above the mean of all
    rows.
    """
    numbers = [getattr(r, "targets", None) or (getattr(r, "score", None),) for r in records]
    if task is None or not records or None not in numbers[0]:
        values = np.array([n for n in numbers if None not in n], np.float64)
        if task is None or not len(values) or len(values) < len(records):
            return [frozenset()] * len(records)
        above, finite = values > np.nanmean(values, axis=0), np.isfinite(values)
        return [
            frozenset((i, bool(a[i])) for i in np.flatnonzero(f))
            for a, f in zip(above, finite, strict=True)
        ]
    return [
        frozenset(task.classes(r)) or frozenset([("label", None)] if hasattr(r, "labels") else [])
        for r in records
    ]


def _with_kinds(chosen: list[int], kinds: Sequence[frozenset[Any]]) -> list[int]:
    """Returns the rows, some replaced by the first row of a kind that none of them has.

    No kind loses its only row for it.
    """
    counts = Counter(kind for found in kinds for kind in found)
    have = Counter(kind for i in chosen for kind in kinds[i])
    first: dict[Any, int] = {}
    for i, found in enumerate(kinds):
        for kind in found:
            first.setdefault(kind, i)
    taken = set(chosen)
    for kind, _ in sorted(counts.items(), key=lambda one: (one[1], str(one[0]))):
        spare = (
            [i for i in taken if all(have[other] > 1 for other in kinds[i])]
            if not have[kind]
            else []
        )
        if spare:
            gone = max(
                spare, key=lambda i: (min((have[other] for other in kinds[i]), default=0), i)
            )
            taken = (taken - {gone}) | {first[kind]}
            have.subtract(kinds[gone])
            have.update(kinds[first[kind]])
    return sorted(taken)
