"""Typed records, made from rows once and checked for every row.

A parser takes a row and `columns`: an object with the attributes prompt, completion, messages, text, text_pair and label, each the name of a
column or None for the default name (that of the attribute; for text_pair None means that there is no pair).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.weights import Record
from jaxsft.errors import DataError

ROLES = ("system", "user", "assistant", "tool")


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` multiplies the loss of an assistant turn; `extra` holds the other fields, such as tool_calls or name."""

    role: str
    content: str
    weight: float = 1.0
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Chat(Record):
    """A conversation that ends with an assistant turn, and the tools it may call (JSON schemas)."""

    messages: tuple[Message, ...]
    tools: tuple = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Text(Record):
    """Running text."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledText(Record):
    """A text, or a pair of texts, and the name of its class."""

    text: str
    text_pair: str | None
    label: str


def chat_record(row: Row, columns: Any) -> Chat:
    """A row with `messages` (and perhaps `tools`), or with a prompt and its completion.

    Raises:
      DataError: a column is missing, a message is malformed, there is no assistant turn, or the last turn is not the assistant's.
    """
    named_pair = columns.prompt is not None or columns.completion is not None
    prompt, completion = columns.prompt or "prompt", columns.completion or "completion"
    if columns.messages is None and (named_pair or ("messages" not in row.fields and {prompt, completion} & row.fields.keys())):
        asked = _text(row, prompt, "data.columns.prompt")
        answer = _text(row, completion, "data.columns.completion")
        return Chat((Message("user", asked), Message("assistant", answer)))
    name = columns.messages or "messages"
    found = require_column(row, name, "data.columns.messages=<column>, or data.columns.prompt=<column> and data.columns.completion")
    if not isinstance(found, list) or not found:
        raise DataError(f"{row.where}: column {name!r} holds {_show(found)}, expected a list of messages with role and content")
    messages = tuple(_message(message, f"{row.where}: message {number}") for number, message in enumerate(found, start=1))
    if all(message.role != "assistant" for message in messages):
        raise DataError(f"{row.where}: no message is from the assistant, so there is nothing to train on")
    if messages[-1].role != "assistant":
        raise DataError(f"{row.where}: the last message is from {messages[-1].role!r}, expected 'assistant'; remove what follows its last turn")
    return Chat(messages, _tools(row))


def text_record(row: Row, columns: Any) -> Text:
    """A row with one text (which may be empty). Raises DataError if the column is missing or no string."""
    return Text(_text(row, columns.text or "text", "data.columns.text"))


def label_record(row: Row, columns: Any) -> LabelledText:
    """A row with a text, perhaps a second one, and a label. The label 3 and "3" are one, true is "true", 1.0 is "1".

    Raises:
      DataError: a column is missing, a text is no string, or a label is null, empty, or neither text, an integer nor a boolean.
    """
    text = _text(row, columns.text or "text", "data.columns.text")
    pair = None if columns.text_pair is None else _text(row, columns.text_pair, "data.columns.text_pair")
    name = columns.label or "label"
    return LabelledText(text, pair, _label(require_column(row, name, "data.columns.label"), f"{row.where}: column {name!r}"))


def _label(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str):
        raise DataError(f"{where} holds {_show(value)}, expected a label: text, an integer or a boolean")
    if not value.strip():
        raise DataError(f"{where} holds an empty label; remove the row or name its class")
    return value


def _text(row: Row, name: str, option: str) -> str:
    value = require_column(row, name, option)
    if not isinstance(value, str):
        raise DataError(f"{row.where}: column {name!r} holds {_show(value)}, expected a string; set {option}=<column>")
    return value


def _message(found: Any, where: str) -> Message:
    if not isinstance(found, dict):
        raise DataError(f"{where} is {_show(found)}, expected an object with role and content")
    fields = _without_none(found)
    role = fields.pop("role", None)
    if role not in ROLES:
        raise DataError(f"{where} has the role {_show(role)}, expected one of {', '.join(ROLES)}")
    if "content" not in found and not fields.get("tool_calls"):
        raise DataError(f"{where} has no content, expected a string (only a turn with tool_calls may go without)")
    content = fields.pop("content", "" if fields.get("tool_calls") else None)
    if not isinstance(content, str):
        raise DataError(f"{where} has the content {_show(content)}, expected a string (null only in a turn with tool_calls)")
    weight = _weight(fields.pop("weight", None), fields.pop("train", None), role, where)
    return Message(role, content, weight, fields)


def _weight(weight: Any, train: Any, role: str, where: str) -> float:
    if train is not None and not isinstance(train, bool):
        raise DataError(f"{where} has train={_show(train)}, expected true or false")
    number = 1.0 if weight is None else weight
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
        raise DataError(f"{where} has the weight {_show(weight)}, expected a finite number of at least 0")
    # Weights of other roles are never used; one that asks for something must not pass in silence.
    if role != "assistant" and (train or number not in (0, 1)):
        asked = "train=true" if train else f"the weight {number}"
        raise DataError(f"{where} has {asked} but the role {role!r}; only turns of the assistant are trained")
    return 0.0 if train is False else float(number)


def _tools(row: Row) -> tuple:
    tools = row.fields.get("tools")
    if isinstance(tools, str) and tools.strip():  # Arrow files keep schemas that differ by row as JSON text
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise DataError(f"{row.where}: column 'tools' holds broken JSON ({error}), expected a list of tools") from None
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{row.where}: column 'tools' holds {_show(tools)}, expected a list of objects")
    return tuple(_without_none(tool) for tool in tools)


def _without_none(value: Any) -> Any:
    """Null fields, which columnar files add to every struct, would reach the text of a template as "None"."""
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value


def _show(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
