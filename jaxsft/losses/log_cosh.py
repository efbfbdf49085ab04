"""The logarithm of the hyperbolic cosine of the error: square near zero, straight beyond, and
smooth everywhere (Green, 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def values(
    predictions: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `log cosh e`, without overflow."""
    import jax
    import jax.numpy as jnp

    error = jnp.abs(predictions - targets)
    return error + jax.nn.softplus(-2 * error) - jnp.log(2.0)


LOSS = Loss(values, "numbers")
