"""L1 and L2 penalties on parameters by pattern. They do not depend on the batch, so the step adds
them once, after the last micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsft import patterns
from jaxsft.config.schema import Penalty
from jaxsft.errors import ConfigError

KINDS = {"l1": jnp.abs, "l2": jnp.square}


def masks(penalties: Sequence[Penalty], specs: Any) -> list[Any]:
    """Returns for each penalty a tree of factors 0 or 1, per layer of a stack where they differ.

    Raises ConfigError where a pattern matches nothing.
    """
    for penalty in penalties:
        if penalty.kind not in KINDS:
            raise ConfigError(f"loss.penalties: unknown kind {penalty.kind}; there are l1 and l2")
    return [
        patterns.resolve([(p.pattern, 1.0)], specs, 0.0, option="loss.penalties") for p in penalties
    ]


def penalty(kind: str, params: Any, mask: Any) -> Array:
    """Computes `sum |w|` (l1) or `sum w^2` (l2, no factor 1/2) over the matching parameters."""

    def one(w, m):
        factor = (
            jnp.reshape(jnp.asarray(m, w.dtype), (-1,) + (1,) * (w.ndim - 1))
            if getattr(m, "ndim", 0)
            else m
        )
        return (KINDS[kind](w) * factor).sum()

    return sum(jax.tree.leaves(jax.tree.map(one, params, mask)))
