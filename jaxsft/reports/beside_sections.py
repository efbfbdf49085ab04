"""Sections from files that other commands leave in a run: perturbations, explanations and
comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxsft.config import metric_names
from jaxsft.errors import JaxsftError
from jaxsft.reports import facts, score_charts
from jaxsft.reports.charts import COLOURS, Chart
from jaxsft.reports.report_tables import (
    ReportSection,
    ReportTable,
    TableCell,
    cells_of,
    ends_of,
    plain,
    scale_around_zero,
    scale_of,
    shape_of,
)
from jaxsft.rundir import number

LISTED = 50  # pages
NAMES = ("method", "layer", "head", "number", "name")  # of a number of a summary


# --- robustness
# --------------------------------------------------------------------------------------------------
def robustness_section(run_dir: Path) -> ReportSection | None:
    """Returns numbers over the strength of perturbations; None where none were measured."""
    paths = [run_dir / "figures" / "robustness.json"]
    paths += sorted((run_dir / "robustness").glob("*/figures/robustness.json"))
    paths += [run_dir / "robustness" / "figures" / "robustness.json"]
    charts, tables, notices = [], [], []
    for path in filter(Path.is_file, paths):
        try:
            content = facts.read(path.parent, path.name)
            with shape_of(path):
                where = path.parent.parent.name if path.parent.parent != run_dir else ""
                drawn, made = _perturbed(content, where)
            charts, tables = charts + drawn, tables + made
        except JaxsftError as error:  # the others are shown
            notices.append(str(error))
    if not (charts or tables or notices):
        return None
    told = [
        "What becomes of a number when the rows are perturbed; strength 0 is the rows as they are."
    ]
    return ReportSection(told, tables, charts, notices)


def _perturbed(content: Mapping[str, Any], where: str) -> tuple[list[Chart], list[ReportTable]]:
    """Returns a chart and a table for each model and number."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for curve in content["curves"]:
        groups.setdefault((str(curve["model"]), str(curve["number"])), []).append(curve)
    charts, tables = [], []
    for (model, name), curves in groups.items():
        points = [point for curve in curves for point in curve["points"]]
        of = scale_of(points)
        title = f"{name} of {model}{f' on {where}' if where else ''}"
        lines = [
            (
                str(curve["perturbation"]),
                [number(p["strength"]) for p in curve["points"]],
                [number(p["value"]) for p in curve["points"]],
                f"dotted s{i}",
            )
            for i, curve in enumerate(curves[:COLOURS])
        ]
        far = max(0.1, *(x for _, xs, _, _ in lines for x in xs))
        charts.append(score_charts.plane(title, lines, "strength", "", (0.0, far), of))
        rows = [
            [
                TableCell(str(curve["perturbation"])),
                plain(number(p["strength"])),
                *cells_of(p, of),
            ]
            for curve in curves
            for p in curve["points"]
        ]
        heads = ["perturbation", "strength", name, "bounds"]
        tables.append(ReportTable(heads, rows, title, ends=ends_of(of), folded=True))
    return charts, tables


# --- explanations
# --------------------------------------------------------------------------------------------------
def explanations_section(run_dir: Path) -> ReportSection | None:
    """Returns the summaries of explanations, which are pages of their own; None without any."""
    folder = run_dir / "explanations"
    found = sorted(folder.rglob("*")) if folder.is_dir() else []
    files = [path for path in found if path.is_file()]
    if not files:
        return None
    tables, notices = [], []
    for path in (path for path in files if path.name == "summary.json"):
        try:
            content = facts.read(path.parent, path.name)
            with shape_of(path):
                tables.append(_summary(content, path.parent.name))
        except JaxsftError as error:
            notices.append(str(error))
    pages = [str(path.relative_to(run_dir)) for path in files if path.suffix == ".html"]
    told = ["Which tokens the scores come from."]
    if pages:
        told.append(f"The texts are in pages of their own: {', '.join(pages[:LISTED])}.")
    return ReportSection(told, tables, notices=notices)


