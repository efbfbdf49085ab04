"""The stage `denoise`: corrects mistakes of scanning, speech recognition or typing by a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.neighbours import jaccard, shingles
from jaxsft.prepare.stage import Report, RowSource, Stage, State, text_of, with_fields
from jaxsft.prepare.text_columns import SPANS, add_columns, batches, filled_in, written


@dataclasses.dataclass(frozen=True)
class Denoise(Stage):
    """Replaces each text by a model's correction of it, where the correction stays close to what
    was there.

    Each text, put into `template`, is the input of the model (a run that writes text: `run=RUN`). A
    model that invents is worse than a misprint: an answer that is empty or cut off, or whose sets
    of three characters have a Jaccard similarity below `min_similarity` with those of the text, is
    not taken, and counted ("no whole answer", "answer too different"). Every split is treated, and
    new rows in `predict`. Rows of whose text something is said by position (`spans`) are an error
    where it would change.
    """

    replayed: ClassVar[bool] = True

    field: str = option("", "the column that is corrected; empty: the text column")
    min_similarity: float = option(
        0.5, "the least similarity of an answer that is taken, from 0 (anything) to 1"
    )
    template: str = option("{text}", "what the model is asked, with {text} for the text")
    input: str = option(
        "prompt",
        "the column of the model's input, as in the data that it was trained on (source for"
        " task=seq2seq)",
    )
    answer: str = option("prediction", "the field of the model's record that holds what it wrote")
    original: Optional[str] = option(None, "keep the text as it was in this column; null: it goes")
    batch: int = option(32, "records that the model is given at once")

    def check(self) -> None:
        if not 0 <= self.min_similarity <= 1:
            raise ConfigError(
                f"stages.denoise.min_similarity={self.min_similarity}: expected a number from 0"
                " to 1"
            )
        if "{text}" not in self.template:
            raise ConfigError(
                f"stages.denoise.template={self.template}: expected {{text}} in it, which stands"
                " for the text"
            )
        if self.batch < 1:
            raise ConfigError(f"stages.denoise.batch={self.batch}: expected at least 1")
        if self.context.predict is None:
            raise ConfigError("stages.denoise: it asks a model for corrections, and none was given")

    def row(self, row: Row, state: State, report: Report) -> Row:
        return next(iter(self.rows("", [row], state, report)))

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        name = self.field or self.context.text
        for batch in batches(rows, self.batch):
            texts = [text_of(row, name, "stages.denoise.field") for row in batch]
            prompts = [filled_in(self.template, text=text) for text in texts]
            answers = written(self, "denoise", batch, prompts, self.input, self.answer)
            for row, text, answer in zip(batch, texts, answers, strict=True):
                new = self._taken(text, answer, report)
                if new != text and row.fields.get(SPANS):
                    raise DataError(
                        f"{row.where}: column {SPANS!r} points into {name!r}, which would change;"
                        " denoise before the spans are made"
                    )
                kept = {self.original: text} if self.original is not None else {}
                yield with_fields(
                    add_columns(row, kept, False, "set stages.denoise.original to another name"),
                    **{name: new},
                )

    def _taken(self, text: str, answer: str | None, report: Report) -> str:
        if answer is None:
            report.marked["no whole answer"] += bool(text.strip())
            return text
        if answer == text:
            return text
        hashes, counts = shingles([text, answer], chars=3, unit="char")
        first, second = (set(part.tolist()) for part in (hashes[: counts[0]], hashes[counts[0] :]))
        if jaccard(first, second) < self.min_similarity:
            report.marked["answer too different"] += 1
            return text
        report.changed["corrected"] += 1
        return answer
