"""Losses between the vectors of two texts: values per pair, without any reduction but that over the
pairs of a batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def normalise(x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
    """Scales vectors to length 1; that of zeros stays, with a gradient of zeros."""
    square = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1))


def cosine(x: Float[Array, "... 2 embed"]) -> Float[Array, ...]:
    """Computes the cosine of the two vectors of each pair."""
    unit = normalise(x)
    return (unit[..., 0, :] * unit[..., 1, :]).sum(-1)


def cosine_embedding(
    cosine: Float[Array, ...], together: Bool[Array, ...], margin
) -> Float[Array, ...]:
    """Computes `1 - cos` of pairs that belong together, `max(0, cos - margin)` of others.

    Hadsell et al., 2006, with cosines in place of distances.
    """
    return jnp.where(together, 1 - cosine, jnp.maximum(cosine - margin, 0))


def contrastive(
    u: Float[Array, "batch texts embed"],
    v: Float[Array, "batch texts embed"],
    present: Bool[Array, "batch texts"],
    temperature,
):
    """Computes InfoNCE with all other pairs of the batch as negatives, the mean of both directions.

    van den Oord et al., 2018, arXiv:1807.03748; both directions as in CLIP (Radford et al.,
    2021): `-log softmax_j(u_i v_j / t)[i]` and the same with u and v exchanged. It does not add
    over micro-batches.

    Args:
      u, v: unit vectors; absent pairs are no negatives.

    Returns: `[batch, texts]`, 0 for absent pairs.
    """
    a, b, there = u.reshape(-1, u.shape[-1]), v.reshape(-1, v.shape[-1]), present.reshape(-1)
    scores = jnp.einsum("id,jd->ij", a, b, precision=jax.lax.Precision.HIGHEST) / temperature
    low = jnp.finfo(scores.dtype).min
    right = jnp.diagonal(scores)
    one = jax.nn.logsumexp(jnp.where(there[None, :], scores, low), axis=1) - right
    other = jax.nn.logsumexp(jnp.where(there[:, None], scores, low), axis=0) - right
    return jnp.where(there, (one + other) / 2, 0).reshape(present.shape)
