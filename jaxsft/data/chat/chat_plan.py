"""Plans that build the ids of a conversation from a rendered text; others can fill them too."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsft.data.chat.provenance import Tracked, plain
from jaxsft.data.chat.symbolic_values import SymbolicRun, reader
from jaxsft.data.tokenizers.tokenizer import Tokenizer


@dataclasses.dataclass(slots=True)
class Layout:
    """A rendered text with its trained regions and pieces.

    Regions are (start, end, message), pieces (start, end, id of a special token or None for
    plain text).
    """

    text: Tracked
    regions: list[tuple[int, int, int]]
    pieces: list[tuple[int, int, int | None]]

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
class Plan:
    """A plan of how the ids of conversations are put together.

    Attributes:
      parts: ids that are always the same, or None where a text is encoded.
      texts: per text that is encoded, what gives it for the data of a conversation, and whether it
        goes on with what stands before it.
      regions: (first part, end part, message) of each trained region.
      written: per piece, special tokens too, what gives its characters.
      borders: per region but the last, what gives the plain text before and behind its first
        character, up to the special tokens beside it.
    """

    parts: list[list[int] | None]
    texts: list[tuple[Callable[[Sequence[Any]], str], bool]]
    regions: list[tuple[int, int, int]]
    written: list[Callable[[Sequence[Any]], str]]
    borders: list[tuple[Callable[[Sequence[Any]], str], Callable[[Sequence[Any]], str], bool]] = (
        dataclasses.field(default_factory=list)
    )


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
    _plan: Plan
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


def plan_of(layout: Layout, session: SymbolicRun | None, tokenizer: Tokenizer) -> Plan:
    """Builds the plan of a layout.

    Neighbouring parts of constant ids are merged, but not across the border of a region.
    """
    plan, starts, part_of = Plan([], [], [], []), [start for start, _, _ in layout.pieces], []
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
    return plan


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
