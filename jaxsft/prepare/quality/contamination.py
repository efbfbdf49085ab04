"""Contamination: rows of a benchmark (or of a held-out split) whose text is in the data.

Memory grows with the benchmark, not with the data: the n-grams of the benchmark are kept, and the
data streams by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxsft.data.formats import Row
from jaxsft.prepare.quality import text_measures

FEWEST, MOST = 8, 13  # words of an n-gram with ngram=auto


@dataclasses.dataclass(frozen=True)
class Hit:
    """A row of the data that shares a run of words with a benchmark's row: the first such run."""

    row: str
    benchmark_row: str
    words: str


@dataclasses.dataclass
class Index:
    """The runs of n words of a benchmark, compared exactly, case-folded and without punctuation.

    The rule of GPT-3 (Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C): a
    benchmark row is dirty where one of its n-grams of words stands in the training data. n is 13,
    the largest that they use; `auto` takes theirs: the 5 % quantile of the lengths of the
    benchmark's rows, between 8 and 13. Rows with fewer than n words cannot be judged, and are
    counted as short. N-grams do not cross the texts of a row.
    """

    name: str
    n: int
    rows: int = 0
    short: int = 0
    # rows of the benchmark that stand in the data
    found: set[str] = dataclasses.field(default_factory=set)
    concerned: int = 0  # rows of the data
    _words: dict[str, int] = dataclasses.field(default_factory=dict)
    _grams: dict[tuple[int, ...], int | list[int]] = dataclasses.field(default_factory=dict)
    _places: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def of(
        cls, name: str, rows: Iterable[Row], n: int | str, fields: text_measures.Fields | None
    ) -> Index:
        """Builds the index of rows.

        Without `fields`, and for rows that lack those columns, every text in a row counts.
        """
        kept = []
        for row in rows:
            known = fields is not None and any(column in row.fields for column in fields.text)
            parts = fields.parts(row) if known else text_measures.strings(row.fields)
            kept.append((row.where, [text_measures.words(part) for part in parts]))
        if n == "auto":
            totals = [sum(map(len, parts)) for _, parts in kept] or [MOST]
            n = int(np.clip(np.quantile(totals, 0.05), FEWEST, MOST))
        index = cls(name, int(n))
        for where, parts in kept:
            index._add(where, parts)
        return index

    def _add(self, where: str, parts: Sequence[Sequence[str]]) -> None:
        number = len(self._places)
        self._places.append(where)
        self.rows += 1
        self.short += all(len(part) < self.n for part in parts)
        for part in parts:
            ids = [self._words.setdefault(word, len(self._words)) for word in part]
            for at in range(len(ids) - self.n + 1):
                gram = tuple(ids[at : at + self.n])
                before = self._grams.setdefault(gram, number)
                if isinstance(before, list):
                    if before[-1] != number:
                        before.append(number)
                elif before != number:
                    self._grams[gram] = [before, number]

    def look(self, row: Row, parts: Sequence[Sequence[str]]) -> Hit | None:
        """Looks for the benchmark in a row of the data, given as the words of its texts."""
        hit = None
        for part in parts:
            if len(part) < self.n:
                continue
            ids = [self._words.get(word, -1) for word in part]
            last = -1  # the last word that the benchmark does not have: no run goes over it
            for end, word in enumerate(ids):
                if word < 0:
                    last = end
                if (
                    end - last < self.n
                    or (numbers := self._grams.get(tuple(ids[end - self.n + 1 : end + 1]))) is None
                ):
                    continue
                numbers = numbers if isinstance(numbers, list) else [numbers]
                self.found.update(self._places[number] for number in numbers)
                hit = hit or Hit(
                    row.where, self._places[numbers[0]], " ".join(part[end - self.n + 1 : end + 1])
                )
        self.concerned += hit is not None
        return hit

    def numbers(self) -> dict[str, float | int]:
        judged = self.rows - self.short
        return {
            "ngram": self.n,
            "benchmark_rows": self.rows,
            "short_rows": self.short,
            "contaminated_rows": len(self.found),
            "contaminated_share": len(self.found) / judged if judged else 0.0,
            "data_rows_concerned": self.concerned,
        }
