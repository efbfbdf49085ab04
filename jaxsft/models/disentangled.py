"""Disentangled attention: scores of content with relative positions, both ways, beside those of
content with content (He et al., 2020, arXiv:2006.03654, eq. 4; shared projections and logarithmic
buckets as in DeBERTa-v3, arXiv:2111.09543).

Letters: B batch, S queries, T keys, H heads, N head dim, D embed, R relative positions.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models.layers import Norm
from jaxsft.products import contract
from jaxsft.sharding.weights import declare


def bucket_of_distance(buckets: int, longest: int) -> np.ndarray:
    """Returns the bucket of each distance, `[longest + 1]`.

    Distances up to half of the buckets have one each; beyond that the bucket grows with the
    logarithm, and is `buckets` from `longest` on. In float32, as the published weights were
    trained.
    """
    half, distance = buckets // 2, np.arange(longest + 1, dtype=np.float32)
    ratio = np.log(np.maximum(distance, 1) / np.float32(half)) / np.log(
        np.float32((longest - 1) / half)
    )
    grown = np.ceil(ratio * np.float32(half - 1)) + half
    return np.where(distance <= half, distance, grown).astype(np.int32)


def row_of(behind: Int[Array, ...], buckets: int, longest: int) -> Int[Array, ...]:
    """Returns the table row of a key `behind` positions behind its query."""
    table = jnp.asarray(bucket_of_distance(buckets, longest))
    bucket = jnp.sign(behind) * table[jnp.minimum(jnp.abs(behind), longest)]
    return jnp.clip(bucket + buckets, 0, 2 * buckets - 1)


class Disentangled(nn.Module):
    """The normed table of relative positions `[R, D]`, which all layers share.

    It also gives its row for each query and key, `[B, S, T]`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, queries: Int[Array, "batch queries"], keys: Int[Array, "batch keys"]
    ) -> tuple[Float[Array, "rows embed"], Int[Array, "batch queries keys"]]:
        c = self.config
        w = self.param(
            "w",
            declare(nn.initializers.normal(c.embed**-0.5), ("positions", "embed")),
            (2 * c.relative_buckets, c.embed),
        )
        behind = queries[:, :, None] - keys[:, None, :]
        return Norm.of(c, name="norm")(w), row_of(behind, c.relative_buckets, c.relative_distance)


def bias(
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys heads head_dim"],
    position_q: Float[Array, "rows heads head_dim"],
    position_k: Float[Array, "rows heads head_dim"],
    rows: Int[Array, "batch queries keys"],
    precision: str,
) -> Float[Array, "batch heads queries keys"]:
    """Computes the content-to-position plus position-to-content scores, `[B, H, S, T]`."""
    to_position = contract("bshn,rhn->bhsr", q, position_k, precision)
    from_position = contract("bthn,rhn->bhtr", k, position_q, precision)
    there = jnp.take_along_axis(to_position, rows[:, None], axis=3)
    back = jnp.take_along_axis(from_position, rows[:, None].swapaxes(2, 3), axis=3).swapaxes(2, 3)
    return there + back


def scale(head_dim: int) -> float:
    """Returns `1 / sqrt(3 N)`, since three products are summed into each score."""
    return 1 / math.sqrt(3 * head_dim)
