"""Hard bootstrapping: the target is partly the class that the model finds likeliest (Reed et
al., 2014, arXiv:1412.6596, eq. 7).
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
class HardBootstrapOptions:
    hard_beta: float = option(
        0.8,
        "weight of the label; the rest is the likeliest class's",
        at_least=0,
        at_most=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-b log p[label] - (1 - b) log max_c p_c`.

    Label smoothing applies to the first part.
    """
    import jax
    import jax.numpy as jnp

    log_p, beta = jax.nn.log_softmax(logits, axis=-1), scalars["hard_beta"]
    gold = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    first = smoothing.expected(-gold, -log_p.mean(-1), scalars)
    return beta * first - (1 - beta) * log_p.max(-1)


LOSS = Loss(values, "labels", HardBootstrapOptions, scalars=smoothing.SCALARS)
