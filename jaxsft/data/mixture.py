"""Mixtures of data sets as index arithmetic: which packed rows of each source an epoch reads.

    rows of the sources   [100, 40]     shares [0.5, 0.5]
    exhausted=stop        40 + 40       the epoch ends with the shortest source; the next one goes
      on where the longer one stopped
    exhausted=repeat      100 + 100     it ends with the longest one; the shorter one is read two
      and a half times
    exhausted=error       40 + 40       as stop, and a training that is longer than this is refused:
      no row is ever read twice

What is mixed are packed rows, which are equally long, so that shares are those of the places that
the model computes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsft.errors import ConfigError


def shares(rows: Sequence[int], weights: Sequence[float | None], temperature: float) -> np.ndarray:
    """Returns the share of each source in an epoch, `[sources]`, adding to 1.

    It is the source's weight; or without weights `rows ** (1 / temperature)`, proportional to
    its size for 1 and equal for infinity (Arivazhagan et al., 2019, arXiv:1907.05019, section
    4.3).
    """
    given = np.array(rows if weights[0] is None else weights, np.float64)
    parts = given ** (1 / temperature) if weights[0] is None else given
    return parts / parts.sum()


def counts(rows: Sequence[int], share: np.ndarray, exhausted: str) -> np.ndarray:
    """Returns how many rows of each source an epoch has, `[sources]`.

    Raises:
      ConfigError: a source has so small a share that no row of it is read.
    """
    full = np.array(rows) / share  # rows of an epoch that ends with each source
    total = full.max() if exhausted == "repeat" else full.min()
    out = np.floor(share * total + 1e-9).astype(np.int64)
    if (out == 0).any():
        i = int(np.argmin(out))
        raise ConfigError(
            f"data.mixture: source {i + 1} has a share of {share[i]:.3g} of {int(total)} rows, so"
            " that none of it is read; raise its weight"
        )
    return out


def rows_of(count: int, size: int, seed: int, source: int, epoch: int) -> np.ndarray:
    """Returns which of the `size` rows of a source an epoch reads.

    They are the next `count` of endless permutations, each drawn from (seed, source, number).

    Every row is read once before any is read again, over all epochs.
    """
    first = epoch * count
    out = []
    for number in range(first // size, (first + count - 1) // size + 1):
        order = np.random.default_rng([seed, source, number, 1]).permutation(size)
        out.append(order[max(first - number * size, 0) : first + count - number * size])
    return np.concatenate(out)


def order(starts: Sequence[int], taken: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """Returns the rows of an epoch in order, all sources shuffled together.

    Args:
      starts: `[sources + 1]`, where the rows of each source begin in the plan.
      taken: how many of each an epoch has (`counts`).
    """
    sizes = np.diff(starts)
    rows = [starts[i] + rows_of(int(n), int(sizes[i]), seed, i, epoch) for i, n in enumerate(taken)]
    return np.random.default_rng([seed, epoch]).permutation(np.concatenate(rows))
