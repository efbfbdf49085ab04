"""The squared error.

For classification, on logits: Hui and Belkin, 2021 (arXiv:2006.07322), without their rescaling.
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
    """Computes the squared error, without a factor 1/2."""
    import jax.numpy as jnp

    return jnp.square(predictions - targets)


LOSS = Loss(values, "numbers")
