"""The absolute error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def values(
    predictions: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes the absolute error."""
    import jax.numpy as jnp

    return jnp.abs(predictions - targets)


LOSS = Loss(values, "numbers")
