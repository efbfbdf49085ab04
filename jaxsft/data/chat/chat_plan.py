"""Plans that build the ids of a conversation from a rendered text; others can fill them too."""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsft.data.chat.provenance import Tracked, plain, sources
from jaxsft.data.chat.symbolic_values import SymbolicRun, reader
from jaxsft.data.tokenizers.tokenizer import Tokenizer

BETWEEN = "\x00"  # in `data_text`


@dataclasses.dataclass(slots=True)
class ChatLayout:
    """A rendered text with its trained regions and pieces.

    Regions are (start, end, message), pieces (start, end, id of a special token or None for
    plain text). `messages` is the number of messages that stand in the text.
    """

    text: Tracked
    regions: list[tuple[int, int, int]]
    pieces: list[tuple[int, int, int | None]]
    messages: int = 0

    def inside(self, number: int, tokenizer: Tokenizer) -> bool:
        """Returns whether a piece of plain text continues what stands before it.

        There the tokenizer adds no prefix space, as within a text.
        """
        return (
            number > 0
            and tokenizer.prefix != "none"
            and (tokenizer.prefix == "first" or self.pieces[number - 1][2] is None)
        )


@dataclasses.dataclass(slots=True)
class ChatPlan:
    """A plan of how the ids of conversations are put together.

    Attributes:
      parts: ids that are always the same, or None where a text is encoded.
      texts: per text that is encoded, what gives it for the data of a conversation, and whether it
        goes on with what stands before it.
      regions: (first part, end part, message) of each trained region.
      written: per piece, special tokens too, what gives its characters.
      borders: per region but the last, what gives the plain text before and behind its first
        character, up to the special tokens beside it.
      data: what gives each stretch of the text that the data wrote (`data_text`).
      messages: as of the layout.
    """

    parts: list[list[int] | None]
    texts: list[tuple[Callable[[Sequence[Any]], str], bool]]
    regions: list[tuple[int, int, int]]
    written: list[Callable[[Sequence[Any]], str]]
    borders: list[tuple[Callable[[Sequence[Any]], str], Callable[[Sequence[Any]], str], bool]] = (
        dataclasses.field(default_factory=list)
    )
    data: list[Callable[[Sequence[Any]], str]] = dataclasses.field(default_factory=list)
    messages: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as tokens.

    Attributes:
      ids: token ids.
      turns: (first token, end token, index of the message) of each trained region.
      turn_weights: the weight of the turn of each.
      others: further texts of the conversation, each up to an earlier turn that the template writes
        otherwise when later turns follow, and that is trained there as the model would have to
        write it.
    """

    ids: list[int]
    turns: tuple[tuple[int, int, int], ...]
    turn_weights: tuple[float, ...]
    _plan: ChatPlan
    _data: Sequence[Any]
    others: tuple[Rendered, ...] = ()

    @property
    def text(self) -> str:
        """Returns the text that the template wrote."""
        return "".join([part(self._data) for part in self._plan.written])

    @property
    def weights(self) -> np.ndarray:
        """Returns the weight of each token, `[ids]` float32: its turn's if trained, else 0."""
        weights = np.zeros(len(self.ids), np.float32)
        for (start, end, _), weight in zip(self.turns, self.turn_weights, strict=True):
            weights[start:end] = weight
        return weights


def plan_of(layout: ChatLayout, session: SymbolicRun | None, tokenizer: Tokenizer) -> ChatPlan:
    """Builds the plan of a layout.

    Neighbouring parts of constant ids are merged, but not across the border of a region.
    """
    plan, starts, part_of = ChatPlan([], [], [], []), [start for start, _, _ in layout.pieces], []
    insides = []
    first = lambda border: bisect.bisect_left(starts, border)  # a piece belongs to where it begins
    borders = {first(border) for start, end, _ in layout.regions for border in (start, end)}
    for number, (start, end, token) in enumerate(layout.pieces):
        pieces = (
            session.pieces(layout.text[start:end]) if session else [plain(layout.text[start:end])]
        )
        inside, fixed = layout.inside(number, tokenizer), session and _constant(pieces)
        ids = (
            [token]
            if token is not None
            else tokenizer.encode("".join(pieces), inside)
            if fixed
            else None
        )
        plan.written.append(_filled(pieces))
        insides.append(inside)
        if ids is not None and number not in borders and plan.parts and plan.parts[-1] is not None:
            plan.parts[-1] += ids
        else:
            plan.parts.append(ids)
            plan.texts += [(plan.written[-1], inside)] if ids is None else []
        part_of.append(len(plan.parts) - 1)
    at = lambda border: [*part_of, len(plan.parts)][first(border)]
    plan.regions = [(at(start), at(end), index) for start, end, index in layout.regions]
    for start, _, _ in layout.regions[:-1]:
        number = first(start)
        if (
            0 < number < len(layout.pieces)
            and layout.pieces[number][2] is None is layout.pieces[number - 1][2]
        ):
            plan.borders.append(
                (plan.written[number - 1], plan.written[number], insides[number - 1])
            )
    plan.data, plan.messages = _written_by_data(layout.text, session), layout.messages
    return plan


def data_text(text: Tracked) -> str:
    """Returns what the data wrote of a text, with `BETWEEN` for what the template put between.

    White space of the template counts as the data's: it may have split a content and joined it.
    """
    return BETWEEN.join(plain(text[start:end]) for start, end in _data_runs(text))


def _written_by_data(
    text: Tracked, session: SymbolicRun | None
) -> list[Callable[[Sequence[Any]], str]]:
    """Returns what gives the stretches that `data_text` joins."""
    runs = [text[start:end] for start, end in _data_runs(text)]
    return [_filled(session.pieces(run) if session else [plain(run)]) for run in runs]


def _data_runs(text: Tracked) -> list[tuple[int, int]]:
    runs, begin = [], 0
    for match in re.finditer(rb"\x00+", sources(text, 0, len(text))):
        start, end = match.span()
        if not plain(text[start:end]).isspace():
            runs.append((begin, start))
            begin = end
    return [run for run in (*runs, (begin, len(text))) if run[0] < run[1]]


def _constant(pieces: list) -> bool:
    return all(isinstance(piece, str) for piece in pieces)


def _filled(pieces: list) -> Callable[[Sequence[Any]], str]:
    """Returns a function from a conversation's data to the text of strings and expressions."""
    if _constant(pieces):
        text = "".join(pieces)
        return lambda data: text
    if len(pieces) == 1:
        return reader(pieces[0])
    parts = [_filled([piece]) for piece in pieces]
    return lambda data: "".join([part(data) for part in parts])
