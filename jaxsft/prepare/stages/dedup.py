"""The stage `dedup`: of rows that say the same, or nearly, all but one go.

It is never the one of the test split that goes for one of the training split.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.compared import answer_of, texts_of
from jaxsft.prepare.neighbours import Neighbours, banding, normalise, recall
from jaxsft.prepare.stage import Report, RowSource, Stage, choice
from jaxsft.prepare.text_columns import add_columns, judge, text_in, unread

EVALUATION = ("test", "validation")
Place = tuple[str, int]  # a split, and the index of a row in it


@dataclasses.dataclass(frozen=True)
class Dedup(Stage):
    """Drops repeated rows, within a split and across splits: before training (repetition is
    memorised) and before trusting a test score (leaks).

    Exact: equal after normalisation (Unicode NFC, and what `ignore_*` says). Near: linked by a
    Jaccard similarity of word or character shingles of at least `threshold`; MinHash and banding
    find the candidates and every pair is verified exactly (Broder 1997; Leskovec, Rajaraman,
    Ullman, chapter 3; for training data: Lee et al. 2022, arXiv:2107.06499). Links chain: rows of
    one cluster may be less similar than the threshold, and the report shows the largest clusters.
    `recall` in the report is the probability that a pair just at the threshold is seen.

    Of a cluster one row stays. With keep=test it is the first row of the test split, else of the
    validation split, else of another: a duplicate of a test row leaves the training split, never
    the other way. The result depends on the rows and their order alone.
    """

    on: ClassVar[str] = "all"

    fields: list[str] = option(
        [],
        "the columns that are compared, together; empty: what a model is given of a row",
    )
    method: str = option("near", "near (exact ones too) | exact")
    threshold: float = option(0.8, "the Jaccard similarity from which rows are near duplicates")
    num_perm: int = option(
        128,
        "entries of a MinHash signature: more see more pairs at the threshold, and take more time"
        " and memory (4 bytes each)",
    )
    shingle: int = option(3, "words in a shingle")
    char_shingle: int = option(5, "characters in a shingle, where the unit is the character")
    unit: str = option(
        "auto",
        "word | char | auto (characters for texts in scripts without spaces, words for others)",
    )
    ignore_case: bool = option(True, "compare without regard to case")
    ignore_space: bool = option(True, "compare without regard to the amount of white space")
    ignore_punctuation: bool = option(
        False, "compare without punctuation and symbols: `2+2` and `2-2` are equal then"
    )
    within: bool = option(True, "compare the rows of a split with each other")
    across: bool = option(True, "compare the rows of different splits")
    keep: str = option(
        "test",
        "test (test before validation before the other splits) | first (the splits in their order)",
    )
    conflict: str = option(
        "error",
        "a cluster with different labels: error | keep (its first row stays, as ever) | drop (all"
        " of it, in every split)",
    )
    action: str = option(
        "drop",
        "drop | mark (all rows get the columns `duplicate_of`, where the kept row stands, and"
        " `marks`)",
    )
    replace: bool = option(
        False,
        "with action=mark, `duplicate_of` may take the place of a column that holds something",
    )

    def check(self) -> None:
        choice("dedup", "method", self.method, ("near", "exact"))
        choice("dedup", "keep", self.keep, ("test", "first"))
        choice("dedup", "conflict", self.conflict, ("error", "keep", "drop"))
        choice("dedup", "action", self.action, ("drop", "mark"))
        if not (self.within or self.across):
            raise ConfigError(
                "stages.dedup: within=false and across=false leave nothing to compare"
            )
        if self.method == "near":
            self._neighbours.check("stages.dedup")
        else:
            unread(
                self,
                "dedup",
                "method=exact compares whole texts",
                "threshold",
                "num_perm",
                "shingle",
                "char_shingle",
                "unit",
            )
        if self.action == "drop":
            unread(self, "dedup", "action=drop makes no column", "replace")

    @property
    def _neighbours(self) -> Neighbours:
        return Neighbours(
            self.threshold,
            self.num_perm,
            self.shingle,
            self.char_shingle,
            self.unit,
            self.context.seed,
        )

    def sets(
        self, sets: Mapping[str, RowSource], reports: Mapping[str, Report]
    ) -> dict[str, Iterable[Row]]:
        if twice := [split for split in sets if split not in ("all", "train", *EVALUATION)]:
            raise ConfigError(
                f"stages.dedup: the rows of {twice[0]} stand in other folds too, and would be"
                " dropped there; put dedup before split"
            )
        order = (
            sorted(
                sets,
                key=lambda split: (
                    EVALUATION.index(split) if split in EVALUATION else len(EVALUATION)
                ),
            )
            if self.keep == "test"
            else list(sets)
        )
        exact = self._exact(sets, order)
        groups = self._near(sets, order, exact) if self.method == "near" else exact
        clusters: dict[int, list[Place]] = defaultdict(list)
        for split in order:
            for i, group in enumerate(groups[split].tolist()):
                clusters[group].append((split, i))
        clusters = {group: places for group, places in clusters.items() if len(places) > 1}
        wanted = {place for places in clusters.values() for place in places}
        rows = {
            (split, i): self._told(row)
            for split in order
            for i, row in enumerate(sets[split])
            if (split, i) in wanted
        }
        # of the rows that go: the reason, and where the row stands that stays
        verdicts: dict[Place, tuple[str, str]] = {}
        kinds: dict[str, list[list[Place]]] = {split: [] for split in order}
        for places in clusters.values():
            for part in self._parts(places):
                for split in dict.fromkeys(split for split, _ in part):
                    kinds[split].append(part)
                self._judge(part, rows, exact, verdicts)
        for split in order:
            reports[split].facts |= self._facts(kinds[split], rows)
        return {split: self._rest(split, sets[split], verdicts, reports[split]) for split in sets}

    def _key(self, row: Row) -> str:
        parts = None if self.fields else texts_of(row, self.context.columns)
        if parts is None:
            parts = [
                text_in(row, name, "stages.dedup.fields")
                for name in self.fields or [self.context.text]
            ]
        return "\n".join(
            normalise(part, self.ignore_case, self.ignore_space, self.ignore_punctuation)
            for part in parts
        )

    def _told(self, row: Row) -> tuple[str, str]:
        """Returns where a row stands, and its answer."""
        return row.where, answer_of(row, self.context.columns)

    def _exact(self, sets: Mapping[str, RowSource], order: list[str]) -> dict[str, np.ndarray]:
        """Returns for each row the number of its text: equal texts have one."""
        numbers: dict[bytes, int] = {}
        exact = {}
        for split in order:
            found = []
            for row in sets[split]:
                digest = hashlib.blake2b(
                    self._key(row).encode("utf-8", "surrogatepass"), digest_size=16
                ).digest()
                found.append(numbers.setdefault(digest, len(numbers)))
            exact[split] = np.array(found, np.int64)
        return exact

    def _near(
        self, sets: Mapping[str, RowSource], order: list[str], exact: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns for each row the number of its cluster.

        Each text takes part once; it is read again rather than kept.
        """

        class Texts:
            def __iter__(texts) -> Iterator[str]:
                following = 0
                for split in order:
                    for row, number in zip(sets[split], exact[split].tolist(), strict=True):
                        if number == following:
                            following += 1
                            yield self._key(row)

        groups, _ = self._neighbours.groups(Texts())
        return {split: groups[numbers] for split, numbers in exact.items()}

    def _parts(self, places: list[Place]) -> list[list[Place]]:
        """Returns what of a cluster is compared: all, the rows of each split, or the splits."""
        if self.across:
            parts = [places] if len({split for split, _ in places}) > 1 or self.within else []
        else:
            by_split: dict[str, list[Place]] = defaultdict(list)
            for place in places:
                by_split[place[0]].append(place)
            parts = list(by_split.values())
        return [part for part in parts if len(part) > 1]

    def _judge(
        self,
        part: list[Place],
        rows: Mapping[Place, tuple[str, str]],
        exact: Mapping[str, np.ndarray],
        verdicts: dict,
    ) -> None:
        first = part[0]
        other = next((place for place in part if rows[place][1] != rows[first][1]), None)
        if other is not None and self.conflict == "error":
            (where, label), (where_first, label_first) = rows[other], rows[first]
            kind = (
                "repeats"
                if exact[other[0]][other[1]] == exact[first[0]][first[1]]
                else "nearly repeats"
            )
            what = (
                f"label {label or 'null'}, not {label_first or 'null'}"
                if max(len(label), len(label_first)) < 60
                else "label or answer of its own"
            )
            raise DataError(
                f"{where}: it {kind} {where_first} with the {what}; set stages.dedup.conflict=keep"
                " (the first) or drop (all), or stages.dedup.fields=[...] to the columns that make"
                " rows equal"
            )
        for place in part:
            if other is not None and self.conflict == "drop":
                verdicts[place] = ("duplicates with conflicting labels", rows[first][0])
            elif place != first and (self.within or place[0] != first[0]):
                kind = "exact" if exact[place[0]][place[1]] == exact[first[0]][first[1]] else "near"
                verdicts[place] = (
                    f"{kind} duplicate"
                    + (f" of a row of {first[0]}" if place[0] != first[0] else ""),
                    rows[first][0],
                )

    def _facts(
        self, parts: list[list[Place]], rows: Mapping[Place, tuple[str, str]]
    ) -> dict[str, Any]:
        largest = sorted(parts, key=len, reverse=True)[:10]
        facts: dict[str, Any] = {
            "clusters": len(parts),
            "largest clusters": [
                {"rows": len(part), "first": [rows[place][0] for place in part[:5]]}
                for part in largest
            ],
        }
        if self.method == "near":
            facts["recall"] = round(
                recall(self.threshold, *banding(self.threshold, self.num_perm)), 4
            )
        return facts

    def _rest(
        self, split: str, rows: RowSource, verdicts: Mapping[Place, tuple[str, str]], report: Report
    ) -> Iterator[Row]:
        for i, row in enumerate(rows):
            reason, where = verdicts.get((split, i), (None, None))
            instead = "rename it, or set stages.dedup.replace=true"
            new = (
                add_columns(row, {"duplicate_of": where}, self.replace, instead)
                if self.action == "mark"
                else row
            )
            if (
                new := judge(self, "dedup", new, [reason] if reason else [], report, self.action)
            ) is not None:
                yield new
