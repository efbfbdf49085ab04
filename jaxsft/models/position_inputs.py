"""How positions enter attention: as rotations (RoPE), as a bias of the scores (T5's, DeBERTa's), or
not at all, where the embeddings hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models import disentangled, rope
from jaxsft.models.disentangled import Disentangled
from jaxsft.models.relative import Relative

RELATIVE = ("relative", "learned_relative")
SHARED = {**dict.fromkeys(RELATIVE, Relative), "disentangled": Disentangled}


def shared_module(config: ModelConfig) -> nn.Module | None:
    """Returns the module of relative positions that all layers share; None without one."""
    shared = config.positions in SHARED and config.relative_shared
    return SHARED[config.positions](config) if shared else None


def inputs(
    config: ModelConfig,
    weights: Any,
    queries: Int[Array, "batch queries"],
    keys: Int[Array, "batch keys"],
    dtype: Any,
    offset: int,
    prefix: int,
) -> Any:
    """Returns the position inputs of all layers.

    With `positions=rope`, cosines and sines of the queries' positions, `rope.table`: one pair, or
    (local, global) where `rope_local_base` is set. With relative positions, what the shared module
    gives of queries and keys, or how far keys are ahead where each layer has a table of its own.
    None where the embeddings hold the positions.

    Args:
      weights: of the shared module.
      queries, keys: positions in their texts.
      offset: the position of a text's first token.
      prefix: how many keys an adapter puts before those of the row.
    """
    if config.positions in SHARED:
        # its keys have no place in the row: they stand at -P to -1, before the first token of
        # every text
        if prefix:
            before = jnp.broadcast_to(jnp.arange(-prefix, 0), (keys.shape[0], prefix))
            keys = jnp.concatenate([before, keys], axis=1)
        if module := shared_module(config):
            return module.apply({"params": weights}, queries, keys)
        return keys[:, None, :] - queries[:, :, None]
    if config.positions != "rope":
        return None
    plain = rope.table(config, queries + offset, dtype)
    if config.rope_local_base is None:
        return plain
    return rope.table(config, queries + offset, dtype, config.rope_local_base), plain


def bias(
    config: ModelConfig,
    inputs: Any,
    q: Float[Array, "batch queries heads head_dim"],
    k: Float[Array, "batch keys heads head_dim"],
    to_q: Callable[[Array], Array],
    to_k: Callable[[Array], Array],
    scale: float,
    precision: str,
) -> Float[Array, "batch heads queries keys"] | None:
    """Returns what relative positions add to the scores; None without them.

    Args:
      inputs: of `inputs`.
      to_q, to_k: the projections of the layer, `[B, S, D] -> [B, S, H, N]`.
    """
    # the keys of a prefix come first, where this layer has one
    own = slice(-k.shape[1], None)
    if config.positions in RELATIVE:
        if not config.relative_shared:
            inputs = Relative(config, name="relative").of_distances(inputs)
        return inputs[..., own]
    if config.positions != "disentangled":
        return None
    table, rows = inputs
    position_q, position_k = to_q(table[None])[0], to_k(table[None])[0]
    return scale * disentangled.bias(q, k, position_q, position_k, rows[..., own], precision)
