"""Finds the assistant's turns in the text of a conversation.

They say what is trained, and how the text is cut into pieces that are encoded one by one.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxsft.data.chat.chat_plan import ChatLayout
from jaxsft.data.chat.provenance import (
    UNKNOWN,
    Tracked,
    plain,
    sources,
    template_runs,
    trained_runs,
)
from jaxsft.data.chat.symbolic_values import SymbolicRun
from jaxsft.data.records import Message
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError

# draft(messages, prompt): their text, or that of the prompt for the assistant's next turn
Draft = Callable[[Sequence[Message], bool], Tracked]
Match = tuple[int, int, int]  # (start, end, id) of a special token


class NoPrefix(DataError):
    """The error that the last answer does not begin with the prompt that generation would give."""

    def __init__(self, message: str, messages: Sequence[Message]) -> None:
        super().__init__(message)
        self.messages = messages


@dataclasses.dataclass
class Turns:
    """The finder of the turns of one template.

    Attributes:
      name: of the template, for errors.
      special: finds the strings of special tokens.
      marked: whether the template says by `{% generation %}` what is trained.
      stop_ids: the tokens that end a turn.
    """

    name: str
    tokenizer: Tokenizer
    special: re.Pattern[str]
    marked: bool
    stop_ids: tuple[int, ...] = ()

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.special_id(name) for name in self.tokenizer.special_strings)

    # --- texts
    # ----------------------------------------------------------------------------------------------
    def layouts(
        self, messages: Sequence[Message], draft: Draft, where: str, session: SymbolicRun | None
    ) -> list[ChatLayout]:
        """Returns the layouts that train each weighted turn as generation would ask for it.

        The longest comes first.

        A turn is trained in a text that begins with its prompt, and that goes on as the text that
        ends with this turn does, up to its stop token.

        Raises:
          DataError: an answer does not begin with its prompt.
        """
        left = [index for index, m in enumerate(messages) if m.role == "assistant" and m.weight > 0]
        found, end = [], len(messages)
        while left or not found:
            layout, left = self._layout(messages[:end], left, draft, where, session)
            if layout.regions or not left:
                found.append(layout)
            end = left[-1] + 1 if left else 0
        return found

    def _layout(
        self,
        messages: Sequence[Message],
        wanted: Sequence[int],
        draft: Draft,
        where: str,
        session: SymbolicRun | None,
    ) -> tuple[ChatLayout, list[int]]:
        """Returns the layout of the messages with its trained turns of `wanted`, and the others."""
        text = draft(messages, False)
        matches = self.matches(text, messages, where)
        extents, left = [], []
        for index in wanted:
            extent = self._extent(messages, index, text, matches, draft, where, session)
            if extent is None:
                left.append(index)
            else:
                extents.append((*extent, index))
        if session is None:  # of holes nobody can say it: `Template` asks it of each row
            apart = [
                index
                for begin, _, index in extents[:-1]
                if not self._cut_is_clean(text, begin, matches)
            ]
            extents, left = [e for e in extents if e[2] not in apart], sorted(left + apart)
        regions = [
            region for extent in extents for region in self._regions(text, *extent, matches, where)
        ]
        # Behind a special token a piece ends anyhow, with the white space that the token takes.
        ends = {end for _, end, _ in regions} - {end for _, end, _ in matches}
        cuts = {len(text), *ends, *(start for start, _, _ in regions)}
        pieces = self.pieces(text, cuts, matches)
        return ChatLayout(text, regions, pieces, len(messages)), left

    def _extent(
        self,
        messages: Sequence[Message],
        index: int,
        text: Tracked,
        matches: list[Match],
        draft: Draft,
        where: str,
        session: SymbolicRun | None,
    ) -> tuple[int, int] | None:
        """Returns (end of the prompt, end of the turn) of a message.

        None where it is written otherwise than if it were the last. Raises DataError where
        it is the last, and its prompt is no beginning of it.
        """
        before, last = draft(messages[:index], True), index == len(messages) - 1
        if not self.begins(text, before, matches):
            if session:
                session.sure(before, text, _agreed(before, text))
            if last:
                raise self._no_prefix(where, messages, before, text)
            return None
        if last:
            return len(before), len(text)
        alone = draft(messages[: index + 1], False)
        if self.begins(text, alone, matches):
            return len(before), len(alone)
        # What follows the stop token may depend on whether more turns come; the turn itself may
        # not.
        agreed = _agreed(alone, text)
        if session:
            session.sure(alone, text, agreed)
        ends = [
            end
            for start, end, token in matches
            if token in self.stop_ids and len(before) <= start and end <= agreed
        ]
        return (len(before), ends[-1]) if ends and self._only_stops(alone, ends[-1]) else None

    def begins(self, text: Tracked, beginning: Tracked, matches: list[Match] | None = None) -> bool:
        """Returns whether a text begins with another one, token by token.

        Special tokens must be the template's in both, for those of data are spelled out;
        others are compared whoever wrote them.
        """
        if not text.startswith(plain(beginning)):
            return False
        found = self.matches(text, (), "") if matches is None else matches
        of = lambda matches: [
            match
            for match in matches
            if match[1] <= len(beginning) and match[2] in self._special_ids
        ]
        return of(found) == of(self.matches(beginning, (), ""))

    def _regions(
        self, text: Tracked, begin: int, end: int, index: int, matches: list[Match], where: str
    ) -> list[tuple[int, int, int]]:
        """Returns the trained regions of a turn: all of it, or what the template marks in it."""
        runs = [(begin, end)]
        if self.marked:
            runs = [
                (max(a, begin), min(b, end)) for a, b in trained_runs(text) if a < end and b > begin
            ]
            if not runs:
                raise DataError(
                    f"{where}: template {self.name!r} marks 0 regions by {{% generation %}} in"
                    f" message {index + 1}, expected one for each turn that is trained; fix the"
                    " template"
                )
            if runs[0][0] > begin:
                raise DataError(
                    f"{where}: template {self.name!r}: the generation prompt of message {index + 1}"
                    f" ends with {text[:begin][-20:]!r}, but its trained region follows"
                    f" {text[: runs[0][0]][-20:]!r}; let {{% generation %}} begin where the"
                    " generation prompt ends"
                )
        start, stop = runs[-1]
        ends = [
            after
            for before, after, token in matches
            if token in self.stop_ids and start <= before and after <= stop
        ]
        if ends and is_blank(text, ends[-1], stop):
            runs[-1] = (start, ends[-1])
        return [(a, b, index) for a, b in runs]

    def _only_stops(self, text: Tracked, at: int) -> bool:
        """Returns whether only stop tokens and white space of the template follow `at`."""
        for start, end, token in self.matches(text, (), ""):
            if start >= at:
                if token not in self.stop_ids or not is_blank(text, at, start):
                    return False
                at = end
        return is_blank(text, at, len(text))

    def _cut_is_clean(self, text: Tracked, at: int, matches: list[Match]) -> bool:
        """Returns whether cutting a text at `at` leaves its tokens unchanged.

        Then a later turn sees in training what it sees in generation.
        """
        start = max((end for _, end, _ in matches if end <= at), default=0)
        stop = min((begin for begin, _, _ in matches if begin >= at), default=len(text))
        return clean_cut(
            self.tokenizer,
            plain(text[start:at]),
            plain(text[at:stop]),
            start > 0 and self.tokenizer.prefix != "always",
        )

    # --- special tokens
    # ----------------------------------------------------------------------------------------------
    def matches(self, text: Tracked, data: Any, where: str) -> list[Match]:
        """Returns (start, end, id) of the special tokens that the template itself wrote.

        Raises DataError where it is unclear whether `data` wrote one.
        """
        found = []
        for begin, stop in template_runs(text):
            for match in self.special.finditer(text, begin, stop):
                start, end = match.span()
                if UNKNOWN in sources(text, start, end) and any(
                    map(self.special.search, _strings(data))
                ):
                    raise DataError(
                        f"{where}: the row has text that looks like a special token, and template"
                        f" {self.name!r} cannot keep them apart ({match.group()!r} comes out of an"
                        " expression whose parts are lost); write it with + or separate outputs"
                    )
                found.append((start, end, self.tokenizer.special_id(match.group())))
        return found

    def ends_of(self, text: Tracked, prompt: Tracked) -> list[int]:
        """Returns the special tokens that the template writes behind the last turn.

        The turn answers `prompt`; only white space may stand between them.
        """
        at, found = len(text), []
        for start, end, token in reversed(self.matches(text, (), "")):
            if start < _agreed(prompt, text) or not is_blank(text, end, at):
                break
            found.insert(0, token)
            at = start
        return found

    def pieces(
        self, text: Tracked, cuts: set[int], matches: list[Match]
    ) -> list[tuple[int, int, int | None]]:
        """Cuts the text into pieces.

        Tokens that swallow the white space beside them (lstrip, rstrip) swallow it up to a
        cut.
        """
        pieces: list[tuple[int, int, int | None]] = []
        position, borders = 0, sorted(cuts)
        for start, end, token in [*matches, (len(text), len(text), None)]:
            left = start
            flags = self.tokenizer.added[plain(text[start:end])] if token is not None else {}
            while (
                flags.get("lstrip")
                and left > position
                and left not in cuts
                and text[left - 1].isspace()
            ):
                left -= 1
            while position < left:
                stop = min(borders[bisect.bisect_right(borders, position)], left)
                pieces.append((position, stop, None))
                position = stop
            position = max(end, position)
            while (
                flags.get("rstrip")
                and position < len(text)
                and position not in cuts
                and text[position].isspace()
            ):
                position += 1
            if token is not None:
                pieces.append((left, position, token))
        return pieces

    def _no_prefix(
        self, where: str, messages: Sequence[Message], prompt: Tracked, text: Tracked
    ) -> NoPrefix:
        agreed = _agreed(prompt, text)
        return NoPrefix(
            f"{where}: template {self.name!r}: the generation prompt of message {len(messages)} is"
            f" no prefix of the training text (prompt {plain(prompt)[agreed : agreed + 20]!r}, text"
            f" {plain(text)[agreed : agreed + 20]!r} at character {agreed})",
            messages,
        )


def clean_cut(tokenizer: Tokenizer, before: str, behind: str, inside: bool) -> bool:
    """Returns whether two neighbouring texts have the same tokens apart as together.

    `inside` is that of `Tokenizer.encode`, for the first.
    """
    if not before or not behind:
        return True
    return tokenizer.encode(before + behind, inside) == tokenizer.encode(
        before, inside
    ) + tokenizer.encode(behind, True)


def may_be_unclean(before: str, behind: str) -> bool:
    """Returns whether `clean_cut` must be called.

    Tokenizers separate white space from a word behind it.
    """
    return bool(before and behind) and (behind[0].isspace() or not before[-1].isspace())


def is_blank(text: Tracked, start: int, end: int) -> bool:
    """Returns whether the template, not the data, wrote these characters, all white space."""
    return not any(sources(text, start, end)) and not text[start:end].strip()


def _agreed(one: Tracked, other: Tracked) -> int:
    return len(os.path.commonprefix([plain(one), plain(other)]))


def _strings(*values: Any) -> list[str]:
    """Returns every string inside nested data."""
    found: list[str] = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, Message):
            found.extend(_strings(value.content, value.extra))
        elif isinstance(value, Mapping):
            found.extend(_strings(*value.keys(), *value.values()))
        elif isinstance(value, list | tuple):
            found.extend(_strings(*value))
    return found
