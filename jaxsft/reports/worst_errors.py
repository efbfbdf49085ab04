"""The worst errors of a run: wrong with the highest probability, far off, or of a high loss."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.reports import facts, samples
from jaxsft.reports.report_tables import ReportSection, ReportTable, TableCell, plain
from jaxsft.rundir import number

MOST = 20
WIDTH = 240  # characters of a text
Line = Mapping[str, Any]


def errors_section(run_dir: Path) -> ReportSection | None:
    """Returns the worst rows of each split; None where no prediction says how bad it is."""
    if not any((run_dir / "predictions").glob("*.jsonl")):
        return None
    tables = []
    for split, rows in facts.predictions(run_dir):
        kept = [row for row in rows if "dropped" not in row]
        for what, badness in RANKINGS.items():
            found = [(worth, row) for row in kept if (worth := badness(row)) is not None]
            if found:
                tables.append(_table(split, what, found, bool(tables)))
                break
    return ReportSection(tables=tables) if tables else None


def _probability(row: Line) -> float | None:
    """Returns the probability of a wrong answer."""
    value = row.get("probability")
    if row.get("correct") is not False or isinstance(value, bool):
        return None
    if isinstance(value, Mapping):  # of label sets: the surest label that is wrong either way
        gold = set(map(str, row.get("labels") or ()))
        sure = [1 - number(p) if label in gold else number(p) for label, p in value.items()]
        return max(sure, default=None)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _distance(row: Line) -> float | None:
    """Returns how far a predicted number is from the right one; the largest of several."""
    gold, guess = row.get("label"), row.get("prediction")
    if not isinstance(gold, Mapping):
        gold, guess = {"": gold}, {"": guess}
    pairs = [(value, (guess or {}).get(name)) for name, value in gold.items()]
    numeric = [
        abs(a - b)
        for a, b in pairs
        if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    ]
    return max((x for x in numeric if math.isfinite(x)), default=None)


def _loss(row: Line) -> float | None:
    """Returns the loss per token of a text."""
    tokens = row.get("tokens")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not tokens or "nll" not in row:
        return None
    found = number(row["nll"]) / tokens
    return found if math.isfinite(found) else None


RANKINGS: dict[str, Callable[[Line], float | None]] = {
    "probability of the wrong answer": _probability,
    "distance from the right number": _distance,
    "loss per token": _loss,
}


def _table(split: str, what: str, found: Sequence[tuple[float, Line]], folded: bool) -> ReportTable:
    worst = heapq.nlargest(MOST, found, key=lambda pair: pair[0])
    rows = []
    for worth, row in worst:
        one = samples.sample(row)
        text = " ⏎ ".join(str(value) for _, value in one.texts)
        rows.append(
            [
                plain(row.get("row")),
                TableCell(facts.shorten(text, WIDTH)),
                TableCell(_short(one.gold)),
                TableCell(_short(one.answer)),
                plain(worth),
                TableCell(one.where),
            ]
        )
    heads = ["row", "text", "true", "predicted", what, "place"]
    note = f"{len(rows)} of {facts.number_text(len(found))}, the highest first."
    return ReportTable(heads, rows, split, note, folded=folded)


def _short(told: tuple[str, Any] | None) -> str:
    return "–" if told is None else facts.shorten(str(told[1]), WIDTH // 2)
