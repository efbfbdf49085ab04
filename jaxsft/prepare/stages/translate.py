"""The stage `translate`: text of other languages, put into one by a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
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
from jaxsft.prepare.text_columns import SPANS, add_columns, batches, filled_in, written


@dataclasses.dataclass(frozen=True)
class Translate(Stage):
    """Replaces texts by what a model makes of them in another language: one model for sources in
    several languages, or for one that it knows.

    Which rows: those whose `language` column holds one of `sources` (the stage `language` makes
    that column); without sources all that are not in `target` already. Each text, put into
    `template`, is the input of the model (a run that writes text: `run=RUN`), and its answer takes
    the place of the text. An answer that is empty, or was cut off at the model's limit, is no
    translation. Every split is treated, and new rows in `predict`, so that train and test speak one
    language. Rows of whose text something is said by position (`spans`) are an error.
    """

    replayed: ClassVar[bool] = True

    target: str = option("", "the language that comes out, as the model calls it (en, de ...)")
    fields: list[str] = option(
        [],
        "the columns that are translated; empty: the text column",
    )
    language: Optional[str] = option(
        "language", "the column that says which language a row is in; null: every row is translated"
    )
    sources: list[str] = option(
        [],
        "the languages that are translated; empty: all but the target",
    )
    original: Optional[str] = option(
        None,
        'keep the text as it was in a column of this name (with several fields: this, "_" and the'
        " field); null: it goes",
    )
    template: str = option(
        "{text}",
        "what the model is asked, with {text}, {source} and {target}: `Translate from {source} to"
        " {target}: {text}`",
    )
    input: str = option(
        "prompt",
        "the column of the model's input, as in the data that it was trained on (source for"
        " task=seq2seq)",
    )
    answer: str = option("prediction", "the field of the model's record that holds what it wrote")
    failed: str = option("error", "an answer that is empty or cut off: error | drop (the row)")
    batch: int = option(32, "records that the model is given at once")

    def check(self) -> None:
        choice("translate", "failed", self.failed, ("error", "drop"))
        if not self.target:
            raise ConfigError(
                "stages.translate.target: expected the language that should come out, such as en"
            )
        if self.language is None and self.sources:
            raise ConfigError(
                "stages.translate.sources: without a language column nothing tells the rows apart;"
                " set language=<column>"
            )
        if "{text}" not in self.template:
            raise ConfigError(
                f"stages.translate.template={self.template}: expected {{text}} in it, which stands"
                " for the text"
            )
        if self.batch < 1:
            raise ConfigError(f"stages.translate.batch={self.batch}: expected at least 1")
        if self.context.predict is None:
            raise ConfigError(
                "stages.translate: it asks a model for translations, and none was given"
            )

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        return next(iter(self.rows("", [row], state, report)), None)

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        for batch in batches(rows, self.batch):
            chosen = [i for i, row in enumerate(batch) if self._wanted(row)]
            answers = dict(zip(chosen, self._answers([batch[i] for i in chosen]), strict=True))
            for i, row in enumerate(batch):
                new = self._translated(row, answers[i], report) if i in answers else row
                if new is not None:
                    yield new

    @property
    def _names(self) -> list[str]:
        return self.fields or [self.context.text]

    def _wanted(self, row: Row) -> bool:
        if self.language is None:
            return True
        found = value_of(row, self.language, "stages.translate.language")
        return found in self.sources if self.sources else found != self.target

    def _answers(self, rows: list[Row]) -> list[list[str | None]]:
        """Returns for each row the translations of its columns."""
        prompts = []
        for row in rows:
            if row.fields.get(SPANS):
                raise DataError(
                    f"{row.where}: column {SPANS!r} points into the text that would be translated;"
                    " set stages.translate.sources to others"
                )
            source = str(row.fields[self.language]) if self.language is not None else ""
            texts = [text_of(row, name, "stages.translate.fields") for name in self._names]
            prompts += [
                filled_in(self.template, text=text, source=source, target=self.target)
                for text in texts
            ]
        if not rows:
            return []
        size = len(self._names)
        told = written(
            self,
            "translate",
            [row for row in rows for _ in range(size)],
            prompts,
            self.input,
            self.answer,
        )
        return [told[i : i + size] for i in range(0, len(told), size)]

    def _translated(self, row: Row, answers: list[str | None], report: Report) -> Row | None:
        new: dict[str, Any] = {}
        kept: dict[str, Any] = {}
        for name, text in zip(self._names, answers, strict=True):
            if text is None and row.fields[name].strip():
                if self.failed == "error":
                    raise DataError(
                        f"{row.where}: stages.translate: the answer is empty or cut off; set"
                        " stages.translate.failed=drop, or a larger limit"
                    )
                report.drop(row, "no whole translation")
                return None
            new[name] = text or ""
            if self.original is not None:
                kept[self.original if len(self._names) == 1 else f"{self.original}_{name}"] = (
                    row.fields[name]
                )
        if self.language is not None:
            new[self.language] = self.target
        report.changed["translated"] += 1
        return with_fields(
            add_columns(row, kept, False, "set stages.translate.original to another name"), **new
        )
