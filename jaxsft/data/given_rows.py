"""Rows that a caller hands over from Python: checked like rows of a file, with a place for
messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row, jsonl
from jaxsft.errors import DataError

Message = Mapping[str, Any]
Prompt = str | Sequence[Message]  # a text, or a conversation that waits for the assistant's turn


def rows_of(given: Sequence[Any], text: str | None) -> list[Row]:
    """Makes rows, with a place for messages, of what a caller hands over. Raises DataError.

    Args:
      text: the column of what is given as a text; None where a text will not do.
    """
    if isinstance(given, str | Mapping):
        raise DataError(
            f"expected a list of rows (found one {type(given).__name__}); put it into a list"
        )
    out = []
    for i, row in enumerate(given, start=1):
        if isinstance(row, str) and text is not None:
            row = {text: row}
        if not isinstance(row, Row | Mapping):
            raise DataError(
                f"rows:{i}: found a {type(row).__name__}, expected a dict of columns"
                + (" or a text" if text else "")
            )
        out.append(row if isinstance(row, Row) else _of_characters(Row(dict(row), "rows", i)))
    return out


def prompt_row(prompt: Prompt, number: int, task: Any) -> Row:
    """Makes the row of a prompt, under the names of `Columns()`. Raises DataError."""
    if isinstance(prompt, str):
        return _of_characters(Row({task.inputs(Columns())[0]: prompt}, "prompt", number))
    if (
        not isinstance(prompt, Sequence)
        or not prompt
        or not all(isinstance(message, Mapping) for message in prompt)
    ):
        raise DataError(
            f"prompt:{number}: found {prompt!r:.60}, expected a text or a list of messages with"
            " role and content"
        )
    if not task.spec.conversations:
        raise DataError(f"prompt:{number}: found messages, but task={task.name} reads a text")
    if prompt[-1].get("role") == "assistant":
        raise DataError(
            f"prompt:{number}: the last message is from the assistant, expected one that it can"
            " answer"
        )
    return _of_characters(
        Row({"messages": [dict(message) for message in prompt]}, "prompt", number)
    )


def _of_characters(row: Row) -> Row:
    """Returns the row. Raises DataError where a text of it holds what is no character: no tokenizer
    reads such a text.
    """
    if (half := jsonl.surrogate(row.fields)) is not None:
        raise DataError(f"{row.where}: a text holds {half}, {jsonl.NO_CHARACTER}")
    return row


def with_predictions(
    rows: Sequence[Row], lines: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the fields of each row and what was predicted. Raises DataError where a name is
    taken.
    """
    for row, line in zip(rows, lines, strict=True):
        if taken := [name for name in line if name in row.fields]:
            raise DataError(
                f"{row.where}: has a column {taken[0]!r}, which the prediction would overwrite;"
                " rename it"
            )
    return [{**row.fields, **line} for row, line in zip(rows, lines, strict=True)]
