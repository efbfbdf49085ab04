"""Which rows of one set are held out together: the folds of a cross-validation, and the nested
subsets of a learning curve.

Rows that say the same (`records.Kind.text_key`), or belong to one group, are a unit and are never
parted. Each label is spread evenly. Nothing depends on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError

BINS = 10  # of numbers


@dataclass(frozen=True)
class FoldUnits:
    """The groups of rows that no fold parts.

    Attributes:
      of_row: `[rows]` int64, the unit of each row.
      keys: of each unit a text by which it is known, whatever the order of the rows.
      labels: `[units, labels]`, how many rows of a unit have a label. A row without a label has one
        of its own.
    """

    of_row: np.ndarray
    keys: tuple[str, ...]
    labels: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Returns how many rows each unit has."""
        return np.bincount(self.of_row, minlength=len(self.keys))

    def order(self, units: np.ndarray, seed: int) -> np.ndarray:
        """Returns these units in an order that a seed draws."""
        return np.array(sorted(units.tolist(), key=lambda u: _hash(self.keys[u], seed)), np.int64)

    @property
    def rarest(self) -> np.ndarray:
        """Returns of each unit the label that the fewest rows have, `[units]`."""
        totals = self.labels.sum(0)
        return np.where(self.labels > 0, totals, np.inf).argmin(1)


def fold_units(
    texts: Sequence[str],
    labels: Sequence[Sequence[Hashable]],
    groups: Sequence[str] | None = None,
) -> FoldUnits:
    """Returns the units of rows.

    Args:
      texts: `[rows]`, equal where rows must stay together.
      labels: `[rows]`, those of each row.
      groups: `[rows]`, of what each row is; None: no groups.

    >>> fold_units(["a", "b", "a", "c"], [["x"]] * 4, ["1", "1", "2", "3"]).of_row.tolist()
    [0, 0, 0, 1]
    """
    root: dict[str, str] = {}

    def found(name: str) -> str:
        while root.setdefault(name, name) != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    names = [f"text {text}" for text in texts]
    for name, group in zip(names, groups or (), strict=False):
        a, b = sorted((found(name), found(f"group {group}")))
        root[b] = a  # the least name of all stands for the unit
    roots = [found(name) for name in names]
    numbers = {name: i for i, name in enumerate(sorted(set(roots)))}
    of_row = np.array([numbers[name] for name in roots], np.int64)
    kinds = {kind: i for i, kind in enumerate(sorted({k for one in labels for k in one}, key=repr))}
    table = np.zeros((len(numbers), len(kinds) + 1))
    for unit, one in zip(of_row, labels, strict=True):
        for kind in [kinds[k] for k in one] or [len(kinds)]:
            table[unit, kind] += 1
    return FoldUnits(of_row, tuple(numbers), table)


def fold_labels(records: Sequence[Any], task: Any) -> list[list[Hashable]]:
    """Returns what is to be spread evenly, of each record: its labels, else the tenth of all rows
    in which each of its numbers lies.
    """
    found: list[list[Hashable]] = [list(task.classes(record)) for record in records]
    numbers = [getattr(r, "targets", None) or (getattr(r, "score", None),) for r in records]
    if any(found) or not numbers or any(None in one for one in numbers):
        return found
    values = np.array(numbers, np.float64)
    edges = np.nanquantile(values, np.linspace(0, 1, BINS + 1)[1:-1], axis=0)
    for i, column in enumerate(values.T):
        bins = np.searchsorted(np.unique(edges[:, i]), column, side="right")
        for row in np.flatnonzero(np.isfinite(column)):
            found[row].append((i, int(bins[row])))
    return found


def assigned(units: FoldUnits, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns the fold `[len(rows)]` in which each of these rows is held out, from 0.

    The largest units come first, then those of the rarest label; each goes where its labels are
    rarest, and of such folds to the smallest. Of units of one row and one label each fold has the
    same number but for one.

    Raises ConfigError where there are fewer units than folds.
    """
    there = np.unique(units.of_row[rows])
    if len(there) < folds:
        raise ConfigError(
            f"crossval.folds={folds}: there are {len(there)} rows, or groups of rows, that may be"
            " parted; take fewer folds"
        )
    sizes = np.bincount(units.of_row[rows], minlength=len(units.keys))
    totals = np.maximum(units.labels[there].sum(0), 1)
    rarest = units.rarest
    order = sorted(units.order(there, seed).tolist(), key=lambda u: (-sizes[u], totals[rarest[u]]))
    counts, rows_of = np.zeros((folds, units.labels.shape[1])), np.zeros(folds)
    fold_of = np.zeros(len(units.keys), np.int64)
    for unit in order:
        mine = np.flatnonzero(units.labels[unit])
        crowded = counts[:, mine] @ (units.labels[unit, mine] / totals[mine])
        fold = min(range(folds), key=lambda f: (round(float(crowded[f]), 12), rows_of[f], f))
        fold_of[unit] = fold
        counts[fold] += units.labels[unit]
        rows_of[fold] += sizes[unit]
    return fold_of[units.of_row[rows]]


def subset(units: FoldUnits, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Returns about this fraction of the rows, in their order: one at least, and whole units.

    A larger fraction holds all rows of a smaller one. Each label keeps its share.
    """
    there, rarest = np.unique(units.of_row[rows]), units.rarest
    place: dict[int, float] = {}
    for label in np.unique(rarest[there]):
        mine = units.order(there[rarest[there] == label], seed)
        # labels with few units do not all come first, or all last
        start = int.from_bytes(_hash(f"start {label}", seed)[:4]) / 2**32
        place |= {unit: (i + start) / len(mine) for i, unit in enumerate(mine.tolist())}
    order = sorted(place, key=lambda unit: (place[unit], _hash(units.keys[unit], seed)))
    sizes = np.bincount(units.of_row[rows], minlength=len(units.keys))
    before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
    taken = [u for u, n in zip(order, before, strict=True) if n + 1e-9 < fraction * len(rows)]
    return rows[np.isin(units.of_row[rows], taken)]


def _hash(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {text}".encode("utf-8", "surrogatepass")).digest()
