"""Cross-entropy: the negative log likelihood of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsft.losses import Loss
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-log softmax(logits)[label]`, against smoothed targets."""
    import jax
    import jax.numpy as jnp

    log_p = jax.nn.log_softmax(logits, axis=-1)
    gold = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return smoothing.expected(-gold, -log_p.mean(-1), scalars)


LOSS = Loss(values, "labels", scalars=smoothing.SCALARS)
