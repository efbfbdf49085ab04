"""Conversations: all forms in which they are found become `Chat`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.data.records.chat_forms import messages_of
from jaxsft.data.records.chat_tools import tools_of
from jaxsft.data.records.fields import show, text_of
from jaxsft.data.records.media import MARK, without_marks, without_media
from jaxsft.data.records.messages import Message
from jaxsft.data.records.preferences import refuse_preference
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Chat(Record):
    """A conversation that ends with an assistant turn, and the tools it may call (JSON schemas)."""

    messages: tuple[Message, ...]
    tools: tuple = ()


def chat_record(row: Row, columns: Any) -> Chat:
    """Reads the conversation of a row, in whichever form it has one (`messages_of`).

    Raises:
      DataError: a column is missing, a message is malformed, there is no assistant turn, or the
        turns do not follow each other as they should (`data.columns.allow` takes them all the
        same).
    """
    chat = _conversation(row, columns, answered=True)
    return dataclasses.replace(chat, messages=_in_order(chat.messages, row.where, columns.allow))


def open_chat(row: Row, columns: Any) -> Chat:
    """Reads the conversation of a row whose answer is to be generated.

    An empty turn of the assistant stands for the answer; one that is there is replaced. Raises
    DataError.
    """
    chat = _conversation(row, columns, answered=False)
    given = chat.messages
    if given and given[-1].role == "assistant":
        given = given[:-1]
    if not given:
        raise DataError(f"{row.where}: there is nothing to answer; expected a prompt or messages")
    return Chat((*given, Message("assistant", "")), chat.tools)


def _conversation(row: Row, columns: Any, answered: bool) -> Chat:
    if answered:
        refuse_preference(row, columns)
    _, media = without_media(row.fields, f"{row.where}: the row", columns.allow)
    messages, tools = messages_of(row, columns, answered)
    messages = _with_system(row, columns, messages)
    messages = tuple(
        dataclasses.replace(
            m, content=_without_marks(m, f"{row.where}: message {i}", media, columns)
        )
        for i, m in enumerate(messages, start=1)
    )
    if asked := row.fields.get("chat_template_kwargs"):
        raise DataError(
            f"{row.where}: column 'chat_template_kwargs' holds {show(asked)}, but what a template"
            " is given is the same for all rows; set task.variables, and drop the column"
        )
    return Chat(messages, tools_of(row, columns, tools))


def _with_system(row: Row, columns: Any, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Puts the system message of a column of its own before the others."""
    name = columns.system or "system"
    value = row.fields.get(name, "" if columns.system else None)
    if value is None or (columns.system is None and not isinstance(value, str)):
        return messages
    if not (said := text_of(row, name, "data.columns.system")):
        return messages
    if messages and messages[0].role == "system":
        raise DataError(
            f"{row.where}: column {name!r} and the first message are both from the system,"
            " expected one; drop the column"
        )
    return (Message("system", said), *messages)


def _without_marks(message: Message, where: str, media: bool, columns: Any) -> str:
    if media:
        return MARK.sub("", message.content)
    return without_marks(message.content, message.role, where, columns.allow)


def _in_order(
    messages: tuple[Message, ...], where: str, allow: Sequence[str]
) -> tuple[Message, ...]:
    """Checks the order of turns, and cuts them behind the last answer where that is allowed.

    Raises DataError where the order is none of a conversation, unless `allow` takes it.
    """
    if all(message.role != "assistant" for message in messages):
        raise DataError(
            f"{where}: no message is from the assistant, so there is nothing to train on"
        )
    if messages[-1].role != "assistant":
        if "no_answer" not in allow:
            raise DataError(
                f"{where}: the last message is from {messages[-1].role!r}, expected 'assistant';"
                " remove what follows its last turn, or set data.columns.allow=[no_answer] to have"
                " it cut off"
            )
        messages = messages[: max(i for i, m in enumerate(messages) if m.role == "assistant") + 1]
    first = next(m for m in messages if m.role != "system")
    if first.role != "user" and "assistant_first" not in allow:
        raise DataError(
            f"{where}: the first turn is from {first.role!r}, expected 'user';"
            " data.columns.allow=[assistant_first] takes it"
        )
    for number, (one, other) in enumerate(itertools.pairwise(messages), start=2):
        if one.role == other.role != "tool" and "repeated_role" not in allow:
            raise DataError(
                f"{where}: messages {number - 1} and {number} are both from {one.role!r}, expected"
                " turns of different roles; join them, or set data.columns.allow=[repeated_role]"
            )
    return messages
