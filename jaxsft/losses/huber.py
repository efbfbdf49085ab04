"""The Huber loss: square near zero, straight beyond (Huber, 1964)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class HuberOptions:
    huber_delta: float = option(
        1.0,
        "where the loss turns from square to straight; of numbers with standardize=true in"
        " deviations",
        above=0,
        traced=Trace(when="read"),
    )


def values(
    predictions: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `e^2 / 2` up to |e| = delta, and `delta (|e| - delta / 2)` beyond."""
    import jax.numpy as jnp

    delta = scalars["huber_delta"]
    error = jnp.abs(predictions - targets)
    inside = jnp.minimum(error, delta)
    return 0.5 * inside**2 + delta * (error - inside)


LOSS = Loss(values, "numbers", HuberOptions)
