"""Heat maps with tables beside them, as a page without any network and as Markdown: what `jaxsft
transfer` and `jaxsft needle` show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft.reports import page
from jaxsft.reports.robustness_page import bounded, table
from jaxsft.rundir import write_text

DEEPEST = 70  # per cent of the colour, so that the text on it can be read


def write_page(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes the page and returns its path. Raises JaxsftError if it cannot be written."""
    return write_text(path, render(content))


def render(content: Mapping[str, Any]) -> str:
    """Returns the page as text; what comes from the data is escaped by Jinja."""
    return page.templates().get_template("heat.html.jinja").render(**content)


def markdown(content: Mapping[str, Any]) -> str:
    """Returns the same as Markdown; a cell of the diagonal is bold."""
    lines = [f"# {content['title']}", "", content["lede"], ""]
    for one in content["maps"]:
        lines += [f"## {one['title']}", "", one["note"], ""]
        rows = []
        for row in one["rows"]:
            told = [f"{c['text']} {c['bounds']}".rstrip() for c in row["cells"]]
            marks = ["**" if c["own"] else "" for c in row["cells"]]
            rows.append([row["name"], *(f"{m}{t}{m}" for m, t in zip(marks, told, strict=True))])
        lines += table([one["corner"], *one["columns"]], rows)
    for one in content["tables"]:
        lines += [f"## {one['title']}", "", one["note"], ""]
        lines += table(one["heads"], one["rows"])
    return "\n".join(lines)


def heat_map(
    title: str,
    note: str,
    corner: str,
    cells: Mapping[str, Mapping[str, Mapping[str, Any] | None]],
    ends: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Returns a heat map of numbers with bounds, by row and column (None: there is none).

    Args:
      corner: what rows and columns are.
      ends: the numbers that have no colour and the deepest one; None: the lowest and the highest.
    """
    values = [c["value"] for row in cells.values() for c in row.values() if c and "value" in c]
    low, high = ends or (min(values, default=0.0), max(values, default=1.0))
    columns = list(dict.fromkeys(name for row in cells.values() for name in row))
    one = lambda cell: _cell(cell, low, high)
    rows = [
        {"name": name, "cells": [one(row.get(column)) for column in columns]}
        for name, row in cells.items()
    ]
    scale = f"no colour: {low:.3g}, deepest: {high:.3g}"
    return {"title": title, "note": note, "corner": corner, "columns": columns, "rows": rows,
            "scale": scale}  # fmt: skip


def _cell(cell: Mapping[str, Any] | None, low: float, high: float) -> dict[str, Any]:
    if cell is None or "value" not in cell:
        return {"text": "–", "bounds": "", "strength": 0, "own": False}
    text, _, between = bounded(cell).partition(" ")
    share = (cell["value"] - low) / (high - low) if high > low else 0.0
    strength = round(DEEPEST * min(max(share, 0.0), 1.0))
    return {"text": text, "bounds": between, "strength": strength, "own": cell.get("own", False)}


# --- what is shown of each
# --------------------------------------------------------------------------------------------------
def of_transfer(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the page of transfer.json."""
    number, less = report["number"], report["lower_is_better"]
    how = " (less is better)" if less else ""
    lede = (
        f"{number}{how}; bounds of {report['level']:.0%} from {report['replicates']:,} replicates"
        f" (seed {report['seed']}). "
        + (
            "The sets hold the same sentences, which are drawn together."
            if report["paired"]
            else "The sets are taken as independent."
        )
    )
    note = "A row is a model, a column a set. The set of a model's own language is marked."
    scored = next(iter(report["cells"].values()))
    for name, count in report["rows"].items():
        if (n := scored[name]["n"]) < count:
            note += f" {name}: {n:,} of {count:,} rows, those that all models were scored on."
    maps = [heat_map(number, note, "model, set", report["cells"])]
    tables = []
    if gain := report["gain"]:
        rows = [[name, bounded(entry, "+")] for name, entry in gain["sets"].items()]
        rows.append(["mean", bounded(gain["mean"], "+")])
        tables.append({
            "title": "Gain of the own language",
            "note": "How much better the model of a language is on its set than the others are on"
            " average there, on the same rows; above 0: it is better.",
            "heads": ["set", "gain"],
            "rows": rows,
        })  # fmt: skip
    if report["gaps"]:
        tables.append({
            "title": "Gap between the sets",
            "note": "The bounds hold for all differences between sets together, so that the best"
            " and the worst set are no artefact of having looked at all.",
            "heads": ["model", "best", "worst", "best minus worst", "best minus mean"],
            "rows": [
                [model, e["best"], e["worst"], bounded(e["best_minus_worst"]),
                 bounded(e["best_minus_mean"])]
                for model, e in report["gaps"].items()
            ],
        })  # fmt: skip
    for model, found in report.get("consistency", {}).items():
        maps.append(_consistency(model, found))
    return {"kicker": "transfer", "title": "Transfer between languages", "lede": lede,
            "maps": maps, "tables": tables}  # fmt: skip


MEASURES = {
    "same": "The share of sentences with the same prediction in both",
    "overlap": "The mean share of names that the predictions have in common (Dice)",
    "difference": "The mean distance of the predicted numbers",
}


def _consistency(model: str, found: Mapping[str, Any]) -> dict[str, Any]:
    names = list(dict.fromkeys(e[side] for e in found["pairs"] for side in ("a", "b")))
    cells: dict[str, dict[str, Any]] = {a: dict.fromkeys(names) for a in names}
    chance = []
    for entry in found["pairs"]:
        cells[entry["a"]][entry["b"]] = cells[entry["b"]][entry["a"]] = entry
        if "by_chance" in entry:
            chance.append(entry["by_chance"])
    note = f"{MEASURES[found['measure']]}, of {found['sentences']:,} sentences."
    if chance:
        note += (
            " By chance, labels that are as frequent have"
            f" {min(chance):.3f} to {max(chance):.3f} in common."
        )
    return heat_map(f"{model}: the same sentence in two languages", note, "set, set", cells)


def of_needle(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the page of needle.json."""
    lede = (
        f"{report['trials']} needles in each cell; bounds of {report['level']:.0%} (Wilson)."
        " A length is that of the whole prompt in tokens; depth 0 is its beginning."
    )
    notes = {
        "exact": "The answer is the value of the needle and nothing else.",
        "contained": "The value of the needle stands in the answer.",
    }
    maps = []
    for name, note in notes.items():
        cells: dict[str, dict[str, Any]] = {}
        for cell in report["cells"]:
            cells.setdefault(f"{cell['depth']:g}", {})[str(cell["length"])] = cell[name]
        maps.append(heat_map(name, note, "depth, length", cells, (0.0, 1.0)))
    return {"kicker": "needle", "title": "A needle in a haystack", "lede": lede, "maps": maps,
            "tables": []}  # fmt: skip
