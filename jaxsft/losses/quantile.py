"""The quantile loss, whose minimum is a quantile of the numbers and not their mean (Koenker and
Bassett, 1978).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True)
class QuantileOptions:
    quantile: float = option(
        0.5,
        "that is predicted; 0.5: the median",
        above=0,
        below=1,
        traced=Trace(when="read"),
    )


def values(
    predictions: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `max(q e, (q - 1) e)`, e the target less the prediction."""
    import jax.numpy as jnp

    error = targets - predictions
    return jnp.maximum(scalars["quantile"] * error, (scalars["quantile"] - 1) * error)


LOSS = Loss(values, "numbers", QuantileOptions)
