"""Rows of the vocabulary that do not start as the others do: word vectors from a file, and added
tokens; and which rows are trained.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.data import vectors
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError

VOCAB = "vocab"  # the logical axis


def with_vectors(params: Any, found: vectors.VectorRows) -> Any:
    """Replaces the rows of the embedding that have a vector; the others stay as they are.

    Raises ConfigError where the sizes differ.
    """
    table = params["embed"]["tokens"]["w"]
    if found.vectors.shape[1] != table.shape[1]:
        size = found.vectors.shape[1]
        raise ConfigError(
            f"model.vectors: its vectors have {size} numbers, the embedding {table.shape[1]}; set"
            f" model.embed_inner={size}, which a linear layer brings to model.embed, or"
            f" model.embed={size}"
        )
    new = jax.jit(
        lambda w: w.at[found.rows].set(found.vectors.astype(w.dtype)), out_shardings=table.sharding
    )(table)
    return {**params, "embed": {**params["embed"], "tokens": {"w": new}}}


def extends(tokenizer: Tokenizer, other: Tokenizer) -> bool:
    """Returns whether a tokenizer is `other` with further tokens."""
    return tokenizer.extends is not None and tokenizer.extends["digest"] == other.digest


def grown(stored: dict[str, Any], specs: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Adds rows for added tokens to weights: each new row is the mean of the rows that were there.

    The mean is that of Hewitt (2021), "Initializing new word embeddings for pretrained language
    models".

    Args:
      stored: weights by path.
      specs: of the new model, by path.
      tokenizer: with `extends`.
    """
    old, out = tokenizer.extends["rows"], dict(stored)
    for name, spec in specs.items():
        if VOCAB in spec.axes and name in stored:
            out[name] = _grow(
                stored[name],
                spec.axes.index(VOCAB),
                old,
                tokenizer.vocab_size,
                spec.shape[spec.axes.index(VOCAB)],
            )
    return out


def _grow(w: Any, axis: int, old: int, new: int, rows: int) -> Any:
    """Fills rows `[old, new)` along `axis` with the mean of the first `old`, `rows` rows in all.

    What lies behind them are rows without a token, as there may be at the end of a table; they are
    kept.
    """
    take = lambda start, stop: jax.lax.slice_in_dim(w, start, stop, axis=axis)
    mean = (
        take(0, old)
        .mean(axis, keepdims=True, dtype=jnp.promote_types(w.dtype, jnp.float32))
        .astype(w.dtype)
    )
    behind = max(min(w.shape[axis], rows) - new, 0)
    fill = rows - old - behind
    parts = [
        take(0, old),
        jnp.repeat(mean, fill, axis),
        *([take(new, new + behind)] if behind else []),
    ]
    return jnp.concatenate(parts, axis)


def trained(specs: Any, tokenizer: Tokenizer) -> Any:
    """Returns which rows of each weight are trained under `model.train_rows=added`.

    They are bool arrays that broadcast against the weight, or True where it has no such rows.
    """
    first = tokenizer.extends["rows"]

    def mask(spec: Any) -> Any:
        if VOCAB not in spec.axes:
            return np.True_
        axis = spec.axes.index(VOCAB)
        chosen = np.arange(spec.shape[axis])
        chosen = (chosen >= first) & (chosen < tokenizer.vocab_size)
        return chosen.reshape([-1 if i == axis else 1 for i in range(len(spec.shape))])

    return jax.tree.map(mask, specs)


def only(masks: Any, tree: Any) -> Any:
    """Returns the tree with zeros where the masks are false."""
    return jax.tree.map(lambda m, x: jnp.where(m, x, jnp.zeros_like(x)), masks, tree)
