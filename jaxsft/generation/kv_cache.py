"""The common part of sampling and beam search: empty caches, weight layout, prompt widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxsft.models.attention import TokenInfo
from jaxsft.models.encoder_decoder import CrossCache, Sources
from jaxsft.models.kv_slots import Cache
from jaxsft.models.model_base import Params, segments
from jaxsft.models.transformer import Transformer
from jaxsft.products import at_least_fp32

KV = tuple[tuple[Array, Array], ...]  # keys and values of each layer


def empty_kv(model: Transformer, rows: int, slots: int, dtype: Any) -> KV:
    """Returns an empty K/V cache for each layer."""
    c = model.config
    zeros = jnp.zeros((rows, c.kv_heads, slots, c.head_dim), dtype)
    return ((zeros, zeros),) * (c.decoder_layers or c.layers)


def empty_sources(model: Transformer, rows: int, width: int, dtype: Any) -> Sources | None:
    """Returns an empty cache of the sources of an encoder-decoder model; None for other models."""
    c = model.config
    if not c.decoder_layers:
        return None
    zeros = jnp.zeros((rows, width, c.kv_heads, c.head_dim), dtype)
    return Sources(jnp.zeros((rows, width), jnp.int32), ((zeros, zeros),) * c.decoder_layers)


def encoded(
    model: Transformer, params: Params, source: tuple[Array, Array] | None, dtype: Any
) -> Sources | None:
    """Encodes sources `[R, W]`, given as (ids, lengths), for the decoder.

    They stand at the beginning of their rows.
    """
    if source is None:
        return None
    ids, length = source
    index = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    return model.start(
        params, (ids, TokenInfo((index < length[:, None]).astype(jnp.int32), index)), dtype
    )


def laid_sources(sources: Sequence[Sequence[int]], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ids, lengths) of padded sources for `encoded`; further rows are filler."""
    ids, length = (
        np.zeros((rows, width_of(max(map(len, sources)))), np.int32),
        np.zeros(rows, np.int32),
    )
    for i, source in enumerate(sources):
        ids[i, : len(source)], length[i] = source, len(source)
    return ids, length


def caches_at(
    kv: KV, where: TokenInfo, slot: Array, sources: Sources | None = None
) -> tuple[Cache | CrossCache, ...]:
    """Returns caches whose slots hold the tokens of `where` once those from `slot` on exist."""
    if sources is None:
        return tuple(Cache(k, v, where, slot) for k, v in kv)
    return tuple(
        CrossCache(k, v, where, slot, sources.of(layer)) for layer, (k, v) in enumerate(kv)
    )


def cache_dtype(model: Transformer, params: Params) -> Any:
    # Half the bytes for a step to read, where products of bfloat16 are fast; on CPU those of one
    # token are not (measured: 42 against 5 ms).
    half = model.precision == "bf16" and model.platform != "cpu"
    return jnp.bfloat16 if half else at_least_fp32(params["embed"]["tokens"]["w"].dtype)


def unstacked(params: Params, used_up: bool = False) -> Params:
    """Makes every layer a segment of its own: else each call would copy a layer out of its stack
    (measured on CPU, 11 M parameters: 13 ms a token, not 8). A segment of one layer stays the array
    that it is.

    Args:
      used_up: empties the stacks of `params`, one leaf after the other, so that no more than one is
        held twice.
    """
    if "decoder" in params:
        return {**params, "decoder": unstacked(params["decoder"], used_up)}
    layers: Params = {}
    for start, stack in segments(params.get("layers", {})):
        leaves, tree = jax.tree.flatten(stack)
        if (depth := leaves[0].shape[0]) == 1:
            layers[str(start)] = stack
            continue
        if used_up:
            stack.clear()
        parts: list[list[Array]] = [[] for _ in range(depth)]
        for j in range(len(leaves)):
            whole, leaves[j] = leaves[j], None
            for i, part in enumerate(parts):
                part.append(_layer(whole, i))
            jax.block_until_ready(parts[-1][-1])
        layers |= {str(start + i): jax.tree.unflatten(tree, part) for i, part in enumerate(parts)}
    return {**params, "layers": layers} if layers else params


@jax.jit
def _layer(stack: Array, i: int) -> Array:
    return lax.dynamic_slice_in_dim(stack, i, 1)


def stacked(params: Params, depths: Mapping[int, int]) -> Params:
    """Stacks layers back into segments of these depths: the reverse of `unstacked`.

    `depths` is keyed by a segment's first layer; `params` is consumed.
    """
    if "decoder" in params:
        return {**params, "decoder": stacked(params["decoder"], depths)}
    layers: Params = {}
    for start, depth in depths.items():
        flat = [jax.tree.flatten(params["layers"].pop(str(start + i))) for i in range(depth)]
        leaves = [leaves for leaves, _ in flat]
        joined = []
        for j in range(len(leaves[0])):
            joined.append(
                leaves[0][j] if depth == 1 else jnp.concatenate([one[j] for one in leaves])
            )
            for one in leaves:
                one[j] = None
            jax.block_until_ready(joined[-1])
        layers[str(start)] = jax.tree.unflatten(flat[0][1], joined)
    return {**params, "layers": layers} if layers else params


def depths_of(params: Params) -> dict[int, int]:
    """Returns the number of layers of each segment (of the decoder, if any), by its first layer."""
    found = params.get("decoder", params).get("layers", {})
    return {start: jax.tree.leaves(stack)[0].shape[0] for start, stack in segments(found)}


def width_of(longest: int) -> int:
    """Rounds a prompt length up to a power of two, so that few programs are compiled."""
    return max(16, 1 << (longest - 1).bit_length())
