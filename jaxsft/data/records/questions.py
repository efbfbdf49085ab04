"""Records of a question and a text that holds its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records.fields import show, text_of, without_none
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError

STARTS = ("answer_start", "start", "starts")


@dataclasses.dataclass(frozen=True, slots=True)
class Question(Record):
    """A question and its context. `starts[i]` is the character of the context at which `answers[i]`
    begins; none: the context does not answer.
    """

    question: str
    context: str
    answers: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()


def question_of(row: Row, columns: Any) -> Question:
    """Reads question and context of a row, without answers.

    They are in `data.columns.text`, else `question`, and `data.columns.text_pair`, else `context`.
    """
    question = text_of(row, columns.text or "question", "data.columns.text")
    return Question(
        question, text_of(row, columns.text_pair or "context", "data.columns.text_pair")
    )


def question_record(row: Row, columns: Any) -> Question:
    """Reads a row of SQuAD (Rajpurkar et al., 2016, arXiv:1606.05250).

    `answers` is `{"text": [...], "answer_start": [...]}`, or a list of those.

    Raises:
      DataError: a column is missing or of another form, or an answer does not stand in the context
        where it is said to.
    """
    record, name = question_of(row, columns), columns.answers or "answers"
    value, where = (
        without_none(require_column(row, name, "data.columns.answers"), written=True),
        f"{row.where}: column {name!r}",
    )
    parts = value if isinstance(value, list) else [value]
    answers: list[str] = []
    starts: list[int] = []
    for part in parts:
        key = next((key for key in STARTS if isinstance(part, Mapping) and key in part), None)
        if key is None or "text" not in part:
            raise DataError(
                f"{where} holds {show(value)}, expected text and answer_start; set"
                " data.columns.answers=<column>"
            )
        texts, places = (
            [x] if isinstance(x, str | int) else list(x) for x in (part["text"], part[key])
        )
        if len(texts) != len(places):
            raise DataError(
                f"{where} has {len(texts)} texts and {len(places)} places, expected a place for"
                " each text"
            )
        answers += texts
        starts += places
    for text, start in zip(answers, starts, strict=True):
        if (
            not isinstance(text, str)
            or not text.strip()
            or isinstance(start, bool)
            or not isinstance(start, int)
        ):
            raise DataError(
                f"{where} holds the answer {show(text)} at {show(start)}, expected a text and a"
                " number"
            )
        if start < 0 or record.context[start : start + len(text)] != text:
            found = record.context[max(start, 0) : max(start, 0) + len(text)]
            raise DataError(
                f"{where}: at character {start} of the context stands {show(found)}, expected the"
                f" answer {show(text)}; mend the row"
            )
    return dataclasses.replace(record, answers=tuple(answers), starts=tuple(starts))
