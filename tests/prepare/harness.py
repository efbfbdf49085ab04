"""Run one stage over lists of rows, as the engine does, and hold it to its account: rows in + added
= rows out + dropped.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data.formats import Row
from jaxsft.prepare.stage import Context, Report, Stage
from jaxsft.prepare.stages import build


def make(name: str, context: Context | None = None, /, **options: Any) -> Stage:
    """The stage, with its options typed and checked as those of a config."""
    return build(name, options, context or Context())


def rows_of(*contents: Any, file: str = "rows.jsonl", **more: Any) -> list[Row]:
    """Rows of texts, or of whole fields."""
    return [
        Row(dict(c) if isinstance(c, Mapping) else {"text": c, **more}, file, line)
        for line, c in enumerate(contents, start=1)
    ]


def run(
    stage: Stage, sets: Mapping[str, Sequence[Row]]
) -> tuple[dict[str, list[Row]], dict[str, Report]]:
    """(rows by split, report by split)."""
    before = copy.deepcopy({split: list(rows) for split, rows in sets.items()})
    reports = {split: Report() for split in sets}
    if stage.on == "all":
        out = {split: list(rows) for split, rows in stage.sets(sets, reports).items()}
    else:
        state = (
            json.loads(json.dumps(stage.fit(sets["train"], reports["train"])))
            if stage.learns
            else {}
        )
        out = {
            split: (
                list(rows)
                if stage.on == "train" and split != "train"
                else list(stage.rows(split, rows, state, reports[split]))
            )
            for split, rows in sets.items()
        }
    assert {split: list(rows) for split, rows in sets.items()} == before, (
        "a row was changed in place"
    )
    came = sum(map(len, sets.values())) + sum(r.added.total() for r in reports.values())
    went = sum(map(len, out.values())) + sum(len(r.dropped) for r in reports.values())
    assert came == went, f"{came} rows came in or were added, {went} went out or were dropped"
    for report in reports.values():
        json.dumps(report.facts)
    return out, reports


def one(stage: Stage, *contents: Any, **more: Any) -> tuple[list[Row], Report]:
    """The rows and the report of a single split, `train`."""
    out, reports = run(stage, {"train": rows_of(*contents, **more)})
    return out["train"], reports["train"]


def texts(rows: Sequence[Row], name: str = "text") -> list[Any]:
    return [row.fields[name] for row in rows]


def lengths(texts: Sequence[str]) -> np.ndarray:
    """A score that anyone can check: the number of characters."""
    return np.array([len(text) for text in texts], float)
