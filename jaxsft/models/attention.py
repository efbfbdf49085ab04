"""Attention over packed rows. `segment_mask` is the reference; every other path is tested against it.

Letters: B batch, S queries, T keys, H heads, K kv heads, G = H / K, N head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.schema import ModelConfig
from jaxsft.models import blocked as blocks
from jaxsft.models.layers import Linear, at_least_fp32, contract, rotate

LARGE = 512 * 512  # scores of a head and row


class Tokens(NamedTuple):
    """Where each token of a row stands. Segment 0 is padding: it attends to nothing and nothing attends to it."""

    segment_ids: Int[Array, "batch seq"]
    positions: Int[Array, "batch seq"]


class Cache(NamedTuple):
    """Keys and values of the tokens so far, and the slot that the next token is written to.

    Slots lie together: one token's product with them reads memory in order (measured on CPU: eight times faster than `[B, T, K, N]`).
    """

    k: Float[Array, "batch kv_heads slots head_dim"]
    v: Float[Array, "batch kv_heads slots head_dim"]
    tokens: Tokens  # of the slots, the new ones included
    slot: Int[Array, ""]


def segment_mask(query: Tokens, key: Tokens, causal: bool) -> Bool[Array, "batch queries keys"]:
    """Who may look at whom: same document, no padding and, when causal, no later position."""
    same = query.segment_ids[:, :, None] == key.segment_ids[:, None, :]
    real = key.segment_ids[:, None, :] > 0
    mask = same & real
    if causal:
        mask &= key.positions[:, None, :] <= query.positions[:, :, None]
    return mask | ((key.segment_ids < 0)[:, None, :] & (query.segment_ids > 0)[:, :, None])  # keys of a prefix are everyone's


def reference(q: Array, k: Array, v: Array, query: Tokens, key: Tokens, causal: bool, precision: str) -> Float[Array, "batch queries heads head_dim"]:
    """Softmax attention with the whole `[B, H, S, T]` matrix of scores (Vaswani et al., 2017); grouped queries (Ainslie et al., 2023).

    Args:
      q: `[B, S, H, N]`; k, v: `[B, T, K, N]`, K divides H.
    """
    b, s, h, n = q.shape
    kv_heads = k.shape[2]
    q = q.reshape(b, s, kv_heads, h // kv_heads, n).transpose(0, 2, 3, 1, 4)  # [B, K, G, S, N]: a plain batched matmul
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, T, N]
    scores = contract("bkgsn,bktn->bkgst", q * n**-0.5, k, precision)
    mask = segment_mask(query, key, causal)[:, None, None]
    scores = jnp.where(mask, scores.astype(at_least_fp32(scores.dtype)), jnp.finfo(jnp.float32).min)  # finite: a padding query has no key at all
    weights = jax.nn.softmax(scores, axis=-1)
    out = contract("bkgst,bktn->bkgsn", weights, v, precision).transpose(0, 3, 1, 2, 4).reshape(b, s, h, n)
    return jnp.where(query.segment_ids[:, :, None, None] > 0, out, 0)  # without a key the softmax is uniform over everything


def blocked(q: Array, k: Array, v: Array, query: Tokens, key: Tokens, causal: bool, precision: str) -> Float[Array, "batch queries heads head_dim"]:
    """The reference without its matrix: block by block, and only blocks in which somebody may look at somebody. Memory linear in the length."""

    def mask(q_where, k_where):
        one = lambda where: Tokens(*(x[None] for x in where))
        return segment_mask(one(q_where), one(k_where), causal)[0]

    return blocks.attend(q * q.shape[-1] ** -0.5, k, v, tuple(query), tuple(key), mask, precision)


PATHS = {"reference": reference, "blocked": blocked}


def choose(name: str, queries: int, keys: int) -> str:
    """`auto` is blocked where the matrix of scores would be large."""
    if name != "auto":
        return name
    return "blocked" if queries * keys >= LARGE else "reference"


class Attention(nn.Module):
    """[B, S, D] -> [B, S, D], and the cache with the new keys and values where one was given."""

    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, rope: tuple[Array, Array] | None, cache: Cache | None) -> tuple[Array, Cache | None]:
        c, d = self.config, x.shape[-1]

        def project(name, heads, axis):
            return Linear("bsd,dhn->bshn", (d, heads, c.head_dim), ("embed", axis, "head_dim"), self.precision, name=name)(x)

        q, k, v = project("q", c.heads, "heads"), project("k", c.kv_heads, "kv_heads"), project("v", c.kv_heads, "kv_heads")
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        keys, precision = tokens, self.precision
        if cache is not None:
            write = lambda old, new: lax.dynamic_update_slice_in_dim(old, new.transpose(0, 2, 1, 3).astype(old.dtype), cache.slot, axis=2)
            cache, keys = cache._replace(k=write(cache.k, k), v=write(cache.v, v)), cache.tokens
            k, v = cache.k.transpose(0, 2, 1, 3), cache.v.transpose(0, 2, 1, 3)  # [B, T, K, N]; XLA cancels it against that of the product
            precision = "bf16" if k.dtype == jnp.bfloat16 else "fp32"
        if self.has_variable("adapters", "adapter"):
            k, v, keys = self.get_variable("adapters", "adapter").keys_values(k, v, keys)
        path = PATHS[choose(c.attention, q.shape[1], k.shape[1])]
        with jax.named_scope("attend"):
            y = path(q, k, v, tokens, keys, c.causal, precision)  # [B, S, H, N]
        scale = (2 * c.layers) ** -0.5  # of what is added to the residual stream, as in GPT-2
        out = Linear("bshn,hnd->bsd", (c.heads, c.head_dim, d), ("heads", "head_dim", "embed"), self.precision, inputs=2, scale=scale, name="o")(y)
        return out, cache
