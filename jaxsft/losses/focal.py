"""The focal loss: cross-entropy that says little of labels that are already likely (Lin et al.,
2017, arXiv:1708.02002, eq. 4).
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
class FocalOptions:
    focal_gamma: float = option(
        2.0,
        "how little a likely label counts; 0: the loss is cross-entropy",
        at_least=0,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-(1 - p)^gamma log p`, p the probability of the label, against smoothed targets."""
    import jax
    import jax.numpy as jnp

    gamma = scalars["focal_gamma"]
    log_p = jax.nn.log_softmax(logits, axis=-1)
    # 1 - p without cancellation; a power of 0 has no gradient, so that p = 1 is taken apart
    rest = -jnp.expm1(log_p)
    factor = jnp.where(rest > 0, jnp.where(rest > 0, rest, 1) ** gamma, 0)
    each = -jnp.where(gamma > 0, factor, 1) * log_p
    gold = jnp.take_along_axis(each, labels[..., None], axis=-1)[..., 0]
    return smoothing.expected(gold, each.mean(-1), scalars)


LOSS = Loss(values, "labels", FocalOptions, scalars=smoothing.SCALARS)
