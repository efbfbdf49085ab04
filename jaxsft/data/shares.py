"""Class balancing: how many rows, or how much weight, each class shall have.

Counts go in as arrays `[C]`, and sizes come out as arrays `[C]`.
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
    """Returns the relative size that each class shall have, `[C]`.

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
    """Returns the smallest sizes in these proportions that drop no row.

    At most `copies` times the rows there are.
    """
    sizes = np.rint(mass * (counts / mass).max()).astype(np.int64)
    return np.maximum(counts, sizes if copies is None else np.minimum(sizes, counts * copies))


def shrunk(counts: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Returns the largest sizes in these proportions that repeat no row; no class is lost."""
    return np.clip(np.rint(mass * (counts / mass).min()).astype(np.int64), 1, counts)


def shared(total: int, mass: np.ndarray) -> np.ndarray:
    """Divides `total` rows in these proportions, by largest remainders (Hamilton).

    Each class has at least one where there are enough.
    """
    exact = total * mass / mass.sum()
    sizes = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    while (sizes == 0).any() and total >= len(mass):
        sizes[int((sizes == 0).argmax())] += 1
        sizes[int(sizes.argmax())] -= 1
    return sizes
