"""Cross-entropy in which a label counts by the effective number of its training rows: the more rows
there are, the less each of them adds (Cui et al., 2019, arXiv:1901.05555).
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
class EffectiveNumberOptions:
    effective_beta: float = option(
        0.999,
        "0: no weights; towards 1: by the inverse of how often a label is",
        at_least=0,
        below=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-w_y log p[y]`, w by `(1 - beta) / (1 - beta^n_y)`, against smoothed targets."""
    import jax.numpy as jnp

    from jaxsft.losses.terms import class_weights

    counts = jnp.asarray(scalars["class_counts"], logits.dtype)
    weights = class_weights.effective(counts, scalars["effective_beta"])
    return weights[labels] * cross_entropy.values(logits, labels, scalars)


LOSS = Loss(values, "labels", EffectiveNumberOptions, smoothing.SCALARS, inputs=("class_counts",))
