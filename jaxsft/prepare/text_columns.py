"""The text of rows for the stages of text: where a row keeps it, and how a stage changes it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Report, Stage, text_of, value_of, with_fields

T = TypeVar("T")
# where a turn of a chat keeps its text: OpenAI's and ShareGPT's spelling
CONTENT = ("content", "value")
SPANS = "spans"
MARKS = "marks"


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields the rows in lists of `size`; the last one may be shorter."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, size)):
        yield batch


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and any(key in turn for key in CONTENT) for turn in value)
    )


def has_text(value: Any) -> bool:
    """Returns whether `text_in` gives the text of such a value."""
    return isinstance(value, str) or _is_chat(value)


def text_in(row: Row, name: str, option: str) -> str:
    """Returns the text of a column.

    Of a chat the texts of its turns, one below the other; of a list of words the words with
    spaces. Raises DataError (missing, or none of these), which names `option`.
    """
    value = value_of(row, name, option)
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if _is_chat(value):
        return "\n".join(
            turn[key] for turn in value for key in CONTENT if isinstance(turn.get(key), str)
        )
    return text_of(row, name, option)


def change_text(row: Row, name: str, change: Callable[[str], str], option: str) -> Row:
    """Returns the row with every text of a column changed.

    A column holds a text, or the turns of a chat (a list of objects with content or value).

    Raises:
      DataError: the column is missing or holds something else; or spans point into the text that
        would change.
    """
    value = value_of(row, name, option)
    if _is_chat(value):
        new: Any = [
            {
                key: change(part) if key in CONTENT and isinstance(part, str) else part
                for key, part in turn.items()
            }
            for turn in value
        ]
    else:
        new = change(text_of(row, name, option))
    if new == value:
        return row
    if row.fields.get(SPANS):
        raise DataError(
            f"{row.where}: column {SPANS!r} points into {name!r}, which would change; set {option}"
            " to other columns, or do it before the spans"
        )
    return with_fields(row, **{name: new})


def is_empty(value: Any) -> bool:
    """Returns whether there is no text: an empty one, or a chat with an empty turn.

    A null content, such as that of a tool call, is none.
    """
    if isinstance(value, str):
        return not value.strip()
    return any(
        isinstance(turn.get(key), str) and not turn[key].strip()
        for turn in value
        for key in CONTENT
    )


def judge(
    stage: Stage, name: str, row: Row, reasons: Sequence[str], report: Report, action: str
) -> Row | None:
    """Drops or marks a row for the first of `reasons`; without one it passes.

    With action=mark every row gets the column `marks`: "stage: reason" of all that was found,
    separated by "; ", empty where nothing was.
    """
    if action == "drop":
        if reasons:
            report.drop(row, reasons[0])
            return None
        return row
    for reason in reasons:
        report.marked[reason] += 1
    return with_fields(
        row,
        **{
            MARKS: "; ".join(
                filter(
                    None,
                    [row.fields.get(MARKS) or "", *(f"{name}: {reason}" for reason in reasons)],
                )
            )
        },
    )


def add_columns(row: Row, new: Mapping[str, Any], replace: bool, instead: str) -> Row:
    """Returns the row with new columns.

    Raises DataError where one of them holds something else already, unless `replace`; `instead`
    says what to set.
    """
    for name, value in new.items():
        if not replace and row.fields.get(name) not in (None, "", [], value):
            raise DataError(
                f"{row.where}: column {name!r} holds {row.fields[name]!r:.60} already; {instead}"
            )
    return with_fields(row, **new)


def unread(stage: Stage, name: str, why: str, *fields: str) -> None:
    """Raises ConfigError where one of the options that have no effect here was set to something
    else than its default.
    """
    for field in dataclasses.fields(stage):
        if field.name in fields:
            default = (
                field.default
                if field.default_factory is dataclasses.MISSING
                else field.default_factory()
            )
            value = getattr(stage, field.name)
            if (list(value) if isinstance(value, tuple) else value) != default:
                raise ConfigError(
                    f"stages.{name}.{field.name}={getattr(stage, field.name)}: it has no effect,"
                    f" {why}"
                )


def predicted(
    stage: Stage,
    name: str,
    rows: Sequence[Row],
    records: Sequence[dict[str, Any]],
    wanted: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns the model's answer to each record.

    Raises ConfigError (no model) and DataError (another number of records, or a field is
    missing).
    """
    if stage.context.predict is None:
        raise ConfigError(f"stages.{name}: it asks a model for its answers, and none was given")
    answers = list(stage.context.predict(records))
    if len(answers) != len(records):
        raise DataError(
            f"{rows[0].where}: stages.{name}: the model gave {len(answers)} records for"
            f" {len(records)}"
        )
    for row, answer in zip(rows, answers, strict=True):
        if answer.get("dropped"):
            raise DataError(
                f"{row.where}: stages.{name}: the model cannot take this row ({answer['dropped']})"
            )
        for field in wanted:
            if field not in answer:
                raise DataError(
                    f"{row.where}: stages.{name}: the model's record has no {field!r}, it has"
                    f" {', '.join(map(repr, answer)) or 'nothing'}"
                )
    return answers


def written(
    stage: Stage, name: str, rows: Sequence[Row], prompts: Sequence[str], column: str, answer: str
) -> list[str | None]:
    """Returns the answer of a model that writes text to each prompt.

    None where the answer is empty, or ends at the limit of tokens and not by itself.

    Args:
      column: of the model's input, as in the data that it was trained on. answer: the field of its
        record that holds what it wrote.
    """
    told = predicted(stage, name, rows, [{column: prompt} for prompt in prompts], [answer])
    for row, found in zip(rows, told, strict=True):
        if not isinstance(found[answer], str):
            raise DataError(
                f"{row.where}: stages.{name}: the model's {answer!r} is {found[answer]!r:.40},"
                " expected text"
            )
    return [
        found[answer] if found[answer].strip() and found.get("stopped", True) else None
        for found in told
    ]


def filled_in(template: str, **values: str) -> str:
    """Fills `{name}` of a template for each value, at once: braces in values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


@functools.lru_cache(maxsize=256)
def pattern(text: str, option: str) -> re.Pattern[str]:
    """Compiles a user's regular expression. Raises ConfigError where it is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"{option}={text!r}: not a regular expression ({error})") from None
