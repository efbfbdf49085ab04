"""Cross-entropy in which a label counts the more the fewer training rows have it, by the inverse of
their number or a root of it (King and Zeng, 2001; with a power of 1 the weights that scikit-learn
calls balanced).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss, cross_entropy
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class InverseFrequencyOptions:
    inverse_power: float = option(
        1.0,
        "1: labels weigh the same together; 0.5: by the root of how often each is; 0: no weights",
        at_least=0,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-w_y log p[y]`, w by `n_y^-power`, against smoothed targets."""
    import jax.numpy as jnp

    from jaxsft.losses.terms import class_weights

    counts = jnp.asarray(scalars["class_counts"], logits.dtype)
    weights = class_weights.inverse(counts, scalars["inverse_power"])
    return weights[labels] * cross_entropy.values(logits, labels, scalars)


LOSS = Loss(values, "labels", InverseFrequencyOptions, smoothing.SCALARS, inputs=("class_counts",))
