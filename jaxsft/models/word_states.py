"""Word states from token states.

Letters: B batch, S positions of a row, W words of a row, D embed.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def first_piece(
    x: Float[Array, "batch seq ..."], words: Mapping[str, Array]
) -> Float[Array, "batch words ..."]:
    """Returns the state at the first piece of each word; the row's first state for no word."""
    index = words["start"].reshape(*words["start"].shape, *[1] * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1)


def word_of(words: Mapping[str, Array], positions: int) -> Int[Array, "batch seq"]:
    """Returns the word that each position belongs to, `[B, S]`; W where it belongs to none."""
    there, count = words["segment"] > 0, words["segment"].shape[1]

    def of_row(start, stop, there):
        starts = (
            jnp.zeros(positions + 1, jnp.int32)
            .at[jnp.where(there, start, positions)]
            .add(1)[:positions]
        )
        word = jnp.cumsum(starts) - 1
        inside = (word >= 0) & (jnp.arange(positions) < stop[word])
        return jnp.where(inside, word, count)

    return jax.vmap(of_row)(words["start"], words["stop"], there)


def mean_of_pieces(
    x: Float[Array, "batch seq ..."], words: Mapping[str, Array]
) -> Float[Array, "batch words ..."]:
    """Returns the mean state over the pieces of each word; 0 where there is no word."""
    count = words["segment"].shape[1]
    pieces = jnp.maximum(words["stop"] - words["start"], 1).reshape(
        *words["start"].shape, *[1] * (x.ndim - 2)
    )
    add = lambda values, word: (
        jnp.zeros((count + 1, *values.shape[1:]), values.dtype).at[word].add(values)[:count]
    )
    return jax.vmap(add)(x, word_of(words, x.shape[1])) / pieces
