"""The numbers of a run with their bounds, split by split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.config import metric_names
from jaxsft.reports import facts, scores
from jaxsft.reports.report_tables import (
    ReportSection,
    ReportTable,
    TableCell,
    bounded,
    cells_of,
    ends_of,
    intervals,
    plain,
    scale_of,
)
from jaxsft.rundir import number

WIDER = 1.15  # naive errors that are smaller by this factor are worth a sentence


def bounds_section(run_dir: Path) -> ReportSection | None:
    """Returns the tables of the splits; None where no number of the run has bounds."""
    found = intervals(run_dir)
    if not any(map(bounded, found.values())):
        return None
    splits = facts.by_split([split for split, _ in found])
    first = scores.of_run(run_dir)
    tables = [
        _of_split(split, {m: e for (s, m), e in found.items() if s == split}, first, i > 0)
        for i, split in enumerate(splits)
    ]
    return ReportSection(_told(found), tables)


def _told(found: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    levels = sorted({entry["level"] for entry in found.values() if entry.get("level")})
    level = " and ".join(f"{level:.4g}" for level in levels)
    lines = [
        f"Bounds{f' (level {level})' if level else ''} say how far a number would vary with other"
        " rows of the same kind, not with other seeds."
    ]
    pairs = [
        (entry["se"], entry["naive_se"])
        for entry in found.values()
        if entry.get("clusters") is not None and entry.get("naive_se") and entry.get("se")
    ]
    if pairs:
        ratio = sorted(se / naive for se, naive in pairs)[len(pairs) // 2]
        lines.append(
            "Rows come in clusters, and whole clusters were drawn. The error that takes rows as"
            f" independent stands beside it; the one of clusters is {ratio:.3g} times as large in"
            " the median"
            + (": the naive one is too small." if ratio > WIDER else ": they hardly differ here.")
        )
    return lines


def _of_split(
    split: str, entries: Mapping[str, Mapping[str, Any]], first: str, folded: bool
) -> ReportTable:
    twice = metric_names.repeated({(split, m): e["value"] for m, e in entries.items()}, [*entries])
    names = [
        name
        for name in metric_names.ordered(entries, first)
        if entries[name].get("method") != "count" and name not in twice
    ]
    clustered = any(entries[name].get("clusters") is not None for name in names)
    heads = ["metric", "value", "bounds", "standard error"]
    heads += ["error without clusters"] if clustered else []
    heads += ["rows", *(["clusters"] if clustered else []), "method"]
    share = {name: _is_share(entries[name]) for name in names}
    shared = scale_of([entries[name] for name in names if share[name]])
    rows = []
    for name in names:
        entry = entries[name]
        value, bounds = cells_of(entry, shared if share[name] else scale_of([entry]))
        line = [TableCell(name), value, bounds, plain(entry.get("se"))]
        line += [plain(entry.get("naive_se"))] if clustered else []
        line += [plain(entry.get("n")), *([plain(entry.get("clusters"))] if clustered else [])]
        rows.append([*line, _method(entry)])
    note = f"Equal to accuracy: {', '.join(twice)}." if twice else ""
    own = "" if all(share.values()) else "What is no share has a scale of its own."
    return ReportTable(heads, rows, split, note, own, ends_of(shared), folded)


def _is_share(entry: Mapping[str, Any]) -> bool:
    """Returns whether a number and its bounds lie between 0 and 1, and it has bounds at all."""
    ends = [entry[name] for name in ("value", "low", "high")] if bounded(entry) else [-1]
    return all(0 <= number(end) <= 1 for end in ends)


def _method(entry: Mapping[str, Any]) -> TableCell:
    """Returns the method, or why there is no bound."""
    method = entry.get("method")
    if method in (None, "none"):
        return TableCell(f"no bound: {entry.get('reason', 'none was computed')}")
    told = f"{method}: {entry['reason']}" if entry.get("reason") else str(method)
    return TableCell(told, tip=str(entry.get("signature", "")))
