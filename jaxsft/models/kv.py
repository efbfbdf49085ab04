"""What greedy decoding, sampling and beam search share: empty caches, their dtype, the layout of weights, the widths of prompts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsft.models.attention import Cache, Tokens
from jaxsft.models.layers import at_least_fp32
from jaxsft.models.transformer import Params, Transformer, segments

KV = tuple[tuple[Array, Array], ...]  # keys and values of each layer


def empty_kv(model: Transformer, rows: int, slots: int, dtype: Any) -> KV:
    """Of every layer."""
    zeros = jnp.zeros((rows, model.config.kv_heads, slots, model.config.head_dim), dtype)
    return ((zeros, zeros),) * model.config.layers


def caches_at(kv: KV, where: Tokens, slot: Array) -> tuple[Cache, ...]:
    """Caches whose slots hold the tokens of `where` once those from `slot` on are written."""
    return tuple(Cache(k, v, where, slot) for k, v in kv)


def cache_dtype(model: Transformer, params: Params) -> Any:
    # Half the bytes for a step to read, where products of bfloat16 are fast; on CPU those of one token are not (measured: 42 against 5 ms).
    half = model.precision == "bf16" and jax.default_backend() != "cpu"
    return jnp.bfloat16 if half else at_least_fp32(params["embed"]["tokens"]["w"].dtype)


@jax.jit
def unstacked(params: Params) -> Params:
    """Every layer a segment of its own: each call would copy a layer out of its stack (measured on CPU, 11 M parameters: 13 ms a token, not 8)."""
    layers = {}
    for start, stack in segments(params["layers"]):
        for i in range(jax.tree.leaves(stack)[0].shape[0]):
            layers[str(start + i)] = jax.tree.map(lambda w: w[i : i + 1], stack)
    return {**params, "layers": layers}


def width_of(longest: int) -> int:
    """Prompt widths are powers of two, so that few programs are compiled."""
    return max(16, 1 << (longest - 1).bit_length())
