"""The plan: which examples share a row. From lengths and a fixed plan seed, so every data seed has the same number of steps."""

from __future__ import annotations

import bisect
import dataclasses

import numpy as np

WINDOW = 8192  # examples that are packed together: bounds the work, and keeps the plan close to a shuffle


@dataclasses.dataclass(frozen=True)
class Plan:
    """Contents of packed rows.

    Attributes:
      members: `[examples]` int64, example indices, row after row.
      offsets: `[rows + 1]` int64, where each row's members begin.
      row_length: positions of a row.
      texts: the most examples that share a row.
    """

    members: np.ndarray
    offsets: np.ndarray
    row_length: int
    texts: int
    tokens: int

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> np.ndarray:
        return self.members[self.offsets[i] : self.offsets[i + 1]]

    def as_dict(self) -> dict:
        real, places = self.tokens, self.rows * self.row_length
        return {
            "rows": self.rows,
            "row_length": self.row_length,
            "examples": len(self.members),
            "max_texts_per_row": self.texts,
            "fill": real / max(places, 1),
            "real": real,
            "padded": places - real,
        }


def plan(lengths: np.ndarray, row_length: int, *, seed: int, packing: bool = True) -> Plan:
    """Best-fit-decreasing within windows of a seeded shuffle; without packing, one example a row, in order.

    Args:
      lengths: `[examples]`, positions of each example, all `<= row_length`.

    Raises:
      ValueError: an example is longer than a row or empty; nothing is ever cut here.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not (lengths.min() > 0 and lengths.max() <= row_length):
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()} for rows of {row_length}")
    if packing:
        order = np.random.default_rng(seed).permutation(len(lengths))
        rows = [row for start in range(0, len(order), WINDOW) for row in _best_fit(order[start : start + WINDOW], lengths, row_length)]
    else:
        rows = [[i] for i in range(len(lengths))]
    sizes = np.array([len(row) for row in rows], np.int64)
    members = np.fromiter((i for row in rows for i in row), np.int64, len(lengths))
    return Plan(members, np.concatenate([[0], np.cumsum(sizes)]), row_length, int(sizes.max(initial=1)), int(lengths.sum()))


def _best_fit(ids: np.ndarray, lengths: np.ndarray, row_length: int) -> list[list[int]]:
    """Longest first, each into the open row with the least space that still takes it."""
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
