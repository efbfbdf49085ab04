"""Windows of texts that are longer than a row: where they lie, and which owns each word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# of what is kept under head_tail: 128 of 510 tokens in Sun et al., 2019 (arXiv:1905.05583), section
# 5.3.1
HEAD = 0.25
SENTENCE = re.compile(r"(?:[.!?…]+[\"'”’)\]]*(?=\s)|[。！？]+[”’」』）]*|\n)\s*")

Window = tuple[int, int]  # begin and end, the end outside


def windows(length: int, limit: int, stride: int) -> list[Window]:
    """Returns windows of `limit` units over `length` of them, one every `stride`.

    The last one ends with the text, so that each of them is full.

    windows(10, 4, 3)    [(0, 4), (3, 7), (6, 10)]

    Raises:
      ValueError: `limit` or `stride` is less than 1, or `stride` leaves units between two windows.
    """
    return word_windows(np.arange(length + 1), limit, stride)


def word_windows(offsets: np.ndarray, limit: int, stride: int) -> list[Window]:
    """Returns windows over words of several pieces, each of at most `limit` pieces.

    No word is cut.

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
            return [
                *found,
                (int(np.searchsorted(offsets, offsets[words] - limit)) if found else 0, words),
            ]
        found.append((first, last))
        first = min(max(int(np.searchsorted(offsets, offsets[first] + stride)), first + 1), last)


def owners(found: Sequence[Window], length: int) -> np.ndarray:
    """Returns the number of the window with the most context around each unit, `[length]` int64.

    Its nearer end is the farthest from the unit.

    The ends of the text are no ends of a window. Of windows that are alike, the first. What a
    window answers for is one stretch.
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


def sentences(text: str) -> list[int]:
    """Returns the characters at which a sentence begins, after the first.

    A sentence ends with a stop and its closing quotes, or a line break. Abbreviations cut too.
    """
    return [found.end() for found in SENTENCE.finditer(text) if found.end() < len(text)]


def sentence_windows(breaks: Sequence[int], length: int, limit: int) -> list[Window]:
    """Returns consecutive windows of as many whole sentences as fit into `limit` units.

    A sentence that is longer is cut.

    sentence_windows([3, 5, 9], 12, 6)    [(0, 5), (5, 9), (9, 12)]

    Args:
      breaks: where a sentence begins, in order.
      length: units of the text.
    """
    found: list[Window] = []
    start = 0
    while length - start > limit:
        fitting = [at for at in breaks if start < at <= start + limit]
        stop = fitting[-1] if fitting else start + limit
        found.append((start, stop))
        start = stop
    return [*found, (start, length)]


def cut_places(length: int, bodies: Sequence[Window], excess: int, how: str) -> np.ndarray:
    """Returns which of `length` positions stay when `excess` of those in `bodies` are cut.

    They are in order; the longer body is always cut first.

    Args:
      how: truncate_left takes from its beginning, head_tail from its middle (`HEAD`), any other
        from its end.
    """
    sizes = [stop - start for start, stop in bodies]
    rest = sum(sizes) - excess
    if len(sizes) == 1:
        left = [rest]
    else:  # both as long as each other, where neither is shorter than that
        short = min(*sizes, rest // 2)
        left = [short, rest - short] if sizes[0] <= sizes[1] else [rest - short, short]
    keep = np.ones(length, bool)
    for (start, stop), size in zip(bodies, left, strict=True):
        gone = stop - start - size
        first = {"truncate_left": start, "head_tail": start + round(HEAD * size)}.get(
            how, stop - gone
        )
        keep[first : first + gone] = False
    return np.flatnonzero(keep)
