"""Finds the text of a conversation that a template cuts off, drops in part or changes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from jaxsft.data.records import Message
from jaxsft.data.records.messages import THOUGHTS

SHOWN = 40  # characters of what is lost, in errors
_CHANCE = 3  # so few characters may stand anywhere
_LAST_WORD = re.compile(r"(\w+|\W)\Z")


@dataclasses.dataclass(frozen=True)
class LostText:
    """A text of a conversation that its template does not write as it stands.

    Attributes:
      what: the text is, such as "the content of message 2 (user)".
      missing: the part of it that is not there.
    """

    what: str
    missing: str


def lost_text(
    messages: Sequence[Message], tools: tuple, written: str, trained: Collection[int]
) -> LostText | None:
    """Returns the first text of messages and tools that `written` does not hold; None: all there.

    The texts stand in the order of the messages, but for those of the system, which templates put
    anywhere. White space around a text may be missing, and it may be spelled as in JSON. Templates
    drop the thoughts of earlier answers, however those are marked: of an answer that others follow
    and that is not trained here, only the last word is asked for.

    Args:
      messages: of the text.
      tools: of the conversation; their names are asked for.
      written: what the data wrote of the text, as `data_text` gives it.
      trained: the indices of messages that the text trains.
    """
    at = 0
    for index, message in enumerate(messages):
        start, end = 0 if message.role == "system" else at, at
        whole = index in trained or message.role != "assistant" or index == len(messages) - 1
        for what, text, follows in _texts(message, whole, index in trained):
            found = _end(written, text, end if follows else start)
            if found < 0:
                missing = _missing(written, text, start)
                return LostText(f"{what} of message {index + 1} ({message.role})", missing)
            end = max(end, found)
        at = at if message.role == "system" else end
    called = [_name_of(call) for message in messages for call in _calls(message)]
    for name in map(_name_of, tools):
        if written.count(name) <= called.count(name):  # a call of it says the name as well
            return LostText(f"the tool {name!r}", name)
    return None


def _texts(message: Message, whole: bool, trained: bool) -> Iterator[tuple[str, str, bool]]:
    """Yields (what it is, text, whether it stands behind the one before) of a message.

    Without `whole`, those of an answer whose beginning may be missing; thoughts of trained ones.
    """
    content = message.content
    if message.role == "assistant" and "</think>" in content:
        before, _, content = content.rpartition("</think>")
        lead, _, thought = before.rpartition("<think>")
        if whole and (lead := lead.strip()):
            yield "the content", lead, True
        if trained and (thought := thought.strip()):
            yield "the thought in the content", thought, True
    if content := content.strip():
        yield "the content", content if whole else _LAST_WORD.search(content)[0], True
    if not message.extra:
        return
    for name in THOUGHTS:
        thought = message.extra.get(name)
        if trained and isinstance(thought, str) and thought.strip():
            yield f"the {name}", thought.strip(), False
    for call in _calls(message):
        function = call.get("function") or {}
        for leaf in (_name_of(call), *_strings(function.get("arguments"))):
            if leaf := leaf.strip():
                yield "a tool call", leaf, False


def _calls(message: Message) -> Sequence[Any]:
    return message.extra.get("tool_calls") or () if message.extra else ()


def _name_of(tool: Any) -> str:
    """Returns the name of a tool or call, "" where it has none."""
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name.strip() if isinstance(name, str) else ""


def _strings(value: Any) -> Iterator[str]:
    """Yields the strings of arguments, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _strings(pair)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


def _end(written: str, text: str, start: int) -> int:
    """Returns where a text ends that begins at `start` or later; -1: it is not there."""
    if (found := written.find(text, start)) >= 0:
        return found + len(text)
    for spelling in _spellings(text):
        if (found := written.find(spelling, start)) >= 0:
            return found + len(spelling)
    return -1


def _spellings(text: str) -> set[str]:
    """Returns a text as JSON and lists write it, and as JSON inside JSON does."""
    once = {json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (False, True)}
    twice = {json.dumps(one, ensure_ascii=ascii)[1:-1] for one in once for ascii in (False, True)}
    return (once | twice | {repr(text)[1:-1]}) - {text}


def _missing(written: str, text: str, start: int) -> str:
    """Returns the part of a text that is not there: what lies behind its longest beginning that is
    there, and before its longest end behind that one.
    """
    head = _longest(len(text), lambda n: written.find(text[:n], start) >= 0)
    behind = written.find(text[:head], start) + head
    tail = _longest(len(text) - head, lambda n: written.find(text[len(text) - n :], behind) >= 0)
    head, tail = (n if n > _CHANCE else 0 for n in (head, tail))
    return text[head : len(text) - tail]


def _longest(most: int, there: Any) -> int:
    """Returns the largest n up to `most` for which `there(n)` is true, by halving."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if there(middle) else (low, middle - 1)
    return low
