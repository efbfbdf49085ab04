"""Weights of classes by how many training rows they have, 1 in the mean over these rows, so that a
learning rate means what it means without weights. A class without a row counts as one with one.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def inverse(counts: Float[Array, classes], power: Any) -> Float[Array, classes]:
    """Computes `n^-power` of each class, up to a factor; with a power of 1 all classes weigh the
    same together.
    """
    counts = jnp.maximum(counts, 1)
    return _scaled(counts, counts**-power)


def effective(counts: Float[Array, classes], beta: Any) -> Float[Array, classes]:
    """Computes `(1 - beta) / (1 - beta^n)` of each class, up to a factor.

    It is one by the effective number of samples (Cui et al., 2019, arXiv:1901.05555, eq. 4); there
    the sum of the weights is the number of classes.
    """
    counts = jnp.maximum(counts, 1)
    # 1 - beta^n without cancellation
    return _scaled(counts, 1 / -jnp.expm1(counts * jnp.log(beta)))


def log_shares(counts: Float[Array, classes]) -> Float[Array, classes]:
    """Computes the logarithm of the share of the training rows that each class has."""
    counts = jnp.maximum(counts, 1)
    return jnp.log(counts / counts.sum())


def _scaled(counts: Array, weights: Array) -> Array:
    return weights * (counts.sum() / (counts * weights).sum())
