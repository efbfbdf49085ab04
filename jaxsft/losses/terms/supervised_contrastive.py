"""The supervised contrastive loss: the vectors of texts of one label are nearer to each other than
to those of others in the batch (Khosla et al., 2020, arXiv:2004.11362, eq. 2; beside cross-entropy:
Gunel et al., 2021, arXiv:2011.01403).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxsft.losses.terms import pairs


def values(
    vectors: Float[Array, "batch texts embed"],
    labels: Int[Array, "batch texts"],
    present: Bool[Array, "batch texts"],
    temperature: Any,
) -> Float[Array, "batch texts"]:
    """Computes `-mean_p log(exp(u_i u_p / t) / sum_(a != i) exp(u_i u_a / t))`, p the other texts
    of the label of i, and u vectors of length 1.

    Returns: 0 for a text without another of its label, and for absent ones. It does not add over
    micro-batches.
    """
    unit = pairs.normalise(vectors).reshape(-1, vectors.shape[-1])
    label, there = labels.ravel(), present.ravel()
    scores = jnp.einsum("id,jd->ij", unit, unit, precision=jax.lax.Precision.HIGHEST) / temperature
    others = there[None, :] & ~jnp.eye(len(unit), dtype=bool)
    low = jnp.finfo(scores.dtype).min
    log_p = scores - jax.nn.logsumexp(jnp.where(others, scores, low), axis=1, keepdims=True)
    same = others & (label[:, None] == label[None, :])
    count = same.sum(1)
    mean = jnp.where(same, log_p, 0).sum(1) / jnp.maximum(count, 1)
    return jnp.where(there & (count > 0), -mean, 0).reshape(labels.shape)
