"""ROC, precision-recall and reliability curves of a run as charts of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft.reports import charts, facts
from jaxsft.reports.charts import SIZE, Chart, Line
from jaxsft.reports.report_tables import ReportSection, ReportTable, Scale, plain, shape_of

TOLD = 40  # points of a line that tell their values
Points = tuple[str, Sequence[float], Sequence[float], str]  # name, x, y, style
UNIT: Scale = (0.0, 1.0)


def read_curves(path: Path) -> dict[str, Any]:
    """Returns the content of `figures/curves_<split>.json`. Raises DataError for anything else."""
    found = facts.read(path.parent.parent, f"figures/{path.name}")
    with shape_of(path):
        for kind, axes in (("roc", ("fpr", "tpr")), ("precision_recall", ("recall", "precision"))):
            for curve in found[kind]:
                _numbers(curve, axes)
                str(curve["label"]), float(curve["area"])
        _numbers(found["reliability"], ("confidence", "accuracy", "rows"))
        float(found["reliability"]["ece"]), int(found["rows"])
    return found


def _numbers(curve: Mapping[str, Any], axes: Sequence[str]) -> None:
    columns = [np.array(curve[axis], float) for axis in axes]
    if any(x.ndim != 1 or len(x) != len(columns[0]) for x in columns):
        raise ValueError(f"{' and '.join(axes)} are no columns of one length")


def paths_of(run_dir: Path) -> dict[str, Path]:
    """Returns the files of curves by split, test first."""
    found = {
        path.stem.removeprefix("curves_"): path
        for path in sorted((run_dir / "figures").glob("curves_*.json"))
    }
    return {split: found[split] for split in facts.by_split([*found])}


def scores_section(run_dir: Path) -> ReportSection | None:
    """Returns the charts of each split, with their areas; None where the run has none."""
    drawn, told, tables = [], [], []
    for split, path in paths_of(run_dir).items():
        content = read_curves(path)
        drawn += charts_of(split, content)
        told.append(sentence(split, content))
        tables.append(_areas(split, content, bool(tables)))
    return ReportSection(told, [t for t in tables if t.rows], drawn) if drawn else None


def sentence(split: str, content: Mapping[str, Any]) -> str:
    """Returns what stands below the curves of a split: areas and calibration errors."""
    ece, mce = (content["reliability"].get(name) for name in ("ece", "mce"))
    what = (
        "of the most probable label"
        if content.get("of") == "one label"
        else "of each label of each row"
    )
    text = f"{split}, {facts.number_text(content['rows'])} rows"
    one = len(content["roc"]) == 1
    if one:
        roc, recall = content["roc"][0], content["precision_recall"][0]
        text += (
            f": area under the ROC curve {facts.number_text(roc['area'])}, average precision"
            f" {facts.number_text(recall['area'])} of {roc['label']}"
        )
    text += f"; ECE {facts.number_text(ece)}, largest gap of a bin {facts.number_text(mce)}"
    text += f", by the probability {what} in bins of equal width"
    left_out = content.get("labels_left_out") or 0
    return text + (f"; {left_out} labels have no curve here." if left_out else ".")


def _areas(split: str, content: Mapping[str, Any], folded: bool) -> ReportTable:
    pairs = zip(content["roc"], content["precision_recall"], strict=True)
    rows = [
        [*map(plain, (roc["label"], roc.get("positives"), roc["area"], recall["area"]))]
        for roc, recall in pairs
    ]
    heads = ["label", "rows", "area under ROC", "average precision"]
    return ReportTable(heads, rows, f"Areas on {split}", folded=folded)


def charts_of(split: str, content: Mapping[str, Any]) -> list[Chart]:
    """Returns the charts of a split: ROC, precision over recall, reliability."""
    named = lambda curve: f"{curve['label']} ({facts.number_text(curve['area'])})"
    roc: list[Points] = [("", (0, 1), (0, 1), "ideal")]
    roc += [(named(c), c["fpr"], c["tpr"], f"s{i % 8}") for i, c in enumerate(content["roc"])]
    recall: list[Points] = [
        (named(c), c["recall"], c["precision"], f"s{i % 8}")
        for i, c in enumerate(content["precision_recall"])
    ]
    bins = content["reliability"]
    tips = [
        f"{rows:,} rows: confidence {x:.3f}, right {y:.3f}"
        for rows, x, y in zip(bins["rows"], bins["confidence"], bins["accuracy"], strict=True)
    ]
    reliability: list[Points] = [
        ("", (0, 1), (0, 1), "ideal"),
        ("", bins["confidence"], bins["accuracy"], "dotted s0"),
    ]
    out = []
    if content["roc"]:
        out += [
            plane(f"ROC on {split}", roc, "share of others", "share of the label found"),
            plane(f"Precision and recall on {split}", recall, "recall", "precision"),
        ]
    note = f"ECE {facts.number_text(bins['ece'])}"
    out.append(
        plane(
            f"Reliability on {split}", reliability, "probability", f"share that is right; {note}",
            tips={1: tips},
        )
    )  # fmt: skip
    return out


def plane(
    title: str,
    found: Sequence[Points],
    x_label: str,
    note: str = "",
    x_range: Scale = UNIT,
    y_range: Scale = UNIT,
    tips: Mapping[int, Sequence[str]] | None = None,
) -> Chart:
    """Returns a chart of lines over any number.

    Args:
      note: what the vertical axis is.
      tips: what the points of a line tell, by the number of the line; else their two numbers.
    """
    x_marks = charts.ticks(*x_range, 6)
    y_marks = charts.ticks(*y_range, 6)
    first, last, low, high = x_marks[0], x_marks[-1], y_marks[0], y_marks[-1]
    across = lambda x: round(100 * (x - first) / (last - first), 2)
    down = lambda y: round(100 * (1 - (y - low) / (high - low)), 2)
    lines = [
        _line(name, x, y, style, across, down, (tips or {}).get(i))
        for i, (name, x, y, style) in enumerate(found)
    ]
    return Chart(
        title,
        lines,
        [(across(x), f"{x:.4g}") for x in x_marks],
        [(down(y), f"{y:.4g}") for y in y_marks],
        note=note,
        x_label=x_label,
    )


def around(values: Sequence[float]) -> Scale:
    """Returns the ends of an axis that has room for all of some numbers."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * 0.04
    return low - room if low - room > 0 or low < 0 else 0.0, high + room


def _line(
    name: str,
    xs: Sequence[float],
    ys: Sequence[float],
    style: str,
    across: Any,
    down: Any,
    tips: Sequence[str] | None,
) -> Line:
    places = [
        (across(x), down(y), i)
        for i, (x, y) in enumerate(zip(xs, ys, strict=True))
        if math.isfinite(x) and math.isfinite(y)
    ]
    at = lambda place: f"{place[0] * SIZE / 100:.1f} {place[1] * SIZE / 100:.1f}"
    path = "".join(f"{'L' if n else 'M'}{at(place)}" for n, place in enumerate(places))
    dots = "".join(f"M{at(place)}h0" for place in places) if "dotted" in style else ""
    count = 0 if style == "ideal" else min(len(places), TOLD)
    some = np.unique(np.linspace(0, len(places) - 1, count).round().astype(int)) if count else []
    told = lambda i: tips[i] if tips else f"{name}: {xs[i]:.3g} → {ys[i]:.3g}".removeprefix(": ")
    points = [(places[n][0], places[n][1], told(places[n][2])) for n in some]
    return Line(name, path, dots, style, points=points)
