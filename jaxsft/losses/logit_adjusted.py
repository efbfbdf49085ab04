"""Cross-entropy of logits to which the shares of the labels are added, so that the logits alone are
those of labels that are all as frequent (Menon et al., 2021, arXiv:2007.07314, eq. 10). The same
after training is `task.prior_correction`.
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
class LogitAdjustedOptions:
    adjustment: float = option(
        1.0,
        "factor of log(share of a label) that is added in training; 0: the loss is cross-entropy",
        at_least=0,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-log softmax(z + tau log share)[y]`, against smoothed targets."""
    import jax.numpy as jnp

    from jaxsft.losses.terms import class_weights

    counts = jnp.asarray(scalars["class_counts"], logits.dtype)
    adjusted = logits + scalars["adjustment"] * class_weights.log_shares(counts)
    return cross_entropy.values(adjusted, labels, scalars)


LOSS = Loss(values, "labels", LogitAdjustedOptions, smoothing.SCALARS, inputs=("class_counts",))
