"""A needle in a haystack: one sentence with a value, put into a long text at some depth, and
whether a model that is asked for the value finds it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsft.config.option import option
from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds

_piece = re.compile(r"\S{1,12}\s*")  # a word, or a part of a text without spaces
_ends = re.compile(r".*[.!?。！？؟।]['\"”’)\]]*\s*", re.DOTALL)
DIGITS = 5  # of a value


@dataclasses.dataclass(frozen=True)
class NeedleOptions:
    """The sentences that are hidden, the places, and the question."""

    lengths: list[int] = option([256, 512, 1024], "tokens of the whole prompt")
    depths: list[float] = option([0.0, 0.25, 0.5, 0.75, 1.0], "where the needle stands, 0 to 1")
    trials: int = option(20, "needles in each cell", at_least=1)
    needle: str = option(
        "The secret number of {key} is {value}.", "the sentence, with {key} and {value}"
    )
    question: str = option(
        "What is the secret number of {key}? Answer with the number.",
        "what is asked behind the text, with {key}",
    )
    keys: list[str] = option(
        ["Lisbon", "Nairobi", "Kyoto", "Quito", "Oslo", "Cairo", "Hanoi", "Lima"],
        "what a needle is about, drawn for each",
    )

    def check(self) -> None:
        """Raises ConfigError for what cannot be a needle, a length or a depth."""
        if not self.lengths or min(self.lengths) < 1:
            raise ConfigError(f"lengths={[*self.lengths]}: expected numbers of tokens above 0")
        if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f"depths={[*self.depths]}: expected shares from 0 to 1")
        for name, text, slots in (
            ("needle", self.needle, ("{key}", "{value}")),
            ("question", self.question, ("{key}",)),
        ):
            if missing := [slot for slot in slots if slot not in text]:
                raise ConfigError(f"{name}={text}: has no {missing[0]}")
        if not self.keys:
            raise ConfigError("keys=[]: name one at least")


@dataclasses.dataclass(frozen=True)
class Needle:
    """A needle: what it is about, its value, and the piece that its haystack begins with."""

    key: str
    value: str
    start: int


def needles(options: NeedleOptions, pieces: int, seed: int) -> list[Needle]:
    """Draws the needles; each is a function of the seed and its number, the same in all cells."""
    out = []
    for i in range(options.trials):
        draw = np.random.default_rng([seed, i])
        key = options.keys[int(draw.integers(len(options.keys)))]
        value = str(int(draw.integers(10 ** (DIGITS - 1), 10**DIGITS)))
        out.append(Needle(key, value, int(draw.integers(pieces))))
    return out


def pieces_of(text: str) -> list[str]:
    """Returns what a text can be cut between; joined they are the text from its first letter."""
    return _piece.findall(text)


def place_of(pieces: Sequence[str], depth: float) -> int:
    """Returns before which piece a needle at a depth stands: at the end of a sentence, the last one
    before that depth; where there is none, at the depth itself.
    """
    asked = round(depth * len(pieces))
    if asked == len(pieces):
        return asked
    return next((i for i in range(asked, 0, -1) if _ends.fullmatch(pieces[i - 1])), asked)


def haystack(pieces: Sequence[str], needle: str, depth: float) -> tuple[str, float]:
    """Returns the text with a needle in it, and the share of the text before the needle."""
    at = place_of(pieces, depth)
    before, after = "".join(pieces[:at]), "".join(pieces[at:])
    gap = " " if before and not before[-1].isspace() else ""
    share = len(before) / max(len(before) + len(after), 1)
    return f"{before}{gap}{needle} {after}".strip(), share


def prompt_of(
    pieces: Sequence[str],
    trial: Needle,
    depth: float,
    length: int,
    options: NeedleOptions,
    encode: Callable[[str], Sequence[int]],
) -> tuple[Sequence[int], float]:
    """Returns the prompt with as much of the text as fits into `length` tokens, and how deep its
    needle stands.

    Args:
      pieces: of the filler, which begins at the needle's place and again where it ends.
      encode: gives the ids of a prompt, template included.

    Raises ConfigError where the needle and the question alone are longer.
    """
    needle = options.needle.replace("{key}", trial.key).replace("{value}", trial.value)
    question = options.question.replace("{key}", trial.key)

    def made(count: int) -> tuple[Sequence[int], float]:
        text = [pieces[(trial.start + i) % len(pieces)] for i in range(count)]
        hay, share = haystack(text, needle, depth)
        return encode(f"{hay}\n\n{question}"), share

    best, low, high = made(0), 0, length
    if len(best[0]) > length:
        raise ConfigError(
            f"lengths=[{length}]: the needle and the question alone have {len(best[0])} tokens"
        )
    while len(made(high)[0]) <= length:  # a token may hold several pieces
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        found = made(middle)
        if len(found[0]) <= length:
            low, best = middle, found
        else:
            high = middle
    return best


def is_exact(answer: str, value: str) -> bool:
    """Returns whether an answer is the value, but for a mark and blanks at its end."""
    return answer.strip().rstrip(".。!").strip() == value


def is_contained(answer: str, value: str) -> bool:
    """Returns whether the value stands in an answer, and not as a part of a longer number."""
    return re.search(rf"(?<!\d){re.escape(value)}(?!\d)", answer) is not None


def check_room(options: NeedleOptions, context: int, new: int) -> None:
    """Raises ConfigError for a length that does not fit into the context with its answer."""
    if too_long := [length for length in options.lengths if length + new > context]:
        raise ConfigError(
            f"lengths=[{too_long[0]}]: {too_long[0]} tokens and an answer of up to {new} are more"
            f" than model.context={context}; give lengths up to {context - new}, or fewer"
            " generate.max_new_tokens"
        )


def measure(
    options: NeedleOptions,
    filler: str,
    encode: Callable[[str], Sequence[int]],
    answer: Callable[[list[Sequence[int]]], list[str]],
    seed: int,
    level: float,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Returns, for each length and depth, how often the value is found.

    Args:
      encode: gives the ids of a prompt; answer: the answers to prompts given as ids.

    Returns: `cells`: of each `length`, `depth`, `tokens` (the mean length that was reached),
      `reached` (the mean depth of the needle), `exact` and `contained` with Wilson's bounds, and an
      `example`.
    """
    pieces = pieces_of(filler)
    if not pieces:
        raise ConfigError("filler=: the text is empty")
    drawn, cells = needles(options, len(pieces), seed), []
    for length in options.lengths:
        for depth in options.depths:
            tell(f"length {length}, depth {depth:g}")
            made = [prompt_of(pieces, one, depth, length, options, encode) for one in drawn]
            answers = answer([ids for ids, _ in made])
            pairs = [*zip(answers, (one.value for one in drawn), strict=True)]
            cells.append({
                "length": length,
                "depth": depth,
                "tokens": float(np.mean([len(ids) for ids, _ in made])),
                "reached": float(np.mean([share for _, share in made])),
                "exact": _share([is_exact(*pair) for pair in pairs], level),
                "contained": _share([is_contained(*pair) for pair in pairs], level),
                "example": {"value": pairs[0][1], "answer": pairs[0][0]},
            })  # fmt: skip
    return {"cells": cells, "trials": options.trials, "level": level, "seed": seed}


def _share(hits: Sequence[bool], level: float) -> dict[str, Any]:
    low, high = bounds.wilson(sum(hits), len(hits), level)
    return {"value": sum(hits) / len(hits), "low": low, "high": high, "n": len(hits)}
