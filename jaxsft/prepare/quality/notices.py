"""Rows that a measure found: all go to a file, the first of each kind onto the card."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from jaxsft.data.formats import Row

WIDTH = 300  # characters of a text


@dataclasses.dataclass
class CardFindings:
    """The findings of a card.

    `told` is given every finding; `listed` of each kind (family/finding) are kept.
    """

    told: Callable[[dict[str, Any]], None]
    listed: int
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    first: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)

    def add(self, name: str, split: str, row: Row | str, text: str, **more: Any) -> None:
        where = row if isinstance(row, str) else row.where
        found = {
            "finding": name,
            "split": split,
            "row": where,
            **more,
            "text": text if len(text) <= WIDTH else text[: WIDTH - 1] + "…",
        }
        self.counts[name] += 1
        kept = self.first.setdefault(name, [])
        if len(kept) < self.listed:
            kept.append(found)
        self.told(found)

    def as_json(self) -> dict[str, Any]:
        return {
            name: {"count": count, "rows": self.first[name]}
            for name, count in sorted(self.counts.items())
        }
