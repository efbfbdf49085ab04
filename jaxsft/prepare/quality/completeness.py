"""Completeness: missing values.

One pass; memory grows with the columns, and with the ways in which rows lack some of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.prepare.quality.text_measures import Fields

KINDS = ("null", "empty", "nan")


def missing(value: Any) -> str:
    """Returns how a cell is missing: null, empty or nan; "" for one that holds something.

    Empty is white space, or an empty list or object.
    """
    if value is None:
        return "null"
    if isinstance(value, str):
        return "" if value.strip() else "empty"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ""
    return "empty" if isinstance(value, list | dict) and not value else ""


@dataclasses.dataclass
class Completeness:
    """The counts of one split."""

    rows: int = 0
    without_text: int = 0
    without_label: int = 0
    # by column: cells that are there
    present: Counter[str] = dataclasses.field(default_factory=Counter)
    # by column and kind: cells that are there and hold nothing
    empty: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    # rows by the columns that hold something
    filled: Counter[tuple[str, ...]] = dataclasses.field(default_factory=Counter)

    def add(self, row: Row, fields: Fields, text: str, labels: tuple[str, ...]) -> None:
        self.rows += 1
        filled = []
        for name, value in row.fields.items():
            self.present[name] += 1
            if kind := missing(value):
                self.empty.setdefault(name, Counter())[kind] += 1
            else:
                filled.append(name)
        self.filled[tuple(filled)] += 1
        self.without_text += not text.strip()
        self.without_label += fields.labelled and not labels

    def by_column(self) -> dict[str, dict[str, int]]:
        """Counts for each column how many cells are absent, null, empty or not a number.

        Absent: the row has no such column.
        """
        out = {}
        for name, present in self.present.items():
            found = self.empty.get(name, Counter())
            counts = {"absent": self.rows - present, **{kind: found[kind] for kind in KINDS}}
            out[name] = {**counts, "missing": sum(counts.values())}
        return out

    def numbers(self, fields: Fields) -> dict[str, Any]:
        lost = sum(column["missing"] for column in self.by_column().values())
        complete = sum(
            count for names, count in self.filled.items() if set(names) >= set(self.present)
        )
        out = {
            "rows": self.rows,
            "missing_cells": lost / max(self.rows * len(self.present), 1),
            "complete_rows": complete / max(self.rows, 1),
            "rows_without_text": self.without_text,
        }
        return out | ({"rows_without_label": self.without_label} if fields.labelled else {})
