"""Sections of a report that are tables: made once, written as a page and as Markdown.

A number that has bounds is drawn as a bar, its value as a dot, on a scale that the table shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxsft.errors import DataError, first_line
from jaxsft.reports import facts
from jaxsft.rundir import number

Scale = tuple[float, float]
NOWHERE = "–"


@dataclass(frozen=True)
class BoundBar:
    """Where a number and its bounds lie, in percent of a scale; `mark` is what they are held
    against, such as the number of all rows.
    """

    at: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, the number by which its column is sorted, and what a pointer shows."""

    text: str
    sort: float | None = None
    bar: BoundBar | None = None
    tip: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table; the first cell of each row names it.

    `ends` are those of the scale of its bars, and `of_bars` a sentence on them, for the page.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    title: str = ""
    note: str = ""
    of_bars: str = ""
    ends: tuple[str, str] | None = None
    folded: bool = False  # on the page it has to be opened
    raw_heads: bool = False  # they are names of options, whose _ stays


@dataclass(frozen=True)
class ReportSection:
    """Sentences, charts (on the page only), and tables."""

    told: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()
    charts: Sequence[Any] = ()
    notices: Sequence[str] = field(default=())


@contextmanager
def shape_of(path: Path) -> Iterator[None]:
    """Raises DataError, one sentence, for a file that is not of the shape that is read."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise DataError(
            f"{path.parent.name}/{path.name}: is not of the shape that this version of jaxsft"
            f" reads ({told}); write it again with this version"
        ) from error


# --- numbers with bounds
# --------------------------------------------------------------------------------------------------
def intervals(run_dir: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Returns the numbers with their bounds by (split, metric); none where there is no file.

    Raises DataError where the file holds something else.
    """
    path = run_dir / "intervals.json"
    if not path.is_file():
        return {}
    out: dict[tuple[str, str], Mapping[str, Any]] = {}
    found = facts.read(run_dir, path.name)
    if not isinstance(found, Mapping):
        raise DataError(f"{path.name}: expected an object (found {type(found).__name__})")
    for key, entry in found.items():
        split, _, metric = key.partition("/")
        if not metric or not isinstance(entry, Mapping) or "value" not in entry:
            raise DataError(f"{path.name}: {key}: expected a number with its bounds")
        out[split, metric] = entry
    return out


def bounded(entry: Mapping[str, Any] | None) -> bool:
    """Returns whether an entry has two finite bounds."""
    ends = [(entry or {}).get(name) for name in ("low", "high")]
    return all(isinstance(end, int | float) and math.isfinite(end) for end in ends)


def bounds_text(entry: Mapping[str, Any] | None) -> str:
    """Returns the bounds of an entry, "" where it has none."""
    if not entry or not bounded(entry):
        return ""
    return f"[{facts.number_text(entry['low'])}, {facts.number_text(entry['high'])}]"


def intervals_or_none(run_dir: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Returns the same; nothing of a damaged file, about which the section of bounds tells."""
    try:
        return intervals(run_dir)
    except facts.DAMAGE:
        return {}


def bound_texts(run_dir: Path) -> dict[tuple[str, str], str]:
    """Returns the bounds of a run as text by (split, metric), of those that have some."""
    texts = {place: bounds_text(entry) for place, entry in intervals_or_none(run_dir).items()}
    return {place: text for place, text in texts.items() if text}


def told_of(entry: Mapping[str, Any]) -> str:
    """Returns what is known of an entry beside its value: level, method, rows, clusters, why."""
    parts = []
    if bounded(entry):
        level = f"{number(entry['level']):.4g}" if "level" in entry else ""
        parts.append(f"bounds {bounds_text(entry)}{f' of level {level}' if level else ''}")
    if entry.get("method") not in (None, "none"):
        parts.append(f"method {entry['method']}")
    if entry.get("n") is not None:
        parts.append(f"{facts.number_text(entry['n'])} rows")
    if entry.get("clusters") is not None:
        parts.append(f"{facts.number_text(entry['clusters'])} clusters")
    for name in ("reason", "signature"):
        if entry.get(name):
            parts.append(str(entry[name]))
    return "; ".join(parts)


def scale(values: Sequence[float | None]) -> Scale:
    """Returns the ends of a scale: of shares whole tenths, else the range of values with room."""
    finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if low >= 0 and high <= 1:
        first, last = math.floor(10 * low), math.ceil(10 * high)
        return (first / 10, last / 10) if last > first else (max(first - 1, 0) / 10, 1.0)
    room = (high - low or abs(high) or 1.0) * 0.08
    return low - room, high + room


def scale_of(entries: Sequence[Mapping[str, Any]], *more: float) -> Scale:
    """Returns a scale for all values and bounds of entries."""
    ends = ("value", "low", "high")
    return scale([*more, *(entry.get(name) for entry in entries for name in ends)])


def scale_around_zero(entry: Mapping[str, Any]) -> Scale:
    """Returns a scale for a difference, with 0 in its middle."""
    ends = [number(entry[name]) for name in ("value", "low", "high") if entry.get(name) is not None]
    most = 1.15 * max((abs(end) for end in ends if math.isfinite(end)), default=0) or 1.0
    return -most, most


def ends_of(of: Scale) -> tuple[str, str]:
    """Returns the ends of a scale as text."""
    first, last = (facts.number_text(end if end != round(end) else int(end)) for end in of)
    return first, last


def bar_of(entry: Mapping[str, Any], of: Scale, mark: float | None = None) -> BoundBar | None:
    """Returns the bar of an entry, None where its value is not finite."""
    value = number(entry["value"])
    if not math.isfinite(value):
        return None
    place = lambda x: round(100 * min(max((number(x) - of[0]) / (of[1] - of[0]), 0), 1), 2)
    low, high = (place(entry["low"]), place(entry["high"])) if bounded(entry) else (None, None)
    return BoundBar(place(value), low, high, None if mark is None else place(mark))


def cells_of(
    entry: Mapping[str, Any], of: Scale, mark: float | None = None
) -> tuple[TableCell, TableCell]:
    """Returns the cells of a value and of its bounds, with the bar."""
    value = number(entry["value"])
    tip = told_of(entry)
    text = bounds_text(entry) or NOWHERE
    # a value alone on a scale of its own shows nothing
    bar = bar_of(entry, of, mark) if bounded(entry) or of != scale_of([entry]) else None
    return (
        TableCell(facts.number_text(entry["value"]), value if math.isfinite(value) else None),
        TableCell(text, number(entry["low"]) if bounded(entry) else None, bar, tip),
    )


def plain(value: Any) -> TableCell:
    """Returns the cell of a number, or of any other value as its text."""
    if value is None:
        return TableCell(NOWHERE)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return TableCell(facts.value_text(value))
    return TableCell(facts.number_text(value), value if math.isfinite(value) else None)
