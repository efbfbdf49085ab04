"""Counts of the Poisson bootstrap, and the units that they are counts of.

A replicate weighs each row with a count that is Poisson distributed with mean 1 (Hanley and
MacGibbon, 2006; Chamandy et al., 2012). The count is a pure function of (seed, replicate, number of
the row): neither the order of the rows, nor how they are cut into chunks, nor the device changes
it, and two runs on the same rows share their counts.

What is drawn as a whole is a unit: a row, a cluster of rows, or, of more than `GROUPS` rows, a
group of rows chosen by their numbers. Rows of a group have nothing in common, so that the variance
of a mean stays as it is; 16,384 groups estimate it to half a percent, where 1,000 replicates leave
two.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import namespace

GROUPS = 16_384  # units that are drawn at most

# u >= THRESHOLDS[k] where the count is more than k: 2^32 times the distribution function
THRESHOLDS = tuple(
    np.uint32(t)
    for t in (
        round(2**32 * sum(math.exp(-1) / math.factorial(j) for j in range(k + 1)))
        for k in range(16)
    )
    if t < 2**32
)
_A, _B = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)  # lowbias32 of Wellons, in its newer form
_ROW, _REPLICATE, _FACTOR = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def mixed(x: Any) -> Any:
    """Returns a permutation of the uint32 numbers of an array in which each bit hangs on all."""
    x = (x ^ (x >> 16)) * _A
    x = (x ^ (x >> 15)) * _B
    return x ^ (x >> 15)


def uniform(seed: int, replicates: Any, numbers: Any) -> Any:
    """Returns uniform uint32 `[replicates, units]`, each a function of (seed, replicate, number).

    Args:
      replicates: `[B]` uint32, their numbers; numbers: `[units]` uint32, those of the units.
    """
    xp = namespace(numbers)
    key = mixed(mixed(replicates * _REPLICATE) + xp.full((1,), seed % 2**32, xp.uint32))
    key = mixed(key + xp.full((1,), seed // 2**32 % 2**32, xp.uint32))
    own = mixed(numbers * _ROW + _ROW)
    # the factor keeps two units from exchanging their values in two replicates
    factor = mixed(own + _FACTOR) | xp.ones((1,), xp.uint32)
    return mixed((own ^ key[:, None]) * factor)


def counts(seed: int, replicates: Any, numbers: Any) -> Any:
    """Returns counts `[replicates, units]` uint8, Poisson distributed with mean 1."""
    u = uniform(seed, replicates, numbers)
    out = namespace(u).zeros(u.shape, np.uint8)
    for threshold in THRESHOLDS:
        out = out + (u >= threshold)
    return out


# --- units
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Units:
    """What is drawn as a whole.

    Attributes:
      numbers: `[units]` uint32, from which counts are drawn.
      of_row: `[rows]`, the unit of each row; None: row i is unit i.
      rows: how many there are.
      clusters: how many there are; None: rows are independent.
    """

    numbers: np.ndarray
    of_row: np.ndarray | None
    rows: int
    clusters: int | None = None


def units(rows: np.ndarray, clusters: Sequence[Any] | np.ndarray | None = None) -> Units:
    """Returns the units of rows with these numbers.

    Args:
      clusters: `[rows]`, the number or the name of the cluster of each row.

    Raises ConfigError where there is not one cluster for each row.
    """
    rows = np.asarray(rows, np.int64)
    if clusters is None:
        number = _folded(rows)
        if len(rows) <= GROUPS:
            return Units(number, None, len(rows))
        return Units(np.arange(GROUPS, dtype=np.uint32), _group(number), len(rows))
    clusters = np.asarray(clusters)
    if clusters.shape != rows.shape:
        raise ConfigError(
            f"clusters: {len(clusters)} of them for {len(rows)} rows; give one for each row"
        )
    names, of_row = np.unique(clusters, return_inverse=True)
    number = _folded(names) if names.dtype.kind in "iu" else _hashed(names)
    count = len(names)
    if count > GROUPS:
        of_row, number = _group(number)[of_row], np.arange(GROUPS, dtype=np.uint32)
    return Units(number, of_row.astype(np.int32), len(rows), count)


def _folded(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers as uint32; those below 2^32 stay as they are."""
    numbers = numbers.astype(np.int64).view(np.uint64)
    low, high = numbers.astype(np.uint32), (numbers >> np.uint64(32)).astype(np.uint32)
    return low ^ np.where(high > 0, mixed(high), high)


def _hashed(names: np.ndarray) -> np.ndarray:
    digests = (hashlib.sha256(str(name).encode("utf-8", "surrogatepass")) for name in names)
    return np.array([int.from_bytes(d.digest()[:4]) for d in digests], np.uint32)


def _group(numbers: np.ndarray) -> np.ndarray:
    return (mixed(numbers + _FACTOR) % np.uint32(GROUPS)).astype(np.int32)
