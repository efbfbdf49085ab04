"""Checks whether a template leaves part of a conversation out, which would be lost silently."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from jaxsft.data.chat.chat_plan import BETWEEN, ChatLayout, ChatPlan, data_text
from jaxsft.data.chat.lost_text import SHOWN, LostText, lost_text
from jaxsft.data.chat.provenance import UNKNOWN, Tracked, plain, sources
from jaxsft.data.chat.symbolic_values import Looked, SymbolicRun, bases, holes_in, stripped
from jaxsft.data.chat.turns import Draft
from jaxsft.data.records import Chat, Message
from jaxsft.data.records.messages import MEANINGLESS, THOUGHTS
from jaxsft.errors import DataError


@dataclasses.dataclass(frozen=True)
class Losses:
    """The checks of one template for what it leaves out.

    Attributes:
      name: of the template, for errors.
      mentions: the names of fields that stand in its source.
      drafts: drafts(tools, where) gives what writes the text of messages.
    """

    name: str
    mentions: Collection[str]
    drafts: Callable[[tuple, str], Draft]

    def check_fields(self, chat: Chat, where: str) -> None:
        """Raises DataError for a field of a message that means something nobody knows: neither we
        nor the template read it.
        """
        for index, m in enumerate(chat.messages):
            for name, value in m.extra.items():
                if (
                    value in ("", [], {})
                    or name in MEANINGLESS
                    or name in self.mentions
                    or name == "tool_calls"
                ):
                    continue
                if name in THOUGHTS and any(
                    other in self.mentions for other in ("thinking", "reasoning_content")
                ):
                    continue
                draft, other = (
                    self.drafts(chat.tools, where),
                    {key: value for key, value in m.extra.items() if key != name},
                )
                without = [
                    *chat.messages[:index],
                    dataclasses.replace(m, extra=other),
                    *chat.messages[index + 1 :],
                ]
                if plain(draft(chat.messages, False)) == plain(
                    self.drafts(chat.tools, where)(without, False)
                ):
                    raise self._unwritten(f"the {name} of message {index + 1} ({m.role})", where)

    def check_thoughts(self, chat: Chat, layouts: Sequence[ChatLayout], where: str) -> None:
        """Raises DataError where the thought of a turn leaves no trace in the text in which this
        turn is trained.
        """
        for layout in layouts:
            for index in dict.fromkeys(index for _, _, index in layout.regions):
                m = chat.messages[index]
                if not any(str(m.extra.get(name) or "").strip() for name in THOUGHTS):
                    continue
                other = dataclasses.replace(
                    m, extra={key: value for key, value in m.extra.items() if key not in THOUGHTS}
                )
                draft = self.drafts(chat.tools, where)
                ends = [
                    n
                    for n in range(index + 1, len(chat.messages) + 1)
                    if plain(draft(chat.messages[:n], False)) == plain(layout.text)
                ]
                messages = [*chat.messages[:index], other, *chat.messages[index + 1 : ends[-1]]]
                if plain(self.drafts(chat.tools, where)(messages, False)) == plain(layout.text):
                    raise self._unwritten(
                        f"the {next(name for name in THOUGHTS if name in m.extra)} of message"
                        f" {index + 1}",
                        where,
                    )

    def check_prompt(
        self, messages: Sequence[Message], tools: tuple, text: Tracked, where: str
    ) -> None:
        """Raises DataError where a prompt does not hold a text of its messages."""
        if lost := lost_text(messages, tools, data_text(text), ()):
            raise self.cut(lost, where)

    def lost(self, chat: Chat, plans: Sequence[ChatPlan], data: Sequence[Any]) -> LostText | None:
        """Returns the first text of a conversation that one of its texts does not hold."""
        for plan in plans:
            written = BETWEEN.join([run(data) for run in plan.data])
            trained = {index for _, _, index in plan.regions}
            messages = chat.messages[: plan.messages]
            if found := lost_text(messages, chat.tools, written, trained):
                return found
        return None

    def cut(self, lost: LostText, where: str) -> DataError:
        """Returns the error of what `lost` found."""
        shown = lost.missing[:SHOWN] + "..." * (len(lost.missing) > SHOWN)
        return DataError(
            f"{where}: template {self.name!r} does not write {lost.what} as it stands: {shown!r}"
            " would be lost; use another task.template, or set task.allow_unwritten=true"
        )

    def check_written(self, chat: Chat, text: Tracked, where: str) -> None:
        """Raises DataError where a message, tool call or tool leaves no trace in the text."""

        def same_without(messages: Sequence[Message], tools: tuple) -> bool:
            return plain(self.drafts(tools, where)(tuple(messages), False)) == plain(text)

        # Only where nothing but contents can have been written does their length say that all are
        # there.
        plain_row, found = (
            not chat.tools and not any(m.extra for m in chat.messages),
            sources(text, 0, len(text)),
        )
        if (
            not plain_row
            or UNKNOWN in found
            or len(text) - found.count(0) < sum(len(m.content.strip()) for m in chat.messages)
        ):
            for index, m in enumerate(chat.messages):
                other = dataclasses.replace(m, content="1" if m.content.strip() == "0" else "0")
                if m.content.strip() and same_without(
                    [*chat.messages[:index], other, *chat.messages[index + 1 :]], chat.tools
                ):
                    raise self._unwritten(f"the content of message {index + 1} ({m.role})", where)
        for index, m in enumerate(chat.messages):
            if m.extra.get("tool_calls"):
                other = dataclasses.replace(
                    m, extra={k: v for k, v in m.extra.items() if k != "tool_calls"}
                )
                if same_without(
                    [*chat.messages[:index], other, *chat.messages[index + 1 :]], chat.tools
                ):
                    raise self._unwritten(f"the tool calls of message {index + 1}", where)
        if chat.tools and same_without(chat.messages, ()):
            raise self._unwritten("the tools", where)

    def check_all_placed(
        self, chat: Chat, text: Tracked, layouts: Sequence[ChatLayout], session: SymbolicRun
    ) -> None:
        """Raises Looked unless something of each message that is not blank, of its calls and of the
        tools is in the text, and of the thought of each trained turn in that where it is trained.
        """
        placed = lambda one: set().union(
            *[bases(piece) for piece in session.pieces(one) if not isinstance(piece, str)]
        )
        there = placed(text)
        blank = {
            number
            for (kind, expression, *_), answer in session.asked.items()
            if kind == "bool" and not answer and (number := stripped(expression)) is not None
        }
        lost = [i for i in range(len(chat.messages)) if i not in there | blank]
        objects = [m.extra["tool_calls"] for m in chat.messages if m.extra.get("tool_calls")] + (
            [chat.tools] if chat.tools else []
        )
        if lost or not all(there & holes_in(part) for part in objects):
            raise Looked
        for layout in layouts:
            found = placed(layout.text) | blank
            thoughts = [
                chat.messages[index].extra.get(name)
                for _, _, index in layout.regions
                for name in THOUGHTS
            ]
            if not all(found & holes_in(part) for part in thoughts if part is not None):
                raise Looked

    def _unwritten(self, what: str, where: str) -> DataError:
        return DataError(
            f"{where}: template {self.name!r} does not write {what}, so that it would be lost; use"
            " another task.template, or set task.allow_unwritten=true"
        )