def _summary(content: Any, title: str) -> ReportTable:
    """Returns the numbers of a summary, with their bounds where they have some."""
    entries = [*_entries(content)]
    if not entries:
        raise ValueError("it holds no number")
    rows = [[TableCell(name), *cells_of(entry, scale_of([entry]))] for name, entry in entries]
    return ReportTable(
        ["number", "value", "bounds"], rows, title, of_bars="Each has its own scale."
    )


def _entries(content: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the numbers of a tree of mappings and lists by their path."""
    if isinstance(content, Mapping) and isinstance(content.get("value"), int | float):
        told = [x for key, x in content.items() if isinstance(x, str) and key in NAMES]
        yield " ".join(told) or name, content
        if isinstance(content.get("difference"), int | float):
            ends = {end: content.get(f"difference_{end}") for end in ("low", "high")}
            yield " ".join([*told, "over random"]), {"value": content["difference"], **ends}
    elif isinstance(content, Mapping | list):
        listed = content.items() if isinstance(content, Mapping) else enumerate(content, start=1)
        for key, part in listed:
            yield from _entries(part, f"{name} {key}".strip())
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield name, {"value": content}


# --- comparisons
# --------------------------------------------------------------------------------------------------
def against_section(run_dir: Path) -> ReportSection | None:
    """Returns the comparison with other runs that stands in the run, or beside it and names it."""
    paths = [run_dir / "compare.json", *sorted(run_dir.glob("compare*/compare.json"))]
    paths += [p for p in [run_dir.resolve().parent / "compare.json"] if _names(p, run_dir)]
    tables, told, notices = [], [], []
    for path in filter(Path.is_file, paths):
        try:
            content = facts.read(path.parent, path.name)
            with shape_of(path):
                tables.append(_compared(content))
                told.append(_told(content))
                told += [str(note) for note in content.get("notes", ())]
        except JaxsftError as error:
            notices.append(str(error))
    if not (tables or notices):
        return None
    return ReportSection([*dict.fromkeys(told)], tables, notices=notices)


def _names(path: Path, run_dir: Path) -> bool:
    """Returns whether a comparison has this run in one of its arms."""
    try:
        arms = facts.read(path.parent, path.name)["arms"]
        runs = {Path(run).name for arm in arms for run in arm["runs"]}
        return run_dir.resolve().name in runs
    except facts.DAMAGE:  # not of ours
        return False


def _told(content: Mapping[str, Any]) -> str:
    clusters = content.get("clusters")
    return (
        f"The same {facts.number_text(content['rows'])} rows"
        + (f" in {facts.number_text(clusters)} clusters" if clusters is not None else "")
        + f"; bounds of level {content['level']:.4g}. A difference is the second run less the"
        " first; its verdict is by the p of all pairs together (Holm)."
    )


def _compared(content: Mapping[str, Any]) -> ReportTable:
    pairs = content["comparisons"]
    values = {(p["a"], p["number"]): p["value_a"] for p in pairs}
    values |= {(p["b"], p["number"]): p["value_b"] for p in pairs}
    twice = metric_names.repeated(values, list(dict.fromkeys(p["number"] for p in pairs)))
    rows = []
    for pair in (p for p in pairs if p["number"] not in twice):
        entry = {**pair, "value": pair["difference"]}
        difference, bounds = cells_of(entry, scale_around_zero(entry), 0.0)
        rows.append(
            [
                TableCell(str(pair["number"])),
                TableCell(f"{pair['a']} → {pair['b']}"),
                *(plain(pair[key]) for key in ("value_a", "value_b")),
                difference,
                bounds,
                *(plain(pair.get(key)) for key in ("p", "p_holm", "p_bh")),
                TableCell(str(pair["verdict"])),
                TableCell(str(pair["test"])),
            ]
        )
    heads = [
        "number", "runs", "first", "second", "difference", "bounds", "p", "Holm", "BH", "verdict",
        "test",
    ]  # fmt: skip
    return ReportTable(heads, rows, of_bars="The line across a bar stands at no difference.")
