"""Slices of the splits of a run, and the worst of them, corrected for having looked at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config import metric_names
from jaxsft.metrics import by_name
from jaxsft.reports import facts, scores
from jaxsft.reports.report_tables import (
    NOWHERE,
    ReportSection,
    ReportTable,
    Scale,
    TableCell,
    bounds_text,
    cells_of,
    ends_of,
    intervals_or_none,
    plain,
    scale,
    shape_of,
)
from jaxsft.rundir import number

BESIDE = 3  # numbers that are shown beside the first one


def slices_section(run_dir: Path) -> ReportSection | None:
    """Returns a table of the slices of each split; None where the run has none.

    Raises DataError for a file that is no list of slices.
    """
    paths = sorted((run_dir / "figures").glob("slices_*.json"))
    by_split = {path.stem.removeprefix("slices_"): path for path in paths}
    if not by_split:
        return None
    first, all_rows = scores.of_run(run_dir), intervals_or_none(run_dir)
    told, tables = [], []
    for i, split in enumerate(facts.by_split([*by_split])):
        path = by_split[split]
        content = facts.read(run_dir, f"figures/{path.name}")
        with shape_of(path):
            whole = {m: e for (s, m), e in all_rows.items() if s == split}
            main, line, table = _of_split(split, content, first, whole, i > 0)
        told += [line, *_gaps(run_dir, split, main)]
        tables.append(table)
    return ReportSection(told, tables)


def lower_is_better(name: str) -> bool:
    """Returns whether less of a number is better."""
    return name == "loss" or any(
        name in metric.lower_is_better for metric in by_name.METRICS.values()
    )


def _of_split(
    split: str,
    content: Sequence[Mapping[str, Any]],
    first: str,
    whole: Mapping[str, Mapping[str, Any]],
    folded: bool,
) -> tuple[str, str, ReportTable]:
    """Returns the number that is shown first, a sentence on the worst slice, and the table."""
    names = list(dict.fromkeys(name for one in content for name in one["numbers"]))
    values = {
        (one["slice"], name): entry["value"]
        for one in content
        for name, entry in one["numbers"].items()
    }
    twice = metric_names.repeated(values, names)
    shown = [
        name
        for name in metric_names.ordered(names, first)
        if name in (first, *metric_names.ORDER) and name not in twice
    ] or names
    if not shown:
        raise ValueError("no slice has a number")
    main, beside = shown[0], shown[1 : 1 + BESIDE]
    of = _scale(content, main)
    reference = number(whole[main]["value"]) if main in whole else None
    rows = [_line(one, main, beside, of, reference) for one in content]
    heads = ["slice", "rows", main, "bounds", f"bounds for all {len(content)}", *beside]
    note = f"The line across the bars is {main} of all rows." if reference is not None else ""
    table = ReportTable(heads, rows, split, "", note, ends_of(of), folded)
    return main, _worst(split, content, main, reference), table


def _gaps(run_dir: Path, split: str, name: str) -> list[str]:
    """Returns a sentence for each column whose slices are apart in a number, with its bounds.

    Raises DataError for a file that holds no gaps.
    """
    path = run_dir / "figures" / f"slice_gaps_{split}.json"
    out = []
    with shape_of(path):
        for column, numbers in facts.read_or(run_dir, f"figures/{path.name}", {}).items():
            if (found := numbers.get(name)) is None:
                continue
            gap = found["best_minus_worst"]
            bound = bounds_text(gap) if gap["low"] is not None else f"no bound, {gap['reason']}"
            out.append(
                f"{split}: by {column}, {found['best']} and {found['worst']} are"
                f" {facts.number_text(gap['value'])} of {name} apart ({bound}; after looking at"
                f" all {found['groups']})."
            )
    return out


def _scale(content: Sequence[Mapping[str, Any]], name: str) -> Scale:
    entries = [one["numbers"][name] for one in content if name in one["numbers"]]
    wide = [end for one in content for end in one["corrected"].get(name, ())]
    ends = ("value", "low", "high")
    return scale([*wide, *(entry.get(end) for entry in entries for end in ends)])


def _line(
    one: Mapping[str, Any], main: str, beside: Sequence[str], of: Scale, mark: float | None
) -> list[TableCell]:
    empty = TableCell(NOWHERE)
    found = one["numbers"].get(main)
    value, bounds = (empty, empty) if found is None else cells_of(found, of, mark)
    wide = _wide(one, main)
    return [
        TableCell(str(one["slice"])),
        plain(one["rows"]),
        value,
        bounds,
        TableCell(bounds_text(wide) or NOWHERE, None if wide is None else number(wide["low"])),
        *(plain((one["numbers"].get(name) or {}).get("value")) for name in beside),
    ]


def _wide(one: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Returns the corrected bounds of a number of a slice, None where it has none."""
    pair = one["corrected"].get(name)
    return None if pair is None else {"low": pair[0], "high": pair[1]}


def _worst(split: str, content: Sequence[Mapping[str, Any]], name: str, whole: float | None) -> str:
    """Returns a sentence on the worst slice, and whether it is worse beyond chance."""
    lower = lower_is_better(name)
    having = [one for one in content if name in one["numbers"]]
    # one without bounds, of a few rows, says little
    having = [one for one in having if _wide(one, name)] or having
    finite = [one for one in having if number(one["numbers"][name]["value"]) < float("inf")]
    if not finite:
        return f"{split}: no slice has a finite {name}."
    sign = -1 if lower else 1
    worst = min(finite, key=lambda one: sign * number(one["numbers"][name]["value"]))
    value, wide = worst["numbers"][name]["value"], _wide(worst, name)
    text = (
        f"{split}: the worst slice is {worst['slice']} ({facts.number_text(worst['rows'])} rows),"
        f" {name} {facts.number_text(value)}"
    )
    if wide is None:
        return f"{text}, without a bound."
    text += f", {bounds_text(wide)} after looking at {len(content)} slices"
    if whole is None:
        return f"{text}."
    apart = number(wide["low"]) > whole if lower else number(wide["high"]) < whole
    told = "the bound leaves out" if apart else "the bound holds"
    verdict = "it is worse" if apart else "it may be chance"
    return f"{text}: {told} the {facts.number_text(whole)} of all rows, so {verdict}."
