"""The turns of a conversation, however their roles, contents, weights, thoughts and calls are
spelled. Every key of a turn is read, or known to mean nothing, or an error: here, or where the
template that does not read it is known (`templates.py`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft import documents
from jaxsft.data.records.fields import show, without_none
from jaxsft.data.records.media import MARK, is_media, without_media
from jaxsft.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
# What the roles are called elsewhere. A function_call is a turn of the assistant, an observation
# one of the tool.
SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
SPEAKERS |= {
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
    "ipython": "tool",
    "developer": "system",
}
SPEAKERS |= {role: role for role in ROLES}
CALLS = ("function_call", "tool_call")
# Whether a turn is trained, by the names that it has in files for other tools, and what each says
# by true.
FLAGS = {
    "train": True,
    "trainable": True,
    "training": True,
    "loss": True,
    "loss_mask": True,
    "masked": False,
}
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
# Fields of a turn that say nothing to a model, unless its template reads them.
MEANINGLESS = frozenset(
    (
        "name",
        "id",
        "tool_call_id",
        "message_id",
        "parent_id",
        "index",
        "timestamp",
        "created_at",
        "updated_at",
        "model",
        "end_turn",
    )
)
_TEXTS = ("text", "input_text", "output_text")  # the types of parts that are text


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` multiplies the loss of an assistant turn; `extra` holds the other fields,
    such as tool_calls or name.
    """

    role: str
    content: str
    weight: float = 1.0
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def message_of(found: Any, where: str, allow: Sequence[str] = ()) -> Message:
    """Builds a message from a turn with role and content; `allow` is `data.columns.allow`.

    Raises DataError.
    """
    if not isinstance(found, dict):
        raise DataError(f"{where} is {show(found)}, expected an object with role and content")
    fields = {key: part for key, part in without_none(found).items() if part is not None}
    role = fields.pop("role", None)
    if not isinstance(role, str) or role not in SPEAKERS:
        raise DataError(
            f"{where} has the role {show(role)}, expected one of"
            f" {', '.join(dict.fromkeys((*ROLES, *SPEAKERS)))}"
        )
    role = SPEAKERS[role]
    if "function_call" in fields:
        fields = _with_former_call(fields, where)
    if "content" not in found and not fields.get("tool_calls"):
        raise DataError(
            f"{where} has no content, expected a string (only a turn with tool_calls may go"
            " without)"
        )
    if "tool_calls" in fields:
        fields["tool_calls"] = _tool_calls(fields["tool_calls"], role, where)
        if not fields["tool_calls"]:
            del fields["tool_calls"]
    fields, media = without_media(fields, where, allow)
    content = _content(
        fields.pop("content", "" if fields.get("tool_calls") else None), where, allow
    )
    content = MARK.sub("", content) if media else content
    weight = _weight(
        fields.pop("weight", None),
        {name: fields.pop(name) for name in FLAGS if name in fields},
        role,
        where,
    )
    return Message(role, content, weight, _thoughts(fields, where))


def shared_message(found: Any, where: str, allow: Sequence[str] = ()) -> Message:
    """Builds a message from a turn of ShareGPT, with `from` and `value`.

    A function_call becomes the assistant's tool call, an observation the tool's turn. Raises
    DataError.
    """
    if not isinstance(found, dict):
        raise DataError(f"{where} is {show(found)}, expected an object with from and value")
    speaker, value = found.get("from"), found.get("value")
    if not isinstance(speaker, str) or (speaker not in SPEAKERS and speaker not in CALLS):
        raise DataError(
            f"{where} is from {show(speaker)}, expected one of {', '.join([*SPEAKERS, *CALLS])}"
        )
    if twice := [key for key in ("role", "content") if found.get(key) is not None]:
        raise DataError(
            f"{where} has both from and {twice[0]}, expected one form; remove {twice[0]}"
        )
    rest = {key: part for key, part in found.items() if key not in ("from", "value")}
    if speaker not in CALLS:
        return message_of({"role": SPEAKERS[speaker], "content": value, **rest}, where, allow)
    if isinstance(value, str):
        value = json_of(value, where, "a call with name and arguments")
    calls = value if isinstance(value, list) else [value]
    return message_of(
        {"role": "assistant", "content": None, "tool_calls": calls, **rest}, where, allow
    )


def joined_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Joins a call that follows the assistant's own words or calls to the turn before it."""
    out: list[Message] = []
    for message in messages:
        before = out[-1] if out else None
        if (
            before is not None
            and before.role == "assistant"
            and "tool_calls" in message.extra
            and not message.content
            and message.weight == before.weight
        ):
            calls = [*before.extra.get("tool_calls", ()), *message.extra["tool_calls"]]
            out[-1] = dataclasses.replace(
                before, extra={**before.extra, **message.extra, "tool_calls": calls}
            )
        else:
            out.append(message)
    return tuple(out)


# --- content
# --------------------------------------------------------------------------------------------------
def _content(found: Any, where: str, allow: Sequence[str]) -> str:
    """Returns the text of a content: a string, or the joined parts of OpenAI's API.

    Raises DataError.
    """
    if isinstance(found, list) and found and all(isinstance(part, dict) for part in found):
        texts = [part for part in found if part.get("type") in _TEXTS]
        if others := [part for part in found if part.get("type") not in _TEXTS]:
            what = f"{where} has a part of the type {show(others[0].get('type'))}"
            if not is_media(others[0]):
                raise DataError(
                    f"{what}, expected parts of the type text; write its content as a string"
                )
            if "media" not in allow:
                raise DataError(
                    f"{what}, which a model of texts cannot see; set data.columns.allow=[media] to"
                    " leave such parts out"
                )
            if wrong := [part for part in others if not is_media(part)]:
                raise DataError(
                    f"{where} has a part of the type {show(wrong[0].get('type'))}, expected parts"
                    " of the type text"
                )
        if odd := [part for part in texts if not isinstance(part.get("text"), str)]:
            raise DataError(f"{where} has the part {show(odd[0])}, expected a string as its text")
        return "".join(part["text"] for part in texts)
    if not isinstance(found, str):
        raise DataError(
            f"{where} has the content {show(found)}, expected a string (null only in a turn with"
            " tool_calls)"
        )
    return found


