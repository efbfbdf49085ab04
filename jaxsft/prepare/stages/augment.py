"""The stage `augment`: changed copies of training rows.

They say the same with other words, or have the mistakes of real text.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, ClassVar, Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data import perturb
from jaxsft.data.formats import Row
from jaxsft.data.perturb import EditUnit
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import (
    Report,
    RowSource,
    Stage,
    State,
    choice,
    text_of,
    value_of,
    with_fields,
)
from jaxsft.prepare.text_columns import SPANS, add_columns, batches, filled_in, unread, written

WORDS = ("swap", "delete", "insert", "synonym")
CHARACTERS = ("slip", "keyboard", "ocr", "case")
TOKENS = ("tokens", "form")
HEADS = ("head", "heads")
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Augment(Stage):
    """Adds changed copies of training rows; other splits are never touched. Use it after splitting,
    for small sets and for robustness to noise.

    Each copy is made by one method; the methods of a row's copies take turns:

    - words (Wei & Zou 2019, EDA): swap, delete, synonym (from `lexicon`), insert (a synonym of one
      of its words);
    - characters: slip (a letter lost, doubled, replaced, transposed), keyboard (a neighbour on
      QWERTY), ocr (shapes that look alike), case;
    - back_translation: what a model (a run that writes text: `run=RUN`) makes of the text, put into
      `template`.

    Labels stay true. In a row with words and tags only words tagged `outside` are moved, deleted or
    replaced, a new word is put where it tears no entity and is tagged `outside`, and characters may
    change in any word. In a text with `spans` what they mark stays, and their offsets follow.
    Columns with heads of a tree allow characters and synonyms only. Each row has its own random
    numbers (seed, row, copy): the same bytes with any number of processes. A copy that would equal
    its row is not made (`unchanged copies` in the report); if none can be made, that is an error.
    """

    on: ClassVar[str] = "train"

    methods: list[str] = option(["swap", "delete"], "see above")
    copies: int = option(1, "of each row")
    alpha: float = option(
        0.1, "the share of words, or of characters, that a copy changes; at least one"
    )
    field: str = option(
        "", "the column of the text; empty: the text column (or the words of a row that has none)"
    )
    tokens: Optional[str] = option(
        None, "the column of the words; null: tokens or form, where a row has them as a list"
    )
    aligned: list[str] = option(["tags"], "columns with one tag for each word")
    outside: str = option("O", "the tag of words that belong to no entity")
    lexicon: Optional[str] = option(
        None, "a file of synonyms, `word<TAB>other, another` a line: for synonym and insert"
    )
    confusions: Optional[str] = option(
        None, "a file in the same form with characters, in place of the table of ocr"
    )
    template: str = option(
        "{text}", "what the model is asked, for back_translation, with {text} for the text"
    )
    input: str = option(
        "prompt",
        "the column of the model's input, as in the data that it was trained on (source for"
        " task=seq2seq)",
    )
    answer: str = option("prediction", "the field of the model's record that holds what it wrote")
    column: Optional[str] = option(
        None,
        "a column that says by which method a row was made (null for those that were there); null:"
        " none",
    )

    def check(self) -> None:
        for method in self.methods:
            choice("augment", "methods", method, (*WORDS, *CHARACTERS, "back_translation"))
        if not self.methods or self.copies < 1:
            raise ConfigError(
                f"stages.augment.copies={self.copies}: expected at least 1, and at least one method"
            )
        if not 0 < self.alpha <= 1:
            raise ConfigError(
                f"stages.augment.alpha={self.alpha}: expected a number above 0, up to 1"
            )
        if (self.lexicon is None) == bool({"insert", "synonym"} & set(self.methods)):
            raise ConfigError(
                "stages.augment.lexicon=<file> belongs to the methods insert and synonym, and they"
                " need it"
            )
        if self.confusions is not None and "ocr" not in self.methods:
            raise ConfigError("stages.augment.confusions: it belongs to the method ocr")
        if "{text}" not in self.template:
            raise ConfigError(
                f"stages.augment.template={self.template}: expected {{text}} in it, which stands"
                " for the text"
            )
        if "back_translation" not in self.methods:
            unread(
                self,
                "augment",
                "it belongs to the method back_translation",
                "template",
                "input",
                "answer",
            )
        elif self.context.predict is None:
            raise ConfigError(
                "stages.augment.methods=back_translation: it asks a model, and none was given"
            )
        _ = self._lexicon, self._confusions

    @property
    def _lexicon(self) -> perturb.Table:
        return (
            perturb.table_of(self.lexicon, "stages.augment.lexicon", True)
            if self.lexicon is not None
            else {}
        )

    @property
    def _confusions(self) -> perturb.Table:
        return (
            perturb.table_of(self.confusions, "stages.augment.confusions", False)
            if self.confusions is not None
            else perturb.OCR
        )

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        unchanged, made, came = 0, 0, 0
        for batch in batches(rows, BATCH):
            came += len(batch)
            told = self._translated(batch) if "back_translation" in self.methods else {}
            for i, row in enumerate(batch):
                yield (
                    row
                    if self.column is None
                    else add_columns(
                        row, {self.column: None}, False, "set stages.augment.column to another name"
                    )
                )
                for copy, method in enumerate(self._turns(row)):
                    new = (
                        told[i, copy]
                        if method == "back_translation"
                        else self.changed(row, method, self.rng(row, copy))
                    )
                    if new.fields == row.fields:
                        unchanged += 1
                        continue
                    made += 1
                    report.add(method)
                    yield new if self.column is None else with_fields(new, **{self.column: method})
        report.facts["unchanged copies"] = unchanged
        if came and not made:
            raise DataError(
                f"stages.augment.methods={self.methods}: no row of {split} could be changed; choose"
                " other methods, or another lexicon"
            )

    def _turns(self, row: Row) -> list[str]:
        """Returns the method of each copy: in turn, from a random one for the row."""
        first = int(self.rng(row, -1).integers(len(self.methods)))
        return [self.methods[(first + copy) % len(self.methods)] for copy in range(self.copies)]

    def _translated(self, batch: list[Row]) -> dict[tuple[int, int], Row]:
        asked = [
            (i, copy)
            for i, row in enumerate(batch)
            for copy, method in enumerate(self._turns(row))
            if method == "back_translation"
        ]
        name, rows = self.field or self.context.text, [batch[i] for i, _ in asked]
        if not asked:
            return {}
        for row in rows:
            if self._words(row) is not None or row.fields.get(SPANS):
                raise DataError(
                    f"{row.where}: stages.augment: back_translation cannot keep tags or spans"
                    " aligned; choose other methods"
                )
        prompts = [
            filled_in(self.template, text=text_of(row, name, "stages.augment.field"))
            for row in rows
        ]
        answers = written(self, "augment", rows, prompts, self.input, self.answer)
        return {
            place: row if new is None else with_fields(row, **{name: new})
            for place, row, new in zip(asked, rows, answers, strict=True)
        }

    # --- one row
    # ----------------------------------------------------------------------------------------------
    def changed(self, row: Row, method: str, rng: np.random.Generator) -> Row:
        """Returns a copy of the row, changed by one method."""
        words = self._words(row)
        if words is not None:
            return self._changed_words(row, words, method, rng)
        name = self.field or self.context.text
        text, spans = text_of(row, name, "stages.augment.field"), row.fields.get(SPANS) or []
        bounds = [_bounds(span, row, len(text)) for span in spans]
        lead, units = perturb.units_of(text, bounds)
        new, moved = perturb.joined(lead, self._edited(units, method, rng, single=False))
        blocks = {start: unit for unit in units if (start := unit.start) is not None}
        fields: dict[str, Any] = {name: new}
        if spans:
            fields[SPANS] = [
                _shifted(span, bound, blocks, moved)
                for span, bound in zip(spans, bounds, strict=True)
            ]
        return with_fields(row, **fields)

    def _changed_words(self, row: Row, name: str, method: str, rng: np.random.Generator) -> Row:
        words = value_of(row, name, "stages.augment.tokens")
        tags = {column: row.fields[column] for column in self.aligned if column in row.fields}
        for column, found in tags.items():
            if not isinstance(found, list) or len(found) != len(words):
                raise DataError(
                    f"{row.where}: column {column!r} is not a list of {len(words)} tags, one for"
                    " each word; set stages.augment.aligned"
                )
        if method in ("swap", "delete", "insert"):
            others = [
                c
                for c, v in row.fields.items()
                if c not in (name, *tags) and isinstance(v, list) and len(v) == len(words) and v
            ]
            if others or set(HEADS) & set(tags):
                column = next(iter(others or set(HEADS) & set(tags)))
                raise DataError(
                    f"{row.where}: column {column!r} belongs to the words too, and {method} would"
                    " break it; set stages.augment.methods to synonym or a noise of characters, or"
                    " (for tags) add it to stages.augment.aligned"
                )
        free = [all(found[i] == self.outside for found in tags.values()) for i in range(len(words))]
        units = [
            EditUnit(word, " ", is_free, before=is_free or i == 0 or free[i - 1])
            for i, (word, is_free) in enumerate(zip(words, free, strict=True))
        ]
        for i, unit in enumerate(units):
            unit.start = i  # a word that was there: its tag is found by its number
            # An entity that does not begin with a tag of its own (IOB1, plain labels) would join
            # the one before.
            unit.fixed = i + 1 < len(units) and any(
                found[i + 1] != self.outside and found[i + 1][:2] not in ("B-", "S-", "U-")
                for found in tags.values()
            )
        new = self._edited(units, method, rng, single=True)
        fields = {name: [unit.text for unit in new]}
        for column, found in tags.items():
            fields[column] = [
                self.outside if unit.start is None else found[unit.start] for unit in new
            ]
        if isinstance(
            text := row.fields.get(self.field or self.context.text), str
        ) and text == " ".join(words):
            fields[self.field or self.context.text] = " ".join(fields[name])
        return with_fields(row, **fields)

    def _words(self, row: Row) -> str | None:
        """Returns the column of words, where the row has one."""
        if self.field:
            return None
        names = [self.tokens] if self.tokens is not None else TOKENS
        found = next(
            (
                n
                for n in names
                if isinstance(v := row.fields.get(n), list)
                and v
                and all(isinstance(w, str) for w in v)
            ),
            None,
        )
        if found is None and self.tokens is not None:
            raise DataError(
                f"{row.where}: column {self.tokens!r} is no list of words; set"
                " stages.augment.tokens"
            )
        return found

    def _edited(
        self, units: list[EditUnit], method: str, rng: np.random.Generator, single: bool
    ) -> list[EditUnit]:
        count = max(1, round(self.alpha * sum(unit.free for unit in units)))
        if method in ("swap", "delete"):
            return (perturb.swap if method == "swap" else perturb.delete)(units, count, rng)
        if method in ("insert", "synonym"):
            return (perturb.insert if method == "insert" else perturb.synonym)(
                units, count, rng, self._lexicon, single
            )
        if method == "slip":
            return perturb.characters(units, self.alpha, rng, perturb.slip)
        if method == "case":
            return perturb.characters(units, self.alpha, rng, perturb.flip)
        table = perturb.KEYBOARD if method == "keyboard" else self._confusions
        return perturb.characters(
            units, self.alpha, rng, functools.partial(perturb.confuse, table=table)
        )


def _bounds(span: Any, row: Row, length: int) -> tuple[int, int]:
    start, end = (
        (span.get("start"), span.get("end"))
        if isinstance(span, dict)
        else span[:2]
        if isinstance(span, list) and len(span) > 1
        else (None, None)
    )
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
        raise DataError(
            f"{row.where}: column {SPANS!r} holds {span!r:.60}, expected [start, end, label] or an"
            " object with start and end inside the text"
        )
    return start, end


def _shifted(
    span: Any, bound: tuple[int, int], blocks: dict[int, EditUnit], moved: dict[int, int]
) -> Any:
    """Returns the span where its block stands now; overlapping spans share a block."""
    begin = max(start for start in blocks if start <= bound[0])
    by = moved[begin] - begin
    return (
        {**span, "start": bound[0] + by, "end": bound[1] + by}
        if isinstance(span, dict)
        else [bound[0] + by, bound[1] + by, *span[2:]]
    )
