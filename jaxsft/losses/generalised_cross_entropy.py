"""Generalised cross-entropy: between cross-entropy and the mean absolute error, so that a label
that the model finds absurd pulls less (Zhang and Sabuncu, 2018, arXiv:1805.07836, eq. 6).
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
class GeneralisedOptions:
    gce_q: float = option(
        0.7,
        "1: the absolute error, which noise in labels moves least; towards 0: cross-entropy",
        above=0,
        at_most=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `(1 - p^q) / q`, p the probability of the label, against smoothed targets."""
    import jax
    import jax.numpy as jnp

    q = scalars["gce_q"]
    # expm1: no cancellation where q is small
    each = -jnp.expm1(q * jax.nn.log_softmax(logits, axis=-1)) / q
    gold = jnp.take_along_axis(each, labels[..., None], axis=-1)[..., 0]
    return smoothing.expected(gold, each.mean(-1), scalars)


LOSS = Loss(values, "labels", GeneralisedOptions, scalars=smoothing.SCALARS)
