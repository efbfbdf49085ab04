"""Shares of players in the value of a coalition: Shapley values, exact and estimated, and LIME.

A game is `value(keeps) -> [M]`, of coalitions `keeps` `[M, n]` bool. Here players are tokens, and
the value is the score of the text with only those tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from jaxsft.errors import ConfigError

Game = Callable[[np.ndarray], np.ndarray]
MOST = 16  # players that exact enumeration takes


def exact(value: Game, n: int) -> np.ndarray:
    """Returns the Shapley values `[n]` (Shapley, 1953), from all `2 ** n` coalitions."""
    if n > MOST:
        raise ConfigError(
            f"explain.method=exact: {n} tokens have 2**{n} coalitions; expected at most {MOST}"
        )
    codes = np.arange(2**n)
    values = value((codes[:, None] >> np.arange(n)) & 1 > 0)
    sizes = np.array([int(code).bit_count() for code in codes])
    weight = np.array([1 / (n * math.comb(n - 1, s)) if s < n else 0 for s in range(n + 1)])
    out = np.zeros(n)
    for i in range(n):
        without = codes[(codes >> i) & 1 == 0]
        out[i] = (weight[sizes[without]] * (values[without | 1 << i] - values[without])).sum()
    return out


def sampled(value: Game, n: int, permutations: int, seed: int) -> np.ndarray:
    """Estimates Shapley values from permutations and their reverses (Castro et al., 2009).

    The estimates add up to `value(all) - value(none)` exactly.
    """
    random, out = np.random.default_rng(seed), np.zeros(n)
    half = [random.permutation(n) for _ in range(max(1, permutations // 2))]
    orders = [order for one in half for order in (one, one[::-1])]
    keeps = np.zeros((len(orders), n + 1, n), bool)
    for number, order in enumerate(orders):
        for size, player in enumerate(order):
            keeps[number, size + 1 :, player] = True
    values = value(keeps.reshape(-1, n)).reshape(len(orders), n + 1)
    for order, line in zip(orders, values, strict=True):
        out[order] += np.diff(line)
    return out / len(orders)


def kernel(value: Game, n: int, samples: int, seed: int) -> np.ndarray:
    """Estimates Shapley values by weighted regression (KernelSHAP: Lundberg and Lee, 2017).

    All coalitions are taken where they are no more than `samples`, and then it is exact. Otherwise
    sizes are drawn by the weight of the kernel, and coalitions with their complements.
    """
    whole, none = value(np.array([[True] * n, [False] * n]))
    if n == 1:
        return np.array([whole - none])
    sizes = np.arange(1, n)
    mass = (n - 1) / (sizes * (n - sizes))  # of all coalitions of a size together
    if n <= MOST and 2**n - 2 <= samples:
        keeps = (np.arange(1, 2**n - 1)[:, None] >> np.arange(n)) & 1 > 0
        size = keeps.sum(1)
        weights = mass[size - 1] / np.array([math.comb(n, s) for s in size])
    else:
        random = np.random.default_rng(seed)
        drawn = random.choice(sizes, max(1, samples // 2), p=mass / mass.sum())
        keeps = np.argsort(random.random((len(drawn), n)), axis=1) < drawn[:, None]
        keeps = np.concatenate([keeps, ~keeps])
        weights = np.ones(len(keeps))
    # the last player takes what is left, so that the values add up
    x = keeps[:, :-1].astype(float) - keeps[:, -1:]
    y = value(keeps) - none - keeps[:, -1] * (whole - none)
    root = np.sqrt(weights)[:, None]
    found = np.linalg.lstsq(x * root, y * root[:, 0], rcond=None)[0]
    return np.append(found, whole - none - found.sum())


def lime(value: Game, n: int, samples: int, seed: int, ridge: float = 1e-3) -> np.ndarray:
    """Returns the slopes of a local linear model of the score (LIME: Ribeiro et al., 2016).

    Neighbours drop a random number of tokens; they weigh `exp(-d^2 / 0.25^2)`, d the cosine
    distance to the whole text.
    """
    random = np.random.default_rng(seed)
    drop = random.integers(1, n + 1, samples)
    keeps = np.argsort(random.random((samples, n)), axis=1) >= drop[:, None]
    keeps = np.concatenate([np.ones((1, n), bool), keeps])
    distance = 1 - np.sqrt(keeps.mean(1))
    root = np.sqrt(np.exp(-np.square(distance) / 0.25**2))[:, None]
    x = np.concatenate([keeps, np.ones((len(keeps), 1))], axis=1) * root
    y = value(keeps) * root[:, 0]
    penalty = np.diag([ridge] * n + [0.0])
    return np.linalg.solve(x.T @ x + penalty + 1e-12 * np.eye(n + 1), x.T @ y)[:n]
