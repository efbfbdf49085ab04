"""Soft tokens: vectors of the numbers and classes beside a text, which take the place of tokens."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxsft.models.attention import TokenInfo
from jaxsft.products import at_least_fp32
from jaxsft.sharding.weights import declare


class Soft(NamedTuple):
    """Vectors in place of the embeddings of the tokens where `mask` is true."""

    mask: Bool[Array, "batch seq"]
    vectors: Float[Array, "batch seq embed"]


class Features(nn.Module):
    """The vectors of columns: `columns[i] + number * numbers[i] + table[class]`.

    Rows have unit length at the start, as those of tokens.

    Row 0 of a column in the table, that of classes which training did not have, begins at 0 and
    stays there unless values are missing in training.

    Attributes:
      sizes: of each column how many classes it has; 0: it is a number, which is there (class 0) or
        missing (class 1).
    """

    sizes: tuple[int, ...]
    embed: int

    @nn.compact
    def __call__(
        self,
        numbers: Float[Array, "batch texts columns"],
        classes: Int[Array, "batch texts columns"],
    ) -> Float[Array, "batch texts columns embed"]:
        rows = np.maximum(self.sizes, 2)
        first = np.cumsum(rows) - rows
        unit = nn.initializers.normal(self.embed**-0.5)

        def table(key, shape, dtype):
            return unit(key, shape, dtype).at[first].set(0)

        axes, shape = ("positions", "embed"), (len(self.sizes), self.embed)
        columns, slopes = (
            self.param(name, declare(unit, axes), shape) for name in ("columns", "numbers")
        )
        y = columns + numbers[..., None] * slopes
        return y + jnp.take(
            self.param("table", declare(table, axes), (int(rows.sum()), self.embed)),
            first + classes,
            axis=0,
        )


def place(vectors: Float[Array, "batch texts columns embed"], where: TokenInfo, start: int) -> Soft:
    """Places the vectors of each text at its positions `start`, `start + 1`, ..."""
    b, _, columns, embed = vectors.shape
    at = where.positions - start
    mask = (where.segment_ids > 0) & (at >= 0) & (at < columns)
    index = jnp.where(mask, (where.segment_ids - 1) * columns + at, 0)
    found = jnp.take_along_axis(vectors.reshape(b, -1, embed), index[..., None], axis=1)
    return Soft(mask, found.astype(at_least_fp32(found.dtype)))
