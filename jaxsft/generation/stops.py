"""Stop strings, and the part of a growing text that can be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# how a decoder writes bytes that are no whole character (yet)
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

Decode = Callable[[Sequence[int]], str]
Pieces = Callable[[], Sequence[bytes] | None]


def find(text: str, stops: Sequence[str]) -> int | None:
    """Returns where the first stop string begins; None without one."""
    return min((at for at in map(text.find, stops) if at >= 0), default=None)


def completing(pieces: Sequence[bytes] | None, stops: Sequence[str], size: int) -> np.ndarray:
    """Returns which ids may end a stop string, `[size]` bool.

    After any other id the text needs no search.

    Args:
      pieces: the bytes that each id adds to a text, and adds whatever stands before it; None: not
        known, and every id may.
    """
    if pieces is None or any(UNKNOWN in stop for stop in stops):
        return np.ones(size, bool)
    whole = [stop.encode() for stop in stops]
    # of a string that begins in a token before
    ends = tuple(stop[i:] for stop in whole for i in range(1, len(stop)))
    found = [
        piece.startswith(ends) or any(stop in piece for stop in whole) for piece in pieces[:size]
    ]
    return np.array(found + [False] * (size - len(found)), bool)


def shown(text: str, stops: Sequence[str]) -> str:
    """Returns the part of an unfinished text that no further token changes.

    Without a character of which bytes are missing, and without a possible beginning of a stop
    string.
    """
    text = text.rstrip(UNKNOWN)
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )
    return text[: len(text) - held]


def ended(
    ids: Sequence[int], old: int, decode: Decode, stops: Sequence[str]
) -> tuple[list[int], str] | None:
    """Returns the ids up to the token that completes a stop string, and the text before it.

    None where there is no stop string.

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
