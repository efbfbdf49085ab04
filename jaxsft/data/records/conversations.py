"""Conversations, in the forms in which they are found: OpenAI, ShareGPT, Alpaca, a prompt and its
completion. All become `Chat`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records import literals, turn_weights
from jaxsft.data.records.fields import show, text_of, without_none
from jaxsft.data.records.media import MARK, without_marks, without_media
from jaxsft.data.records.messages import (
    SPEAKERS,
    Message,
    joined_calls,
    json_of,
    message_of,
    shared_message,
)
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError

FORMS = ("messages", "sharegpt", "alpaca", "prompt")
LISTS = ("messages", "conversations")  # columns of turns, whichever form those have
# columns of answers that shall not be learnt
REJECTED = re.compile(r"(?:.*_)?(?:rejected|dispreferred|negatives?)(?:_.*)?", re.IGNORECASE)
JUDGED = (
    "label",
    "labels",
    "reward",
    "preference",
    "preferred",
    "desirable",
    "kto_tag",
    "chosen",
    "thumbs_up",
    "is_good",
    "is_chosen",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Chat(Record):
    """A conversation that ends with an assistant turn, and the tools it may call (JSON schemas)."""

    messages: tuple[Message, ...]
    tools: tuple = ()


def chat_record(row: Row, columns: Any) -> Chat:
    """Reads the conversation of a row, in the form that `form_of` returns.

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
    given = (
        chat.messages[:-1]
        if chat.messages and chat.messages[-1].role == "assistant"
        else chat.messages
    )
    if not given:
        raise DataError(f"{row.where}: there is nothing to answer; expected a prompt or messages")
    return Chat((*given, Message("assistant", "")), chat.tools)


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


def _conversation(row: Row, columns: Any, answered: bool) -> Chat:
    if answered:
        _no_preference(row, columns)
    form = _open_form(row, columns) if not answered else form_of(row, columns)
    _, media = without_media(row.fields, f"{row.where}: the row", columns.allow)
    inside: tuple = ()
    if form in ("messages", "sharegpt"):
        messages, inside = _with_tools(_listed(row, columns, form, answered), row.where)
    else:
        if answered:
            turn_weights.refuse(row, columns)
        messages = (
            _alpaca(row, columns, answered)
            if form == "alpaca"
            else _prompted(row, columns, answered)
        )
    system = columns.system or "system"
    if columns.system is not None or isinstance(row.fields.get(system), str):
        said = (
            text_of(row, system, "data.columns.system")
            if row.fields.get(system, "") is not None
            else ""
        )
        if said and messages and messages[0].role == "system":
            raise DataError(
                f"{row.where}: column {system!r} and the first message are both from the system,"
                " expected one; drop the column"
            )
        messages = ((Message("system", said),) if said else ()) + messages
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
    tools = _tools(
        row.fields.get(columns.tools or "tools"),
        f"{row.where}: column {columns.tools or 'tools'!r}",
    )
    if columns.tools is None and (former := _functions(row)):
        if tools or inside:
            raise DataError(
                f"{row.where}: the columns 'tools' and 'functions' are both there, expected one;"
                " drop a column"
            )
        tools = former
    if tools and inside:
        raise DataError(
            f"{row.where}: the column {columns.tools or 'tools'!r} and the first message both have"
            " tools, expected one; drop the column"
        )
    return Chat(messages, tools or inside)


def _without_marks(message: Message, where: str, media: bool, columns: Any) -> str:
    if media:
        return MARK.sub("", message.content)
    return without_marks(message.content, message.role, where, columns.allow)


def _no_preference(row: Row, columns: Any) -> None:
    """Raises DataError for a row of preferences, unless its answer is named on purpose."""
    if columns.messages is not None or columns.completion is not None:
        return
    fields, out = row.fields, "preference data, which jaxsft does not train on as such"
    chosen = fields.get("chosen")
    if there := [
        name
        for name, value in fields.items()
        if REJECTED.fullmatch(name) and value and isinstance(value, str | list | dict)
    ]:
        alone = isinstance(chosen, list) and "prompt" not in fields
        field = "messages" if alone or _has_prompt(chosen) else "completion"
        chosen = "chosen" if "chosen" in fields else "<column>"
        raise DataError(
            f"{row.where}: column {there[0]!r} holds an answer that was rejected: {out}; set"
            f" data.columns.{field}={chosen} to learn the good answers alone"
        )
    if judged := [name for name in JUDGED if _judges(name, fields.get(name))]:
        raise DataError(
            f"{row.where}: column {judged[0]!r} holds {show(fields[judged[0]])}, which says how"
            f" good the answer is: {out}; keep the rows with good answers and drop the column, or"
            " name that of the answers by data.columns.completion or data.columns.messages to"
            " learn them all"
        )


def _has_prompt(answer: Any) -> bool:
    """Returns whether an answer is a whole conversation: messages, one of which asks."""
    return isinstance(answer, list) and any(
        isinstance(turn, dict)
        and SPEAKERS.get(str(turn.get("role", turn.get("from")))) in ("user", "system")
        for turn in answer
    )


def _judges(name: str, value: Any) -> bool:
    """Returns whether a column grades an answer: it is true, false, 0, 1 or -1, or a `reward`."""
    return (
        isinstance(value, bool)
        or (isinstance(value, int) and value in (-1, 0, 1))
        or (name == "reward" and value is not None)
    )


def _functions(row: Row) -> tuple:
    """Returns the tools of a row in the older spelling of OpenAI, `functions`."""
    found = _tools(row.fields.get("functions"), f"{row.where}: column 'functions'")
    return tuple({"type": "function", "function": one} for one in found)


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


# --- forms
# --------------------------------------------------------------------------------------------------
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


# --- order
# --------------------------------------------------------------------------------------------------
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


def _with_tools(messages: tuple[Message, ...], where: str) -> tuple[tuple[Message, ...], tuple]:
    """Takes the tools out of the system message, where MiniMind writes them: (messages, tools)."""
    if not messages or messages[0].role != "system" or "tools" not in messages[0].extra:
        return messages, ()
    tools = _tools(messages[0].extra["tools"], f"{where}: the tools of message 1")
    first = dataclasses.replace(
        messages[0], extra={k: v for k, v in messages[0].extra.items() if k != "tools"}
    )
    return (first, *messages[1:]), tools


def _tools(tools: Any, where: str) -> tuple:
    # Arrow files keep schemas that differ by row as JSON text
    if isinstance(tools, str) and tools.strip():
        tools = json_of(tools, where, "a list of tools")
    if not tools:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{where} holds {show(tools)}, expected a list of objects")
    return tuple(without_none(tools))
