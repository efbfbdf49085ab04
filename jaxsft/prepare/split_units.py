"""How the units of a split are placed: by shares, by time, or by the labels that they hold.

A unit is the rows that must stay together.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.data.formats import Row
from jaxsft.errors import DataError
from jaxsft.prepare.stage import value_of


@dataclasses.dataclass
class SplitUnit:
    """A unit of rows that share a part: equal ones, those of a group, near duplicates.

    `key` names it whatever the order of the rows.
    """

    key: str
    rows: list[int]
    labels: Counter[str]
    time: Any = None

    def hash(self, seed: int) -> bytes:
        return hashlib.sha256(f"{seed}\n{self.key}".encode("utf-8", "backslashreplace")).digest()


def cut(
    blocks: Sequence[Sequence[SplitUnit]], shares: Sequence[float]
) -> list[tuple[SplitUnit, int]]:
    """Cuts blocks in their order at the shares of rows: a block belongs where its middle falls."""
    total, before, placed = sum(len(unit.rows) for block in blocks for unit in block), 0, []
    for block in blocks:
        size = sum(len(unit.rows) for unit in block)
        part = part_at((before + size / 2) / total, shares)
        placed += [(unit, part) for unit in block]
        before += size
    return placed


def part_at(position: float, shares: Sequence[float]) -> int:
    """Returns the part in which a position from 0 to 1 falls."""
    last = max(part for part, share in enumerate(shares) if share > 0)
    return next(
        (part for part, end in enumerate(itertools.accumulate(shares)) if position < end), last
    )


def pointed(digest: bytes, shares: Sequence[float]) -> int:
    return part_at(int.from_bytes(digest[:8], "big") / 2**64, shares)


def by_time(units: Sequence[SplitUnit], shares: Sequence[float]) -> list[tuple[SplitUnit, int]]:
    if len({type(unit.time) for unit in units}) > 1:
        raise DataError(
            "stages.split.time: the column holds numbers and dates; expected one of them"
        )
    blocks: dict[Any, list[SplitUnit]] = defaultdict(list)
    for unit in units:
        blocks[unit.time].append(unit)
    return cut([blocks[time] for time in sorted(blocks)], shares)


def iterative_stratification(
    units: Sequence[SplitUnit], shares: Sequence[float]
) -> list[tuple[SplitUnit, int]]:
    """Spreads each label by the shares, the rarest label first.

    Sechidis et al. 2011, algorithm 1; ties of both criteria go to the first part.

    Units of several rows count with their rows, so that the shares hold for rows.
    """
    names = sorted({label for unit in units for label in unit.labels})
    column = {label: i for i, label in enumerate(names)}
    total = np.zeros(len(names))
    for unit in units:
        for label, count in unit.labels.items():
            total[column[label]] += count
    wanted = np.outer(shares, total)  # [parts, labels] rows that each part should still get
    room = np.array(shares) * sum(len(unit.rows) for unit in units)
    waiting: dict[str, dict[int, SplitUnit]] = {label: {} for label in names}
    for i, unit in enumerate(units):
        for label in unit.labels:
            waiting[label][i] = unit
    placed: dict[int, int] = {}
    open_parts = np.array(shares) > 0

    def place(i: int, unit: SplitUnit, need: np.ndarray) -> None:
        need = np.where(open_parts, need, -np.inf)
        best = np.flatnonzero(need >= need.max() - 1e-9)
        part = int(best[np.argmax(room[best])])
        placed[i] = part
        room[part] -= len(unit.rows)
        for label, count in unit.labels.items():
            wanted[part, column[label]] -= count
            waiting[label].pop(i, None)

    while left := [label for label in names if waiting[label]]:
        label = min(left, key=lambda label: (len(waiting[label]), label))
        for i, unit in list(waiting[label].items()):
            place(i, unit, wanted[:, column[label]])
    for i, unit in enumerate(units):
        if i not in placed:  # without labels
            place(i, unit, room)
    return [(unit, placed[i]) for i, unit in enumerate(units)]


def time_of(row: Row, name: str) -> Any:
    """Returns a number, or a moment in UTC. Raises DataError for anything else."""
    value = value_of(row, name, "stages.split.time")
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return float(value)
        return (
            float(value)
            if str(value).replace(".", "", 1).isdigit()
            else _utc(datetime.datetime.fromisoformat(value))
        )
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{row.where}: column {name!r} holds {value!r:.60}, expected a number or a date such as"
            " 2024-05-31T10:00; set stages.split.time"
        ) from None


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return (
        moment.replace(tzinfo=datetime.UTC)
        if moment.tzinfo is None
        else moment.astimezone(datetime.UTC)
    )
