"""Distillation: how far a student's distribution over classes is from its teacher's (Hinton et al.,
2015, arXiv:1503.02531, section 2).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def divergence(
    student: Float[Array, "... classes"],
    teacher: Float[Array, "... classes"],
    temperature: Float[Array, ""] | float,
    direction: str,
) -> Float[Array, ...]:
    """Computes `T^2 KL(p || q)` of the softmaxes of logits that are divided by T.

    forward: p is the teacher's and q the student's; reverse: the other way. T^2 keeps the size of
    the gradient where T changes.
    """
    q, p = (jax.nn.log_softmax(logits / temperature, axis=-1) for logits in (student, teacher))
    if direction == "reverse":
        p, q = q, p
    return temperature**2 * (jnp.exp(p) * (p - q)).sum(-1)
