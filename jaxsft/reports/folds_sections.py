"""Sections of a cross-validation: its numbers, its folds, its learning curve, and the gaps between
the rows of training and the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config import metric_names
from jaxsft.reports import facts, score_charts
from jaxsft.reports.charts import Chart
from jaxsft.reports.report_tables import (
    NOWHERE,
    ReportSection,
    ReportTable,
    TableCell,
    bounded,
    cells_of,
    ends_of,
    plain,
    scale_around_zero,
    scale_of,
    shape_of,
)
from jaxsft.rundir import number


def folds_section(run_dir: Path) -> ReportSection | None:
    """Returns what `figures/crossval.json` says; None where the run is no cross-validation."""
    path = run_dir / "figures" / "crossval.json"
    if not path.is_file():
        return None
    content = facts.read(run_dir, "figures/crossval.json")
    with shape_of(path):
        metric, repeats = str(content["metric"]), content["settings"]["repeats"]
        told = [
            f"{facts.number_text(content['settings']['folds'])} folds of"
            f" {facts.number_text(content['rows'])} rows, drawn"
            f" {'once' if repeats == 1 else f'{facts.number_text(repeats)} times'}; each row is"
            " scored by a model that did not see it."
        ]
        told += [str(note) for note in content.get("notes", ())]
        tables = [
            _numbers("All rows held out", content["pooled"], metric),
            _numbers("Mean over the folds", content["mean"], metric),
            _folds(content["folds"], metric),
        ]
        curve = _learning_curve(content.get("learning_curve"), metric)
    return ReportSection(told, tables, [curve] if curve else [])


def _numbers(title: str, entries: Mapping[str, Mapping[str, Any]], metric: str) -> ReportTable:
    rows = []
    twice = metric_names.repeated({("", n): e["value"] for n, e in entries.items()}, [*entries])
    entries = {name: entry for name, entry in entries.items() if name not in twice}
    kept = [n for n in metric_names.ordered(entries, metric) if entries[n].get("method") != "count"]
    for name in kept:
        entry = entries[name]
        value, bounds = cells_of(entry, scale_of([entry]))
        spread = [plain(entry.get(key)) for key in ("se", "naive_se", "sd")]
        rows.append([TableCell(name), value, bounds, *spread])
    heads = ["number", "value", "bounds", "standard error", "naive error", "spread of folds"]
    unused = [i for i in range(3, 6) if all(row[i].text == NOWHERE for row in rows)]
    keep = [i for i in range(6) if i not in unused]
    rows = [[row[i] for i in keep] for row in rows]
    return ReportTable([heads[i] for i in keep], rows, title, of_bars="Each has its own scale.")


def _folds(folds: Sequence[Mapping[str, Any]], metric: str) -> ReportTable:
    entries = [one["numbers"][metric] for one in folds]
    of = scale_of(entries)
    rows = []
    for one, entry in zip(folds, entries, strict=True):
        value, bounds = cells_of(entry, of)
        facts_of = [one.get(key) for key in ("train_rows", "held_out_rows", "steps")]
        line = [
            TableCell(f"repeat {one['repeat']} fold {one['fold']}"), *map(plain, facts_of),
            value, bounds, plain(one["train"].get(metric)), plain(one.get("choice")),
        ]  # fmt: skip
        rows.append(line)
    heads = ["fold", "rows trained", "held out", "steps", metric, "bounds", "on its own rows"]
    if not any("choice" in one for one in folds):
        rows = [row[:-1] for row in rows]
    else:
        heads.append("choice")
    return ReportTable(heads, rows, "Folds", ends=ends_of(of))


def _learning_curve(content: Mapping[str, Any] | None, metric: str) -> Chart | None:
    """Returns the chart of a number over the rows of training, a line for each fold."""
    if not content:
        return None
    by_fold: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for point in content["points"]:
        place = (int(point["repeat"]), int(point["fold"]))
        pair = (number(point["rows"]), number(point["numbers"][metric]))
        by_fold.setdefault(place, []).append(pair)
    lines = []
    for i, ((repeat, fold), points) in enumerate([*by_fold.items()][:8]):
        xs, ys = zip(*sorted(points), strict=True)
        lines.append((f"repeat {repeat} fold {fold}", xs, ys, f"dotted s{i}"))
    if not lines:
        return None
    every = [x for _, xs, _, _ in lines for x in xs]
    of = scale_of([{"value": y} for _, _, ys, _ in lines for y in ys])
    title = f"Learning curve of {metric}"
    ends = (min(every), max(max(every), min(every) + 1))
    return score_charts.plane(title, lines, "rows of training", metric, ends, of)


def gaps_section(run_dir: Path) -> ReportSection | None:
    """Returns how far numbers on other rows are from those on the rows of training."""
    path = run_dir / "figures" / "gaps.json"
    if not path.is_file():
        return None
    content = facts.read(run_dir, "figures/gaps.json")
    with shape_of(path):
        sets = content["sets"]
        found = [{**entry, "value": entry["gap"]} for entry in content["gaps"]]
        values = {(entry["to"], entry["number"]): entry["gap"] for entry in found}
        twice = metric_names.repeated(values, [entry["number"] for entry in found])
        rows = []
        for entry in (one for one in found if one["number"] not in twice):
            # each number has units of its own; the line stands at no gap
            gap, bounds = cells_of(entry, scale_around_zero(entry), 0.0)
            here, there = (
                sets[entry[key]].get(entry["number"], {}).get("value") for key in ("from", "to")
            )
            worse = TableCell(_verdict(entry))
            names = [TableCell(str(entry["number"])), TableCell(str(entry["to"]))]
            rows.append([*names, plain(here), plain(there), gap, bounds, worse])
        reference = str(content["reference"])
    heads = ["number", "rows", f"on {reference}", "on these rows", "gap", "bounds", ""]
    told = [
        f"How far each number is from that on {reference}: a wide gap is what was learnt by rote."
    ]
    note = "The line across a bar stands at no gap."
    return ReportSection(told, [ReportTable(heads, rows, of_bars=note)])


def _verdict(entry: Mapping[str, Any]) -> str:
    """Returns whether a number is worse than on the rows of training, beyond chance or not."""
    if not entry["worse"]:
        return "not worse"
    if not bounded(entry):
        return "worse"
    apart = number(entry["low"]) > 0 or number(entry["high"]) < 0
    return "worse" if apart else "worse, may be chance"
