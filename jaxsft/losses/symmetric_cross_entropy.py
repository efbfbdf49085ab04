"""Symmetric cross-entropy: cross-entropy, and that of the label under the prediction, which
noise in labels moves less (Wang et al., 2019, arXiv:1908.06112, eq. 6 and 7).
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
class SymmetricOptions:
    sce_alpha: float = option(0.1, "weight of cross-entropy", at_least=0, traced=Trace(when="read"))
    sce_beta: float = option(
        1.0, "weight of reverse cross-entropy", at_least=0, traced=Trace(when="read")
    )
    sce_log_zero: float = option(
        -4.0,
        "what stands for the logarithm of the probability 0 of other labels",
        below=0,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-a log p + b A (p - 1)`: of other labels, whose targets are 0, the logarithm is A.

    Label smoothing applies to the first part.
    """
    import jax
    import jax.numpy as jnp

    log_p = jax.nn.log_softmax(logits, axis=-1)
    gold = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    forward = smoothing.expected(-gold, -log_p.mean(-1), scalars)
    reverse = scalars["sce_log_zero"] * jnp.expm1(gold)
    return scalars["sce_alpha"] * forward + scalars["sce_beta"] * reverse


LOSS = Loss(values, "labels", SymmetricOptions, scalars=smoothing.SCALARS)
