"""Label-distribution-aware margins: rare labels must win by more; late in training labels weigh by
their effective number too (Cao et al., 2019, arXiv:1906.07413, eq. 11 to 13 and algorithm 1).

There the logits are 30 times a cosine, so that the margin 0.5 is one of 15 between them. Here
logits are what the head gives, and the margin is between these.
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
class MarginOptions:
    largest_margin: float = option(
        0.5,
        "of the logit of the rarest label; others have it by n^(-1/4). 0: no margins",
        at_least=0,
        traced=Trace(when="read"),
    )
    reweight_after: str = option(
        "80%",
        "of the training, after which labels weigh; 100%: never",
        duration=True,
        at_least=0,
        traced=Trace(when="read", kind="whole_steps"),
    )
    reweight_beta: float = option(
        0.9999,
        "of these weights, as effective_beta of effective_number",
        at_least=0,
        below=1,
        traced=Trace(when="read"),
    )


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-w_y log softmax(z - m_y onehot_y)[y]`, m by `n^(-1/4)`, against smoothed targets.

    w is 1 up to `reweight_after`. An evaluation weighs as the end of training does.
    """
    import jax.numpy as jnp

    from jaxsft.losses.terms import class_weights

    counts = jnp.maximum(jnp.asarray(scalars["class_counts"], logits.dtype), 1)
    margins = scalars["largest_margin"] * (counts.min() / counts) ** 0.25
    own = labels[..., None] == jnp.arange(logits.shape[-1])
    weights = class_weights.effective(counts, scalars["reweight_beta"])
    weights = jnp.where(scalars["step"] >= scalars["reweight_after"], weights, 1)
    return weights[labels] * cross_entropy.values(logits - own * margins, labels, scalars)


LOSS = Loss(values, "labels", MarginOptions, smoothing.SCALARS, inputs=("class_counts", "step"))
