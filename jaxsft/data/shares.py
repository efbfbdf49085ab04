"""How many rows, or how much weight, each class shall have: arrays `[C]` of counts in, arrays `[C]`
out.
"""

from __future__ import annotations

import numpy as np


def mass(
    counts: np.ndarray,
    toward: str,
    *,
    temperature: float,
    beta: float,
    ratio: float,
    shrink: bool = False,
) -> np.ndarray:
    """What the classes shall relate as.

    equal: 1; sqrt: `n^(1/2)` (Mahajan et al. 2018); temperature: `n^(1/T)` (Conneau et al. 2020,
    whose alpha is 1/T); effective: `n / E(n)`, `E(n) = (1 - beta^n) / (1 - beta)` the effective
    number of samples (Cui et al. 2019: a loss weighted by 1 / E(n)); ratio: no class less than
    `ratio` of the largest, or, to `shrink`, none more than 1 / ratio of the smallest.
    """
    n = counts.astype(np.float64)
    if toward == "ratio":
        return np.minimum(n, n.min() / ratio) if shrink else np.maximum(n, n.max() * ratio)
    if toward == "effective":
        return n * (1 - beta) / (1 - beta**n)
    return n ** {"equal": 0.0, "sqrt": 0.5, "temperature": 1 / temperature}[toward]


def grown(counts: np.ndarray, mass: np.ndarray, copies: int | None) -> np.ndarray:
    """The smallest sizes in these relations that take no row away; at most `copies` times what
    there is.
    """
    sizes = np.rint(mass * (counts / mass).max()).astype(np.int64)
    return np.maximum(counts, sizes if copies is None else np.minimum(sizes, counts * copies))


def shrunk(counts: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """The largest sizes in these relations that repeat no row; no class is lost."""
    return np.clip(np.rint(mass * (counts / mass).min()).astype(np.int64), 1, counts)


def shared(total: int, mass: np.ndarray) -> np.ndarray:
    """`total` rows in these relations, by largest remainders (Hamilton); each class has one at
    least where there are enough.
    """
    exact = total * mass / mass.sum()
    sizes = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    while (sizes == 0).any() and total >= len(mass):
        sizes[int((sizes == 0).argmax())] += 1
        sizes[int(sizes.argmax())] -= 1
    return sizes
