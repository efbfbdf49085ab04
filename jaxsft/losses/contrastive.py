"""InfoNCE: each text is told from those of all other pairs of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.option import Trace, option
from jaxsft.losses import Loss

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


@dataclass(frozen=True)
class ContrastiveOptions:
    temperature: float = option(
        0.05,
        "of contrastive: cosines are divided by it",
        above=0,
        traced=Trace(when="read"),
    )


def values(
    vectors: Float[Array, "batch texts 2 embed"],
    present: Bool[Array, "batch texts"],
    scalars: Mapping[str, Any],
) -> Float[Array, "batch texts"]:
    """Computes InfoNCE with all other pairs of the batch as negatives, the mean of both directions.

    van den Oord et al., 2018, arXiv:1807.03748; both directions as in CLIP (Radford et al.,
    2021): `-log softmax_j(u_i v_j / t)[i]` and the same with u and v exchanged. It does not add
    over micro-batches.

    Args:
      vectors: u and v, of length 1; absent pairs are no negatives.

    Returns: 0 for absent pairs.
    """
    import jax
    import jax.numpy as jnp

    u, v = vectors[:, :, 0], vectors[:, :, 1]
    a, b, there = u.reshape(-1, u.shape[-1]), v.reshape(-1, v.shape[-1]), present.reshape(-1)
    scores = jnp.einsum("id,jd->ij", a, b, precision=jax.lax.Precision.HIGHEST)
    scores = scores / scalars["temperature"]
    low = jnp.finfo(scores.dtype).min
    right = jnp.diagonal(scores)
    one = jax.nn.logsumexp(jnp.where(there[None, :], scores, low), axis=1) - right
    other = jax.nn.logsumexp(jnp.where(there[:, None], scores, low), axis=0) - right
    return jnp.where(there, (one + other) / 2, 0).reshape(present.shape)


LOSS = Loss(
    values,
    "nothing",
    ContrastiveOptions,
    needs=(
        ("task.encoder=bi", "it compares the vectors of two texts"),
        (
            "train.accumulate=1",
            "it compares all pairs of a batch; its sum over micro-batches is another loss",
        ),
    ),
)