def _thoughts(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks the thoughts of a turn. Raises DataError where one is no text, or two differ.

    Returns the fields unchanged.
    """
    found = {name: fields[name] for name in THOUGHTS if name in fields}
    for name, value in found.items():
        if not isinstance(value, str):
            raise DataError(f"{where} has the {name} {show(value)}, expected a string")
    if len({*found.values()}) > 1:
        raise DataError(
            f"{where} has {' and '.join(found)}, which differ, expected one thought; remove the"
            " others"
        )
    return fields


# --- calls
# --------------------------------------------------------------------------------------------------
def _with_former_call(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the fields with a `function_call`, OpenAI's older spelling, as a tool call.

    Raises DataError.
    """
    if fields.get("tool_calls"):
        raise DataError(
            f"{where} has both function_call and tool_calls, expected one; remove function_call"
        )
    call = fields["function_call"]
    if isinstance(call, str):
        call = json_of(call, f"{where}: function_call", "an object with name and arguments")
    if not isinstance(call, dict):
        raise DataError(
            f"{where} has the function_call {show(call)}, expected an object with name and"
            " arguments"
        )
    rest = {name: value for name, value in fields.items() if name != "function_call"}
    return rest | {"tool_calls": [{"type": "function", "function": call}]}


def _tool_calls(found: Any, role: str, where: str) -> list[dict[str, Any]]:
    """Converts tool calls to the form of templates.

    That is `{"type": "function", "function": {"name", "arguments": {...}}}`. They may be a JSON
    string of the list, have arguments as a JSON string, or be name and arguments alone (Qwen,
    MiniMind). Raises DataError.
    """
    if isinstance(found, str):
        found = json_of(found, f"{where}: tool_calls", "a list of calls")
    if role != "assistant" and found:
        raise DataError(
            f"{where} has tool_calls but the role {role!r}; only the assistant calls tools"
        )
    if not isinstance(found, list) or not all(isinstance(call, dict) for call in found):
        raise DataError(f"{where} has the tool_calls {show(found)}, expected a list of objects")
    return [_tool_call(call, where) for call in found]


def _tool_call(call: dict[str, Any], where: str) -> dict[str, Any]:
    framed = isinstance(call.get("function"), dict)
    inner = (
        dict(call["function"])
        if framed
        else {k: v for k, v in call.items() if k in ("name", "arguments", "parameters")}
    )
    if "parameters" in inner and "arguments" not in inner:
        inner["arguments"] = inner.pop("parameters")
    if not isinstance(inner.get("name"), str) or not inner["name"]:
        raise DataError(
            f"{where} has the tool call {show(call)}, expected the name of a function and its"
            " arguments"
        )
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        arguments = (
            json_of(arguments, f"{where}: the arguments of {inner['name']}", "an object")
            if arguments.strip()
            else {}
        )
    if not isinstance(arguments, dict | None):
        raise DataError(
            f"{where}: the arguments of {inner['name']} are {show(arguments)}, expected an object"
            " by name"
        )
    inner["arguments"] = arguments or {}
    outer = (
        {k: v for k, v in call.items() if k != "function"}
        if framed
        else {k: v for k, v in call.items() if k not in (*inner, "parameters")}
    )
    return {**{k: v for k, v in outer.items() if v is not None}, "function": inner}


# --- weights
# --------------------------------------------------------------------------------------------------
def _weight(weight: Any, flags: Mapping[str, Any], role: str, where: str) -> float:
    """Returns the factor by which the loss of a turn is multiplied.

    Raises DataError where two of them contradict each other, or a turn that is not the assistant's
    has one.
    """
    said: dict[str, bool] = {}
    for name, value in flags.items():
        if not (
            isinstance(value, bool)
            or (
                name in ("loss", "loss_mask") and value in (0, 1) and isinstance(value, int | float)
            )
        ):
            raise DataError(f"{where} has {name}={show(value)}, expected true or false")
        said[name] = bool(value) is FLAGS[name]
    number = 1.0 if weight is None else weight
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not math.isfinite(number)
        or number < 0
    ):
        raise DataError(
            f"{where} has the weight {show(weight)}, expected a finite number of at least 0"
        )
    if len(meant := {*said.values(), *([] if weight is None else [number > 0])}) > 1:
        keys = [f"{name}={json.dumps(flags[name])}" for name in said] + (
            [] if weight is None else [f"weight={weight}"]
        )
        raise DataError(f"{where} has {' and '.join(keys)}, which contradict each other; keep one")
    # Weights of other roles are never used; one that asks for something must not pass in silence.
    asked = next(
        (f"{name}={json.dumps(flags[name])}" for name, trained in said.items() if trained), None
    )
    if role != "assistant" and (asked or number not in (0, 1)):
        raise DataError(
            f"{where} has {asked or f'the weight {number}'} but the role {role!r}; only turns of"
            " the assistant are trained"
        )
    return 0.0 if False in meant else float(number)


def json_of(text: str, where: str, expected: str) -> Any:
    """Parses JSON text. Raises DataError, which says what was `expected`."""
    try:
        return documents.decode(text)
    except ValueError as error:
        raise DataError(f"{where} holds broken JSON ({error}), expected {expected}") from None
