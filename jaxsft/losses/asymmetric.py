"""The asymmetric loss for sets of labels: labels that a text lacks count less the likelier that
is, and not at all below a margin (Ridnik et al., 2020, arXiv:2009.14119, eq. 5 to 7).
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
class AsymmetricOptions:
    positive_gamma: float = option(
        0.0,
        "how little a label that is there counts where it is likely",
        at_least=0,
        traced=Trace(when="read"),
    )
    negative_gamma: float = option(
        4.0,
        "how little a label that is not there counts where it is unlikely",
        at_least=0,
        traced=Trace(when="read"),
    )
    negative_margin: float = option(
        0.05,
        "probabilities of labels that are not there are lowered by it, to 0 at least",
        at_least=0,
        below=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, ...], targets: Float[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-t (1 - p)^g log p - (1 - t) q^h log(1 - q)`, q = max(p - m, 0).

    Targets lie in [0, 1].
    """
    import jax
    import jax.numpy as jnp

    def power(base, gamma):  # a power of 0 has no gradient, so that it is taken apart
        raised = jnp.where(base > 0, jnp.where(base > 0, base, 1) ** gamma, 0)
        return jnp.where(gamma > 0, raised, 1)

    there = power(jax.nn.sigmoid(-logits), scalars["positive_gamma"]) * jax.nn.log_sigmoid(logits)
    p, margin = jax.nn.sigmoid(logits), scalars["negative_margin"]
    lowered = jnp.maximum(p - margin, 0)
    # without a margin by the logits, for 1 - p may be 0
    rest = jnp.log1p(-jnp.where(margin > 0, lowered, 0))
    rest = jnp.where(margin > 0, rest, jax.nn.log_sigmoid(-logits))
    absent = power(lowered, scalars["negative_gamma"]) * rest
    return -(targets * there + (1 - targets) * absent)


LOSS = Loss(values, "probabilities", AsymmetricOptions)
