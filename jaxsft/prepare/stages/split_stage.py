"""The stage `split`: rows into training, validation and test, or into folds.

By content, by label, by group, by time, by hash, and around near duplicates.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.data.split_rule import canonical, split_rows, text_key
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.compared import texts_of
from jaxsft.prepare.neighbours import Neighbours, Union, normalise
from jaxsft.prepare.split_units import (
    SplitUnit,
    by_time,
    cut,
    iterative_stratification,
    pointed,
    time_of,
)
from jaxsft.prepare.stage import Report, RowSource, Stage, choice, value_of
from jaxsft.prepare.text_columns import add_columns, text_in, unread

PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SplitRows(Stage):
    """Splits rows that are not split yet, without leaks: once, early, and before anything is learnt
    from the training rows.

    Rows of equal text share a split, always, and texts are equal as for `dedup`: whatever the
    Unicode form, case and amount of white space. Rows of a `group`, and near duplicates (`near`),
    share one if asked. Within that:

    - by=content: sorted by a hash of content and seed and cut at the fractions; with `stratify`
      each label is cut by itself, and where rows have several labels, or hang together in groups,
      iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, algorithm 1) gives each split
      its share of each label, the rarest label first.
    - by=time: the latest rows are the test split, those before them validation; equal times share a
      split, and a group goes by its latest row.
    - by=hash: each row goes where its own hash (of the group, or the text) points: a row keeps its
      split whatever is added later; the fractions hold on average only, so that it cannot be
      stratified nor look at neighbours.

    The result depends on the contents and the seed, not on the order of the rows (but for near
    duplicates that MinHash misses).

    A label that has fewer rows (or groups) than there are splits cannot be in all of them: an
    error, or see `tiny`. So is a split without rows. With `folds` there are k parts of equal size
    instead of three.
    """

    on: ClassVar[str] = "all"
    splits: ClassVar[bool] = True

    fractions: list[float] = option(
        [0.7, 0.15, 0.15],
        "of train, validation, test; a split of 0 is not made",
    )
    by: str = option("content", "content | time | hash")
    stratify: Optional[str] = option(
        None,
        "the column of the label whose shares each split should have; a list in it is several"
        " labels",
    )
    separator: Optional[str] = option(
        None, "several labels in one text, such as `3,27`, are separated by this"
    )
    group: Optional[str] = option(
        None, "the column of what must not be torn apart: an author, a document, a patient"
    )
    time: Optional[str] = option(
        None, "the column of by=time: numbers, or dates as ISO 8601 writes them"
    )
    near: Optional[float] = option(
        None,
        "rows linked by this Jaccard similarity of their texts (see dedup) share a split; null:"
        " only equal ones do",
    )
    fields: list[str] = option(
        [],
        "the columns that make rows equal or near; empty: what a model is given, else all",
    )
    seed: Optional[int] = option(
        None, "another one gives another split; null: that of the preparation"
    )
    tiny: str = option(
        "error",
        "a label with fewer rows than there are splits: error | train (they are training rows) |"
        " allow (it is missing somewhere)",
    )
    merge: bool = option(
        False,
        "rows that are split already are thrown together and split again; false: that is an error",
    )
    folds: int = option(0, "make so many folds instead of three splits; 0: none")
    folds_as: str = option(
        "column",
        "column (the number of the fold in the column `fold`) | pairs (sets fold0_train,"
        " fold0_validation, fold1_train ...)",
    )
    replace: bool = option(
        False, "the column `fold` may take the place of one that holds something"
    )

    def check(self) -> None:
        choice("split", "by", self.by, ("content", "time", "hash"))
        choice("split", "tiny", self.tiny, ("error", "train", "allow"))
        choice("split", "folds_as", self.folds_as, ("column", "pairs"))
        if (
            len(self.fractions) != 3
            or not all(0 <= f <= 1 for f in self.fractions)
            or abs(sum(self.fractions) - 1) > 1e-6
        ):
            raise ConfigError(
                f"stages.split.fractions={list(self.fractions)}: expected three numbers of at least"
                " 0 that sum to 1"
            )
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(
                f"stages.split.folds={self.folds}: expected 0 (no folds) or at least 2"
            )
        if (self.by == "time") != (self.time is not None):
            raise ConfigError("stages.split: by=time and time=<column> belong together")
        for name, clashes in (
            ("stratify", self.by != "content" and self.stratify is not None),
            ("near", self.by == "hash" and self.near is not None),
            ("folds", self.by == "time" and self.folds > 0),
        ):
            if clashes:
                raise ConfigError(
                    f"stages.split: by={self.by} decides by itself; {name} cannot be had with it"
                )
        if self.stratify is None:
            unread(self, "split", "it is about labels; set stratify=<column>", "separator", "tiny")
        if self.folds and self.tiny == "train":
            raise ConfigError(
                "stages.split.tiny=train: folds have no training split; set tiny=allow"
            )
        if self.folds:
            unread(self, "split", "folds are of equal size", "fractions")
        if not self.folds or self.folds_as == "pairs":
            unread(
                self,
                "split",
                "no column `fold` is made; set folds, and folds_as=column",
                "replace",
                *([] if self.folds else ["folds_as"]),
            )
        if self.near is not None:
            try:
                self._neighbours.check("stages.split")
            except ConfigError:
                raise ConfigError(
                    f"stages.split.near={self.near:g}: expected a number above 0, up to 1, and not"
                    " so low that MinHash misses it"
                ) from None

    @property
    def _neighbours(self) -> Neighbours:
        return Neighbours(threshold=1.0 if self.near is None else self.near, seed=self._seed)

    @property
    def _seed(self) -> int:
        return self.context.seed if self.seed is None else self.seed

    @property
    def _shares(self) -> list[float]:
        return [1 / self.folds] * self.folds if self.folds else [float(f) for f in self.fractions]

    def sets(
        self, sets: Mapping[str, RowSource], reports: Mapping[str, Report]
    ) -> dict[str, Iterable[Row]]:
        if len(sets) > 1 and not self.merge:
            raise ConfigError(
                f"stages.split: the rows are split already, into {', '.join(sets)}; set"
                " stages.split.merge=true to split them again"
            )
        rows = [row for split in sets for row in sets[split]]
        if not rows:
            raise DataError("stages.split: there are no rows to split")
        parts = self._parts(rows)
        for part, share in enumerate(self._shares):
            if share > 0 and part not in parts:
                name = f"fold {part}" if self.folds else PARTS[part]
                raise DataError(
                    f"{rows[0].where}: stages.split: {len(rows)} rows (equal ones and groups hang"
                    f" together) leave none for {name}; "
                    + (
                        f"set fewer folds than stages.split.folds={self.folds}"
                        if self.folds
                        else "set other fractions, or stages.split.fields"
                    )
                )
        for report in reports.values():
            report.facts |= self._facts(rows, parts)
        if not self.folds:
            return {
                name: [row for row, p in zip(rows, parts, strict=True) if p == part]
                for part, name in enumerate(PARTS)
                if self._shares[part] > 0
            }
        if self.folds_as == "column":
            return {
                next(iter(sets)): [
                    self._told(row, part) for row, part in zip(rows, parts, strict=True)
                ]
            }
        return self._pairs(rows, parts, next(iter(reports.values())))

    def _told(self, row: Row, fold: int) -> Row:
        return add_columns(
            row, {"fold": fold}, self.replace, "rename it, or set stages.split.replace=true"
        )

    def _pairs(self, rows: list[Row], parts: list[int], report: Report) -> dict[str, Iterable[Row]]:
        out: dict[str, Iterable[Row]] = {}
        for fold in range(self.folds):
            out[f"fold{fold}_train"] = [
                row for row, part in zip(rows, parts, strict=True) if part != fold
            ]
            out[f"fold{fold}_validation"] = [
                row for row, part in zip(rows, parts, strict=True) if part == fold
            ]
        for _ in range(len(rows) * (self.folds - 1)):
            report.add("the same row in another fold")
        return out

    # --- which part each row belongs to
    # ----------------------------------------------------------------------------------------------
    def _by_hash(self, rows: list[Row], keys: Sequence[str]) -> list[int]:
        owners = (
            [str(value_of(row, self.group, "stages.split.group")) for row in rows]
            if self.group
            else keys
        )
        hashed = (SplitUnit(owner, [], Counter()).hash(self._seed) for owner in owners)
        parts = [pointed(place, self._shares) for place in hashed]
        self._together(rows, keys, parts)
        return parts

    def _parts(self, rows: list[Row]) -> list[int]:
        shares, keys = self._shares, self._keys(rows)
        labels = [self._labels(row) for row in rows]
        single = all(len(found) == 1 for found in labels) or self.stratify is None
        if (
            self.by == "content"
            and not self.folds
            and self.group is None
            and self.near is None
            and single
        ):
            held = self._tiny(self._units(rows, keys, labels))
            free = [i for i in range(len(rows)) if i not in held]
            key_of, label_of = (
                {id(rows[i]): x[i] for i in free}
                for x in (keys, [next(iter(found), "") for found in labels])
            )
            split = split_rows(
                [rows[i] for i in free],
                shares,
                self._seed,
                lambda row: label_of[id(row)],
                lambda row: key_of[id(row)],
            )
            part_of = {id(row): part for part, found in enumerate(split) for row in found}
            return [0 if i in held else part_of[id(row)] for i, row in enumerate(rows)]
        if self.by == "hash":
            return self._by_hash(rows, keys)
        units = self._units(rows, keys, labels)
        held = self._tiny(units)
        free_units = [unit for unit in units if unit.rows[0] not in held]
        if self.by == "time":
            placed = by_time(free_units, shares)
        elif self.stratify is not None:
            # What is large against the smallest part comes first, while there is room for it; by
            # size alone every group would go to training.
            large = 0.1 * min(share for share in shares if share > 0) * len(rows)
            by_size = lambda unit: (
                -len(unit.rows) if len(unit.rows) > large else 0,
                unit.hash(self._seed),
            )
            placed = iterative_stratification(sorted(free_units, key=by_size), shares)
        else:
            placed = cut(
                [[unit] for unit in sorted(free_units, key=lambda unit: unit.hash(self._seed))],
                shares,
            )
        parts = [0] * len(rows)
        for unit, part in placed:
            for i in unit.rows:
                parts[i] = part
        return parts

    @staticmethod
    def _together(rows: list[Row], keys: list[str], parts: list[int]) -> None:
        """Raises DataError where a text belongs to several groups, whose own hashes put them into
        different splits.
        """
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if parts[j := first.setdefault(key, i)] != parts[i]:
                raise DataError(
                    f"{rows[i].where}: it has the text of {rows[j].where}, which is of another"
                    " group and goes to another split by its hash; set stages.split.by=content, or"
                    " put dedup before split"
                )

    def _keys(self, rows: list[Row]) -> list[str]:
        return [self._key(row) for row in rows]

    def _key(self, row: Row) -> str:
        """Returns the text by which a row is compared; all of it where it has none.

        Without `fields` each row by itself: one row that has no text must not make the ids
        of all others part of what is compared.
        """
        texts = [text_in(row, name, "stages.split.fields") for name in self.fields] or texts_of(
            row, self.context.columns
        )
        return canonical(row) if texts is None else text_key(texts)

    def _labels(self, row: Row) -> list[str]:
        """Returns the labels of a row, as texts; none without stratify."""
        if self.stratify is None:
            return []
        value = value_of(row, self.stratify, "stages.split.stratify")
        if isinstance(value, str) and self.separator is not None:
            value = [part.strip() for part in value.split(self.separator) if part.strip()]
        return sorted({str(label) for label in value}) if isinstance(value, list) else [str(value)]

    def _units(self, rows: list[Row], keys: list[str], labels: list[list[str]]) -> list[SplitUnit]:
        union, first = Union(len(rows)), {}
        for i, key in enumerate(keys):
            union.join(first.setdefault(("key", key), i), i)
        if self.group is not None:
            for i, row in enumerate(rows):
                union.join(
                    first.setdefault(
                        ("group", str(value_of(row, self.group, "stages.split.group"))), i
                    ),
                    i,
                )
        if self.near is not None:
            for i, j in enumerate(
                self._neighbours.groups([normalise(key) for key in keys])[0].tolist()
            ):
                union.join(i, j)
        units: dict[int, SplitUnit] = {}
        for i, root in enumerate(union.groups().tolist()):
            unit = units.setdefault(root, SplitUnit(keys[i], [], Counter()))
            unit.key = min(unit.key, keys[i])
            unit.rows.append(i)
            unit.labels.update(labels[i])
            if self.time is not None:
                when = time_of(rows[i], self.time)
                if unit.time is not None and type(when) is not type(unit.time):
                    raise DataError(
                        f"{rows[i].where}: column {self.time!r} holds numbers and dates; expected"
                        " one of them"
                    )
                unit.time = when if unit.time is None else max(unit.time, when)
        return list(units.values())

    def _tiny(self, units: Sequence[SplitUnit]) -> set[int]:
        """Returns the rows of labels too rare to be split, for the training split.

        Raises DataError with tiny=error.
        """
        if self.stratify is None or self.tiny == "allow":
            return set()
        least = sum(share > 0 for share in self._shares)
        counts = Counter(label for unit in units for label in unit.labels)
        rare = {label for label, count in counts.items() if count < least}
        if rare and self.tiny == "error":
            label = min(rare, key=lambda label: (counts[label], label))
            what = "groups" if self.group or self.near is not None else "different texts"
            more = f" (and {len(rare) - 1} more labels have too few)" if len(rare) > 1 else ""
            raise DataError(
                f"stages.split.stratify={self.stratify}: label {label!r} has {counts[label]}"
                f" {what}, expected at least {least}, one for each part{more}; set"
                f" stages.split.tiny=allow{'' if self.folds else ' or train'}, or drop them before"
            )
        return {i for unit in units if rare & set(unit.labels) for i in unit.rows}

    def _facts(self, rows: list[Row], parts: list[int]) -> dict[str, Any]:
        names = [f"fold {i}" for i in range(self.folds)] if self.folds else PARTS
        facts: dict[str, Any] = {
            "rows": {
                name: parts.count(part) for part, name in enumerate(names) if self._shares[part] > 0
            }
        }
        if self.stratify is not None:
            counts = [Counter() for _ in names]
            for row, part in zip(rows, parts, strict=True):
                counts[part].update(self._labels(row))
            every = sorted(set().union(*counts))
            facts["labels missing"] = {
                name: [x for x in every if not counts[i][x]][:20]
                for i, name in enumerate(names)
                if self._shares[i] > 0
            }
        return facts
