"""The forms in which conversations are found: messages of OpenAI, ShareGPT, Alpaca, a prompt and
its completion.
"""

from __future__ import annotations

import contextlib
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records import literals, turn_weights
from jaxsft.data.records.chat_tools import without_tools
from jaxsft.data.records.fields import show, text_of
from jaxsft.data.records.messages import (
    Message,
    joined_calls,
    json_of,
    message_of,
    shared_message,
)
from jaxsft.errors import DataError

FORMS = ("messages", "sharegpt", "alpaca", "prompt")
LISTS = ("messages", "conversations")  # columns of turns, whichever form those have


def messages_of(row: Row, columns: Any, answered: bool) -> tuple[tuple[Message, ...], tuple]:
    """Returns the messages of a row, in whichever form it has them, and the tools inside the first.

    A message has a role, a content and a weight, which multiplies the loss of each of its tokens
    where the assistant says it: the number that the message has under `weight` (or `train`, ...),
    or that a column of the row has for it (`turn_weights.spread`); else 1.

    Args:
      answered: the row has the answer that is trained; else it may lack it, for prediction.

    Raises DataError.
    """
    form = form_of(row, columns) if answered else _open_form(row, columns)
    if form in ("messages", "sharegpt"):
        return without_tools(_listed(row, columns, form, answered), row.where)
    if answered:
        turn_weights.refuse(row, columns)
    read = _alpaca if form == "alpaca" else _prompted
    return read(row, columns, answered), ()


def form_of(row: Row, columns: Any) -> str:
    """Returns the form of a conversation, one of FORMS, as its columns or `data.columns.form` say.

    Raises:
      DataError: the columns are those of several forms, or of none.
    """
    if columns.form != "auto":
        return columns.form
    if columns.messages is not None:
        return "sharegpt" if _sharegpt(row.fields.get(columns.messages)) else "messages"
    if columns.prompt is not None or columns.completion is not None:
        return "alpaca" if columns.input is not None or columns.history is not None else "prompt"
    there = row.fields.keys()
    lists = [row.fields[name] for name in LISTS if name in there]
    found = {
        "messages": any(not _sharegpt(turns) for turns in lists),
        "sharegpt": any(map(_sharegpt, lists)),
        "alpaca": {"instruction", "output"} <= there,
        "prompt": {"prompt", "completion"} <= there,
    }
    forms = [form for form in FORMS if found[form]]
    if len(forms) == 1:
        return forms[0]
    names = ", ".join(map(repr, there)) or "none"
    if forms:
        raise DataError(
            f"{row.where}: the columns {names} are those of several forms ({', '.join(forms)}); set"
            f" data.columns.form={'|'.join(forms)}"
        )
    if "prompt" in there or "completion" in there:
        return "prompt"
    if "instruction" in there:
        return "alpaca"
    questions = isinstance(turns := row.fields.get("turns"), list) and all(
        isinstance(turn, str) for turn in turns
    )
    if questions:
        raise DataError(
            f"{row.where}: column 'turns' holds questions without answers, so there is nothing to"
            " train on; predict them with a trained run"
        )
    raise DataError(
        f"{row.where}: missing column 'messages': found columns {names}; set"
        " data.columns.messages=<column>, or data.columns.prompt=<column> and"
        " data.columns.completion"
    )


