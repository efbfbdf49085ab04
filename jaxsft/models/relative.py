"""Relative positions as a bias of the scores, learnt by buckets of distances (Raffel et al., 2019,
arXiv:1910.10683, section 2.1).

Letters: B batch, S queries, T keys, H heads.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.sharding.weights import declare


def bucket_of_distance(buckets: int, longest: int) -> np.ndarray:
    """Returns the bucket of each distance, `[longest + 1]`.

    The first half of the buckets hold one distance each, the others grow with its logarithm up
    to `longest`. In float32, as the published weights were trained.
    """
    exact = buckets // 2
    distance = np.arange(longest + 1)
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(longest / exact)
    )
    grown = exact + (ratio * np.float32(buckets - exact)).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(grown, buckets - 1)).astype(np.int32)


def bucket(ahead: Int[Array, ...], buckets: int, longest: int, causal: bool) -> Int[Array, ...]:
    """Returns the bucket of keys that stand `ahead` positions after their query.

    Without `causal`, half of the buckets are for keys that come later.
    """
    each = buckets if causal else buckets // 2
    table = jnp.asarray(bucket_of_distance(each, longest))
    distance = jnp.maximum(-ahead, 0) if causal else jnp.abs(ahead)
    found = table[jnp.minimum(distance, longest)]
    return found if causal else found + jnp.where(ahead > 0, each, 0)


class Relative(nn.Module):
    """The bias of the scores of queries and keys, `[B, H, S, T]`, from `w` `[buckets, H]`."""

    config: ModelConfig

    def __call__(
        self, queries: Int[Array, "batch queries"], keys: Int[Array, "batch keys"]
    ) -> Float[Array, "batch heads queries keys"]:
        return self.of_distances(keys[:, None, :] - queries[:, :, None])

    @nn.compact
    def of_distances(
        self, ahead: Int[Array, "batch queries keys"]
    ) -> Float[Array, "batch heads queries keys"]:
        """Computes the bias of keys that stand `ahead` positions after their query."""
        c = self.config
        w = self.param(
            "w",
            declare(nn.initializers.normal(c.embed**-0.5), ("positions", "heads")),
            (c.relative_buckets, c.heads),
        )
        return jnp.moveaxis(
            w[bucket(ahead, c.relative_buckets, c.relative_distance, c.causal)], -1, 1
        )
