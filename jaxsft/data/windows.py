"""A text that is longer than a row, as overlapping windows of it: where they lie, and which of them answers for which word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Window = tuple[int, int]  # begin and end, the end outside


def windows(length: int, limit: int, stride: int) -> list[Window]:
    """Windows of `limit` units over `length` of them, one every `stride`; the last one ends with the text, so that each of them is full.

    windows(10, 4, 3)    [(0, 4), (3, 7), (6, 10)]

    Raises:
      ValueError: `limit` or `stride` is less than 1, or `stride` leaves units between two windows.
    """
    return word_windows(np.arange(length + 1), limit, stride)


def word_windows(offsets: np.ndarray, limit: int, stride: int) -> list[Window]:
    """`windows` in words that have several pieces: no word is cut, and no window has more than `limit` pieces.

    Args:
      offsets: `[words + 1]`, how many pieces stand before each word.
      stride: pieces between the beginnings of two windows, up to the next word.

    Returns: first and last word (outside) of each window, in order; together they hold every word.

    Raises:
      ValueError: as `windows`, or a word has more than `limit` pieces.
    """
    words = len(offsets) - 1
    if not 1 <= stride <= limit:
        raise ValueError(f"windows of {limit} every {stride}")
    if words and int(np.diff(offsets).max()) > limit:
        raise ValueError(f"a word of {int(np.diff(offsets).max())} pieces in a window of {limit}")
    found: list[Window] = []
    first = 0
    while True:
        last = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        if last >= words:
            return [*found, (int(np.searchsorted(offsets, offsets[words] - limit)) if found else 0, words)]
        found.append((first, last))
        first = min(max(int(np.searchsorted(offsets, offsets[first] + stride)), first + 1), last)


def owners(found: Sequence[Window], length: int) -> np.ndarray:
    """Of each unit the number of the window that shows most of what surrounds it, `[length]` int64: the nearer end of the window is farthest from it.

    The ends of the text are no ends of a window. Of windows that are alike, the first. What a window answers for is one stretch.
    """
    best, owner = np.full(length, -1, np.int64), np.zeros(length, np.int64)
    for number, (first, last) in enumerate(found):
        at = np.arange(first, last)
        before = at - first if first > 0 else np.full(len(at), length)
        behind = last - 1 - at if last < length else np.full(len(at), length)
        near = np.minimum(before, behind)
        mine = at[near > best[first:last]]
        best[mine], owner[mine] = near[mine - first], number
    return owner