def _spelled(value: Any, what: str) -> Any:
    """Returns the turns of a column; a cell spells them as JSON, or as Python prints a list.

    Raises DataError, which begins with `what`.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json_of(value, what, "a list of messages")
    except DataError as broken:
        try:
            return literals.read(value)
        except ValueError as error:
            raise DataError(f"{broken}, and no list of Python ({error})") from None


def _sharegpt(value: Any) -> bool:
    with contextlib.suppress(DataError):  # told where the turns are read
        value = _spelled(value, "")
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and "from" in value[0]
    )


def _open_form(row: Row, columns: Any) -> str:
    """Returns the form of a row whose answer may be absent."""
    if (
        columns.form == "auto"
        and columns.messages is None
        and not any(name in row.fields for name in LISTS)
    ):
        asked = columns.completion is not None or columns.prompt is not None
        alpaca = (
            columns.input is not None
            or columns.history is not None
            or (not asked and "instruction" in row.fields and "prompt" not in row.fields)
        )
        return "alpaca" if alpaca else "prompt"
    return form_of(row, columns)


def _listed(row: Row, columns: Any, form: str, answered: bool) -> tuple[Message, ...]:
    name = columns.messages or next(
        (n for n in LISTS if n in row.fields and _sharegpt(row.fields[n]) == (form == "sharegpt")),
        LISTS[0],
    )
    found = require_column(
        row,
        name,
        "data.columns.messages=<column>, or data.columns.prompt=<column> and"
        " data.columns.completion",
    )
    found = _spelled(found, f"{row.where}: column {name!r}")
    if not isinstance(found, list) or not found:
        raise DataError(
            f"{row.where}: column {name!r} holds {show(found)}, expected a list of messages with"
            " role and content"
        )
    turns = enumerate(turn_weights.spread(row, columns, found) if answered else found, start=1)
    if form == "messages":
        return tuple(
            message_of(turn, f"{row.where}: message {number}", columns.allow)
            for number, turn in turns
        )
    return joined_calls(
        [
            shared_message(turn, f"{row.where}: message {number}", columns.allow)
            for number, turn in turns
        ]
    )


def _alpaca(row: Row, columns: Any, answered: bool) -> tuple[Message, ...]:
    """Reads a row of Alpaca: instruction, input (perhaps empty), output, and history.

    The input follows the instruction after a blank line; history is a list of [question, answer].
    Raises DataError.
    """
    asked = text_of(row, columns.prompt or "instruction", "data.columns.prompt")
    more = (
        row.fields.get(columns.input or "input")
        if columns.input is None
        else require_column(row, columns.input, "data.columns.input")
    )
    if more is not None and not isinstance(more, str):
        raise DataError(
            f"{row.where}: column {columns.input or 'input'!r} holds {show(more)}, expected a"
            " string; set data.columns.input=<column>"
        )
    messages = []
    name = columns.history or "history"
    history = (
        require_column(row, name, "data.columns.history")
        if columns.history is not None
        else row.fields.get(name)
    )
    for number, turn in (
        enumerate(history or [], start=1) if isinstance(history, list | None) else [(1, history)]
    ):
        if (
            not isinstance(turn, list | tuple)
            or len(turn) != 2
            or not all(isinstance(text, str) for text in turn)
        ):
            raise DataError(
                f"{row.where}: column {name!r}: turn {number} is {show(turn)}, expected a list of"
                " [question, answer]; set data.columns.history"
            )
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    more = more if more and more.strip() else ""
    messages.append(Message("user", f"{asked}\n\n{more}" if more and asked else asked or more))
    if answered:
        messages.append(
            Message(
                "assistant", text_of(row, columns.completion or "output", "data.columns.completion")
            )
        )
    return tuple(messages)


def _prompted(row: Row, columns: Any, answered: bool) -> tuple[Message, ...]:
    """Reads a prompt and its completion, each a string or a list of messages. Raises DataError."""
    parts = [("prompt", columns.prompt or "prompt", "user")]
    parts += [("completion", columns.completion or "completion", "assistant")] if answered else []
    messages: list[Message] = []
    for field, name, role in parts:
        value = require_column(row, name, f"data.columns.{field}")
        if isinstance(value, list) and value:
            messages += [
                message_of(turn, f"{row.where}: column {name!r}: message {i}", columns.allow)
                for i, turn in enumerate(value, start=1)
            ]
        elif isinstance(value, dict):
            messages.append(message_of(value, f"{row.where}: column {name!r}", columns.allow))
        elif isinstance(value, str):
            messages.append(Message(role, value))
        else:
            raise DataError(
                f"{row.where}: column {name!r} holds {show(value)}, expected a string or messages;"
                f" set data.columns.{field}=<column>"
            )
    return tuple(messages)
