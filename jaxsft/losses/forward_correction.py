"""Forward correction: what the model says of the true label is turned into what it says of the
label that was given, by how often each is taken for each (Patrini et al., 2017, arXiv:1609.03683,
theorem 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxsft.losses import Loss
from jaxsft.losses.terms import smoothing

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def values(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Mapping[str, Any]
) -> Float[Array, ...]:
    """Computes `-log sum_t T[t, y] p_t`, T the probability of the given label by the true one,
    against smoothed targets.
    """
    import jax
    import jax.numpy as jnp

    log_p = jax.nn.log_softmax(logits, axis=-1)
    matrix = jnp.asarray(scalars["transition"], logits.dtype)
    gold = jax.nn.logsumexp(log_p, b=matrix.T[labels], axis=-1)
    given = jnp.einsum("...t,ty->...y", jnp.exp(log_p), matrix, precision="highest")
    least = jnp.finfo(logits.dtype).tiny  # a label that is never given has a logarithm all the same
    return smoothing.expected(-gold, -jnp.log(jnp.maximum(given, least)).mean(-1), scalars)


LOSS = Loss(
    values,
    "labels",
    scalars=smoothing.SCALARS,
    needs=(("task.transition", "it reads how often each label is taken for each"),),
    inputs=("transition",),
)
