"""The packing plan: which examples share a row.

It depends on the lengths and a fixed plan seed, so every data seed has the same number of steps.

Examples of an encoder-decoder model have two lengths, that of the source and that of the target:
those that share a row fit into it in both streams.
"""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np

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
        return self.members[self.offsets[i] : self.offsets[i + 1]]

    def as_dict(self) -> dict:
        facts = {
            "rows": self.rows,
            "row_length": self.row_length,
            "examples": len(self.members),
            "max_texts_per_row": self.texts,
        }
        facts |= _fill(self.tokens, self.rows * self.row_length)
        if self.source_length:
            facts["source"] = {
                "row_length": self.source_length,
                **_fill(self.source_tokens, self.rows * self.source_length),
            }
        return facts


def _fill(real: int, places: int) -> dict:
    return {"fill": real / max(places, 1), "real": real, "padded": places - real}


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
      source_lengths: `[examples]`, those of its source, all `<= source_length`; None where there is
        one stream.

    Raises:
      ValueError: an example is longer than a row or empty; nothing is ever cut here.
    """
    lengths = np.asarray(lengths, np.int64)
    _check(lengths, row_length, "")
    if source_lengths is not None:
        source_lengths = np.asarray(source_lengths, np.int64)
        _check(source_lengths, source_length, " of sources")
    if packing:
        order = np.random.default_rng(seed).permutation(len(lengths))
        windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]
        if source_lengths is None:
            rows = [row for ids in windows for row in _best_fit(ids, lengths, row_length)]
        else:
            sizes = np.stack([lengths, source_lengths], axis=1)
            rows = [
                row
                for ids in windows
                for row in _best_fit_of_two(ids, sizes, np.array([row_length, source_length]))
            ]
    else:
        rows = [[i] for i in range(len(lengths))]
    sizes = np.array([len(row) for row in rows], np.int64)
    members = np.fromiter((i for row in rows for i in row), np.int64, len(lengths))
    made = PackingPlan(
        members,
        np.concatenate([[0], np.cumsum(sizes)]),
        row_length,
        int(sizes.max(initial=1)),
        int(lengths.sum()),
    )
    if source_lengths is None:
        return made
    return dataclasses.replace(
        made, source_length=source_length, source_tokens=int(source_lengths.sum())
    )


def _check(lengths: np.ndarray, row_length: int, what: str) -> None:
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= row_length):
        raise ValueError(
            f"lengths{what} from {lengths.min()} to {lengths.max()} for rows of {row_length}"
        )


def _best_fit_of_two(ids: np.ndarray, sizes: np.ndarray, room: np.ndarray) -> list[list[int]]:
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
