"""How near the vectors of two texts are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def normalise(x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
    """Scales vectors to length 1; that of zeros stays, with a gradient of zeros."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1))


def cosine(x: Float[Array, "... 2 embed"]) -> Float[Array, ...]:
    """Computes the cosine of the two vectors of each pair."""
    unit = normalise(x)
    return (unit[..., 0, :] * unit[..., 1, :]).sum(-1)
