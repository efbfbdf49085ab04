"""The second stream of an encoder-decoder model: what its encoder reads.

An example then has two lengths, that of the source and that of the target, and those that share a
row fit into it in both streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class SourceBatch(NamedTuple):
    """The source stream of an encoder-decoder batch: B rows of T positions.

    Segment i is the source of the texts' segment i; 0 is padding.

    Attributes:
      tokens, segment_ids, positions: `[B, T]` int32.
    """

    tokens: Any
    segment_ids: Any
    positions: Any


def source_batch(
    arrays: Mapping[str, np.ndarray], members: Sequence[np.ndarray], length: int
) -> SourceBatch:
    """Builds the source stream of rows of `length` positions, laid out as the target stream.

    Args:
      arrays: those of the split (`flat_examples.flat`).
      members: the examples of each row.
    """
    shape = (len(members), length)
    tokens, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(3))
    for i, examples in enumerate(members):
        at = 0
        for j, example in enumerate(examples):
            start, stop = arrays["source_offsets"][example : example + 2]
            place = slice(at, at := at + int(stop - start))
            tokens[i, place] = arrays["source_tokens"][start:stop]
            segment_ids[i, place] = j + 1
            positions[i, place] = np.arange(stop - start)
    return SourceBatch(tokens, segment_ids, positions)


def best_fit(ids: np.ndarray, sizes: np.ndarray, room: np.ndarray) -> list[list[int]]:
    """Packs examples of two streams by best-fit-decreasing.

    The largest come first (by the larger share of a row that one stream takes), each into the
    open row that takes both streams and has the least space, streams weighed by their length.
    `sizes` is `[examples, 2]`, `room` the two row lengths.
    """
    rows: list[list[int]] = []
    space = np.zeros((len(ids), 2), np.int64)  # of the rows so far
    for i in ids[np.lexsort((-(sizes[ids] / room).sum(1), -(sizes[ids] / room).max(1)))].tolist():
        left = space[: len(rows)]
        fits = np.flatnonzero((left >= sizes[i]).all(1))
        if len(fits):
            k = int(fits[(left[fits] / room).sum(1).argmin()])
        else:
            k = len(rows)
            rows.append([])
            space[k] = room
        rows[k].append(i)
        space[k] -= sizes[i]
    return rows
