"""How far two passes of the same texts are apart that differ in their dropout (R-Drop: Liang et
al., 2021, arXiv:2106.14448, eq. 2).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def divergence(
    one: Float[Array, "... classes"], other: Float[Array, "... classes"]
) -> Float[Array, ...]:
    """Computes `(KL(p || q) + KL(q || p)) / 2` of the softmaxes p and q of two sets of logits."""
    log_p, log_q = jax.nn.log_softmax(one, axis=-1), jax.nn.log_softmax(other, axis=-1)
    return ((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)).sum(-1) / 2
