"""Soft bootstrapping: the target is partly what the model believes already, which holds it back
from learning wrong labels by heart (Reed et al., 2014, arXiv:1412.6596, eq. 6).
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
class SoftBootstrapOptions:
    soft_beta: float = option(
        0.95,
        "weight of the label; the rest is the prediction's",
        at_least=0,
        at_most=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-b log p[label] - (1 - b) sum_c p_c log p_c`, with the gradient of both
    factors of the sum.

    Label smoothing applies to the first part.
    """
    import jax
    import jax.numpy as jnp

    log_p, beta = jax.nn.log_softmax(logits, axis=-1), scalars["soft_beta"]
    gold = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    entropy = -(jnp.exp(log_p) * log_p).sum(-1)
    return beta * smoothing.expected(-gold, -log_p.mean(-1), scalars) + (1 - beta) * entropy


LOSS = Loss(values, "labels", SoftBootstrapOptions, scalars=smoothing.SCALARS)
