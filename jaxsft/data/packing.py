"""The packing plan: which examples share a row.

It depends on the lengths and a fixed plan seed, so every data seed has the same number of steps.
"""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np

from jaxsft.data import two_streams

# examples that are packed together: bounds the work, and keeps the plan close to a shuffle
WINDOW = 8192


@dataclasses.dataclass(frozen=True)
class PackingPlan:
    """The contents of packed rows.

    Attributes:
      members: `[examples]` int64, example indices, row after row.
      offsets: `[rows + 1]` int64, where each row's members begin.
      row_length: positions of a row.
      texts: the most examples that share a row.
      tokens: of all examples.
      source_length, source_tokens: the same of the second stream; 0 where there is none.
    """

    members: np.ndarray
    offsets: np.ndarray
    row_length: int
    texts: int
    tokens: int
    source_length: int = 0
    source_tokens: int = 0

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> np.ndarray:
        """Returns the examples of a row; none of row -1, which is empty."""
        return self.members[self.offsets[i] : self.offsets[i + 1]] if i >= 0 else self.members[:0]


def plan(
    lengths: np.ndarray,
    row_length: int,
    *,
    seed: int,
    packing: bool = True,
    source_lengths: np.ndarray | None = None,
    source_length: int = 0,
) -> PackingPlan:
    """Plans rows by best-fit-decreasing within windows of a seeded shuffle.

    Without packing, one example a row, in order.

    Args:
      lengths: `[examples]`, positions of each example, all `<= row_length`.
      source_lengths: `[examples]`, those of its source, all `<= source_length`; examples that share
        a row fit into it in both streams (`two_streams.best_fit`). None where there is one stream.

    Raises:
      ValueError: an example is longer than a row or empty; nothing is ever cut here.
    """
    lengths = _checked(lengths, row_length, "")
    fit = lambda ids: _best_fit(ids, lengths, row_length)
    if source_lengths is not None:
        source_lengths = _checked(source_lengths, source_length, " of sources")
        sizes, room = np.stack([lengths, source_lengths], axis=1), [row_length, source_length]
        fit = lambda ids: two_streams.best_fit(ids, sizes, np.array(room))
    if packing:
        order = np.random.default_rng(seed).permutation(len(lengths))
        windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]
        rows = [row for ids in windows for row in fit(ids)]
    else:
        rows = [[i] for i in range(len(lengths))]
    counts = np.array([len(row) for row in rows], np.int64)
    return PackingPlan(
        members=np.fromiter((i for row in rows for i in row), np.int64, len(lengths)),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        row_length=row_length,
        texts=int(counts.max(initial=1)),
        tokens=int(lengths.sum()),
        source_length=0 if source_lengths is None else source_length,
        source_tokens=0 if source_lengths is None else int(source_lengths.sum()),
    )


def _checked(lengths: np.ndarray, row_length: int, what: str) -> np.ndarray:
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= row_length):
        raise ValueError(
            f"lengths{what} from {lengths.min()} to {lengths.max()} for rows of {row_length}"
        )
    return lengths


def _best_fit(ids: np.ndarray, lengths: np.ndarray, row_length: int) -> list[list[int]]:
    """Packs the longest first, each into the open row with the least space that still takes it."""
    rows: list[list[int]] = []
    by_space: dict[int, list[list[int]]] = {}
    spaces: list[int] = []  # sorted, those with an open row
    for i in ids[np.argsort(-lengths[ids], kind="stable")].tolist():
        need = int(lengths[i])
        k = bisect.bisect_left(spaces, need)
        if k == len(spaces):
            row, space = [], row_length
            rows.append(row)
        else:
            space = spaces[k]
            row = by_space[space].pop()
            if not by_space[space]:
                spaces.pop(k)
        row.append(i)
        space -= need
        if space > 0:
            if not by_space.setdefault(space, []):
                bisect.insort(spaces, space)
            by_space[space].append(row)
    return rows
