"""The poly loss: cross-entropy whose first polynomial term has a weight of its own (Leng et al.,
2022, arXiv:2204.12511, eq. 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@dataclass(frozen=True)
class PolyOptions:
    poly_epsilon: float = option(
        1.0,
        "added to the weight of 1 - p; above 0 likely labels count more, below 0 less",
        at_least=-1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-log p + e (1 - p)`, p the probability of the label, against smoothed targets."""
    import jax
    import jax.numpy as jnp

    log_p = jax.nn.log_softmax(logits, axis=-1)
    each = -log_p - scalars["poly_epsilon"] * jnp.expm1(log_p)
    gold = jnp.take_along_axis(each, labels[..., None], axis=-1)[..., 0]
    return smoothing.expected(gold, each.mean(-1), scalars)


LOSS = Loss(values, "labels", PolyOptions, scalars=smoothing.SCALARS)
