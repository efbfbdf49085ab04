"""Scores of tagged words on the host, by class or by chunk, and of trees.

Every gold word counts, predicted or not.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jaxsft.data import schemes

AVERAGES = ("micro", "macro", "weighted")


@dataclasses.dataclass
class Counts:
    """Counts by class: gold items, predicted items, and items predicted rightly."""

    gold: Counter[str] = dataclasses.field(default_factory=Counter)
    predicted: Counter[str] = dataclasses.field(default_factory=Counter)
    hit: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(
        self, gold: Iterable[Any], predicted: Iterable[Any], name: Any = lambda item: item
    ) -> None:
        """Counts the items of one text; a prediction is right where it equals a gold item.

        `name` gives the class of an item.
        """
        gold, predicted = Counter(gold), Counter(predicted)
        for counter, items in (
            (self.gold, gold),
            (self.predicted, predicted),
            (self.hit, gold & predicted),
        ):
            for item, count in items.items():
                counter[name(item)] += count

    @property
    def names(self) -> list[str]:
        return sorted(self.gold.keys() | self.predicted.keys())

    def scores(self) -> dict[str, float]:
        """Computes precision, recall and F1: micro, macro and weighted by support.

        Micro is over all items together, macro the mean of the classes that occur; 0/0 is
        0.
        """
        lines, support = (
            [self._of([name]) for name in self.names],
            [self.gold[name] for name in self.names],
        )
        out = {}
        for i, score in enumerate(("precision", "recall", "f1")):
            values = [line[i] for line in lines]
            out[f"{score}_micro"] = self._of(self.names)[i]
            out[f"{score}_macro"] = sum(values) / len(values) if values else 0.0
            total = sum(v * n for v, n in zip(values, support, strict=True))
            out[f"{score}_weighted"] = total / sum(support) if sum(support) else 0.0
        return out

    def _of(self, names: Sequence[str]) -> tuple[float, float, float]:
        gold, predicted, hit = (
            sum(counter[name] for name in names)
            for counter in (self.gold, self.predicted, self.hit)
        )
        precision, recall = hit / predicted if predicted else 0.0, hit / gold if gold else 0.0
        return precision, recall, 2 * hit / (gold + predicted) if gold + predicted else 0.0

    def table(self, what: str) -> tuple[list[str], list[list[Any]]]:
        """Returns the column names and a row for each class, the most frequent first."""
        names = sorted(self.names, key=lambda name: (-self.gold[name], name))
        lines = [
            [name or "(none)", self.gold[name], self.predicted[name], *self._of([name])]
            for name in names
        ]
        return [what, "support", "predicted", "precision", "recall", "f1"], lines


def of_classes(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str] | None]) -> Counts:
    """Counts words by class; None is a text of which nothing was predicted."""
    counts = Counts()
    for true, guess in zip(gold, predicted, strict=True):
        counts.add(enumerate(true), enumerate(guess or ()), name=lambda item: item[1])
    return counts


def of_chunks(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str] | None], scheme: str
) -> Counts:
    """Counts chunks by type as strict seqeval does: beginning, end and type must be right."""
    counts = Counts()
    for true, guess in zip(gold, predicted, strict=True):
        counts.add(
            schemes.strict(true, scheme),
            schemes.strict(guess or (), scheme),
            name=lambda span: span[2],
        )
    return counts


def accuracy(
    gold: Sequence[Sequence[Any]],
    predicted: Sequence[Sequence[Any] | None],
    keep: Sequence[Sequence[bool]] | None = None,
) -> float:
    """Computes the share of right words; `keep` says which words count. NaN where none does."""
    right = total = 0
    for i, (true, guess) in enumerate(zip(gold, predicted, strict=True)):
        for j, item in enumerate(true):
            if keep is None or keep[i][j]:
                total += 1
                right += guess is not None and guess[j] == item
    return right / total if total else math.nan
