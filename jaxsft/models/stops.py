"""Where a text ends: stop strings, and what of a text that grows token by token can be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # how a decoder writes bytes that are no whole character (yet)

Decode = Callable[[Sequence[int]], str]


def find(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string begins."""
    return min((at for at in map(text.find, stops) if at >= 0), default=None)


def shown(text: str, stops: Sequence[str]) -> str:
    """The part of an unfinished text that no further token changes: without a character of which bytes are missing, and without what may be the
    beginning of a stop string."""
    text = text.rstrip(UNKNOWN)
    held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - held]


def ended(ids: Sequence[int], old: int, decode: Decode, stops: Sequence[str]) -> tuple[list[int], str] | None:
    """The ids up to the token that completes a stop string, and the text before the string; None where there is none.

    Args:
      old: so many of `ids` are known to hold none.
    """
    if find(decode(ids), stops) is None:
        return None
    for n in range(old + 1, len(ids) + 1):
        text = decode(ids[:n])
        if (at := find(text, stops)) is not None:
            return list(ids[:n]), text[:at]
    return None  # later tokens have changed what earlier ones read as: no string yet
