"""What a chat template is found to do with example conversations, before it meets a row."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from jaxsft.data.chat.drafting import Drafting
from jaxsft.data.chat.provenance import Tracked, sources
from jaxsft.data.chat.template_variables import literal
from jaxsft.data.chat.turns import Turns
from jaxsft.data.records import Message
from jaxsft.data.records.messages import THOUGHTS
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError

_PROBES = (("ab", "cd"), ("ab", "\ncd"), ("ab\n", "cd"), ("ab", " cd"), ("Ab", "cD"))
PROBE = "probe conversation"
_CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": "b"}}}
_PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "string", "description": "h"}},
    "required": ["a"],
}
_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "g", "parameters": _PARAMETERS},
}
HELLO = (
    Message("user", "a"),
    Message("assistant", "b"),
    Message("user", "c"),
    Message("assistant", "d"),
)


def check_tokenizer(tokenizer: Tokenizer, template: str) -> None:
    """Raises ConfigError where texts in pieces do not give back the whole text."""
    for left, right in _PROBES:
        pieces = tokenizer.encode(left) + tokenizer.encode(right, inside=True)
        if tokenizer.decode(pieces) != left + right:
            raise ConfigError(
                f"template {template!r} needs a tokenizer that encodes text in pieces, but"
                f" {left!r} and {right!r} do not give back {left + right!r} (it drops white"
                " space, or folds case); use one that keeps a text as it is, or task=lm"
            )


def probe(drafts: Drafting, turns: Turns, bos: int | None) -> tuple[tuple[int, ...], bool]:
    """Returns (the stop tokens, whether BOS comes once).

    A question and its answer give the stop tokens, three turns whether BOS comes once, and both the
    form in which contents and calls are read, which `drafts` has from then on. Raises ConfigError
    where the template cannot write them.
    """
    try:
        text = _text(drafts)
        stops = turns.ends_of(text, drafts((), PROBE)(HELLO[:1], True))
    except DataError as error:
        raise ConfigError(str(error)) from None
    call = _call(drafts, turns)
    once = True
    with contextlib.suppress(DataError):
        text = drafts((), PROBE)((*HELLO, *HELLO[:2]), False)
        found = 0 if bos is None else sum(m[2] == bos for m in turns.matches(text, (), PROBE))
        once = found <= 1
    return tuple(dict.fromkeys((*stops, *(call[-1:] if stops else ())))), once


def _text(drafts: Drafting) -> Tracked:
    """Returns the text of a question and its answer.

    Where contents are only written as lists of parts, they are given so from then on.
    """
    for drafts.in_parts in (False, True):
        with contextlib.suppress(DataError):
            text = drafts((), PROBE)(HELLO[:2], False)
            if any(sources(text, 0, len(text))):
                return text
    drafts.in_parts = False
    return drafts((), PROBE)(HELLO[:2], False)


def _call(drafts: Drafting, turns: Turns) -> list[int]:
    """Returns the tokens that end a tool call, where the template writes one."""
    messages = (HELLO[0], Message("assistant", "", 1.0, {"tool_calls": [_CALL]}))
    for drafts.text_arguments in (False, True):
        with contextlib.suppress(DataError):
            draft = drafts((_TOOL,), PROBE)
            text, prompt = draft(messages, False), draft(messages[:1], True)
            written = text.startswith(prompt) and any(sources(text, len(prompt), len(text)))
            return turns.ends_of(text, prompt) if written else []
    drafts.text_arguments = False
    return []


def what_fits(
    drafts: Drafting,
    turns: Turns,
    names: Collection[str],
    messages: Sequence[Message],
    tools: tuple,
    where: str,
) -> str:
    """Returns a hint on what would make an answer begin with its prompt.

    It is a value of one of the variables `names`, or a thought where the prompt opens one.
    """

    def fits(answer: Message, **variables: Any) -> bool:
        other = dataclasses.replace(drafts, variables=drafts.variables | variables)
        try:
            draft = other(tools, where)
            return turns.begins(draft([*messages[:-1], answer], False), draft(messages[:-1], True))
        except DataError:
            return False

    last = messages[-1]
    ways = [
        f"task.variables={{{name}: {literal(v)}}}"
        for name in sorted(names)
        if "think" in name
        for v in (True, False)
        if fits(last, **{name: v})
    ]
    if fits(dataclasses.replace(last, extra={**last.extra, THOUGHTS[0]: "a"})):
        ways.append(f"an answer with a thought ({THOUGHTS[0]})")
    if fits(dataclasses.replace(last, content="<think>\na\n</think>\n\n" + last.content)):
        ways.append("a content that begins with its thought ('<think>\\n...\\n</think>\\n\\n')")
    if ways:
        return "what would fit: " + ", or ".join(ways)
    return (
        "no thought and no variable makes an answer fit, for the template writes it otherwise"
        " than it asks for it; take a task.template whose answers begin as its prompt ends, or"
        ' leave the turn out by "train": false'
    )
