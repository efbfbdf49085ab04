"""Attention over packed rows. `segment_mask` is the reference; every other path is tested against
it.

Letters: B batch, S queries, T keys, H heads, K kv heads, G = H / K, N head dim.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models import blocked as blocks
from jaxsft.models import disentangled
from jaxsft.models.layers import Linear, Norm
from jaxsft.models.rope import rotate
from jaxsft.products import at_least_fp32, contract

LARGE = 512 * 512  # scores of a head and row


class TokenInfo(NamedTuple):
    """Segment, position and type of each token of a batch of rows.

    Segment 0 is padding: it attends to nothing and nothing attends to it.
    """

    segment_ids: Int[Array, "batch seq"]
    positions: Int[Array, "batch seq"]
    # which text of a pair a token is of; None: all of the first
    types: Int[Array, "batch seq"] | None = None


class Cache(NamedTuple):
    """The keys and values of the tokens so far, and the slot that the next token is written to.

    Slots lie together: one token's product with them reads memory in order (measured on CPU: eight
    times faster than `[B, T, K, N]`).
    """

    k: Float[Array, "batch kv_heads slots head_dim"]
    v: Float[Array, "batch kv_heads slots head_dim"]
    tokens: TokenInfo  # of the slots, the new ones included
    slot: Int[Array, ""]


class ScoreOptions(NamedTuple):
    """The changes of the products of queries and keys before the softmax.

    Attributes:
      causal: no later position is seen.
      scale: of the queries.
      softcap: scores become `cap tanh(score / cap)` (Gemma 2, arXiv:2408.00118, section 2).
    """

    causal: bool
    scale: float
    softcap: float | None = None

    def cap(self, scores: Array) -> Array:
        return scores if self.softcap is None else self.softcap * jnp.tanh(scores / self.softcap)

    def slope(self, capped: Array) -> Array | float:
        """Returns the derivative of `cap`, computed from the value that `cap` returned."""
        return 1.0 if self.softcap is None else 1 - jnp.square(capped / self.softcap)


def segment_mask(
    query: TokenInfo, key: TokenInfo, causal: bool, window: Int[Array, ""] | None = None
) -> Bool[Array, "batch queries keys"]:
    """Returns which query may attend to which key.

    Both lie in the same segment and neither is padding; with `causal`, the key is not at a
    later position; with a window, their positions differ by less than it.
    """
    same = query.segment_ids[:, :, None] == key.segment_ids[:, None, :]
    real = key.segment_ids[:, None, :] > 0
    mask = same & real
    ahead = key.positions[:, None, :] - query.positions[:, :, None]
    if causal:
        mask &= ahead <= 0
    if window is not None:
        mask &= jnp.abs(ahead) < window
    # keys of a prefix are everyone's
    return mask | ((key.segment_ids < 0)[:, None, :] & (query.segment_ids > 0)[:, :, None])


def reference(
    q: Array,
    k: Array,
    v: Array,
    query: TokenInfo,
    key: TokenInfo,
    how: ScoreOptions,
    precision: str,
    window: Int[Array, ""] | None = None,
    bias: Array | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes softmax attention with the full `[B, H, S, T]` score matrix (Vaswani et al., 2017).

    Several query heads may share a key head (grouped queries: Ainslie et al., 2023).

    Args:
      q: `[B, S, H, N]`; k, v: `[B, T, K, N]`, K divides H.
      window: of `segment_mask`.
      bias: `[B, H, S, T]`, added to the scores.
    """
    b, s, h, n = q.shape
    kv_heads = k.shape[2]
    # [B, K, G, S, N]: a plain batched matmul
    q = q.reshape(b, s, kv_heads, h // kv_heads, n).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, T, N]
    scores = how.cap(contract("bkgsn,bktn->bkgst", q * how.scale, k, precision))
    if bias is not None:
        scores = scores + bias.reshape(b, kv_heads, h // kv_heads, *bias.shape[2:])
    mask = segment_mask(query, key, how.causal, window)[:, None, None]
    # finite: a padding query has no key at all
    scores = jnp.where(mask, scores.astype(at_least_fp32(scores.dtype)), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    out = (
        contract("bkgst,bktn->bkgsn", weights, v, precision)
        .transpose(0, 3, 1, 2, 4)
        .reshape(b, s, h, n)
    )
    # without a key the softmax is uniform over everything
    return jnp.where(query.segment_ids[:, :, None, None] > 0, out, 0)


def blocked(
    q: Array,
    k: Array,
    v: Array,
    query: TokenInfo,
    key: TokenInfo,
    how: ScoreOptions,
    precision: str,
    window: Int[Array, ""] | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes the same as `reference` block by block, without the score matrix.

    Blocks in which no query may attend to any key are skipped; memory is linear in the length.
    """

    def mask(q_where, k_where):
        q_where, reach = (q_where[:2], q_where[2][0]) if len(q_where) == 3 else (q_where, None)
        one = lambda where: TokenInfo(*(x[None] for x in where))
        return segment_mask(one(q_where), one(k_where), how.causal, reach)[0]

    # A traced window is an argument, one copy a query: what a custom gradient closes over has no
    # trace.
    reach = () if window is None else (jnp.broadcast_to(window, query.positions.shape),)
    return blocks.attend(
        q * how.scale,
        k,
        v,
        (*query[:2], *reach),
        key[:2],
        blocks.Rules(mask, how.cap, how.slope, precision),
    )


PATHS = {"reference": reference, "blocked": blocked}


def choose(name: str, queries: int, keys: int) -> str:
    """Returns the attention path: `auto` becomes blocked where the score matrix would be large."""
    if name != "auto":
        return name
    return "blocked" if queries * keys >= LARGE else "reference"


class Attention(nn.Module):
    """Multi-head attention, [B, S, D] -> [B, S, D], and the cache with the new keys and values."""

    config: ModelConfig
    precision: str

    @nn.compact
    def __call__(
        self,
        x: Array,
        tokens: TokenInfo,
        rope: tuple[Array, Array] | None,
        cache: Cache | None,
        window: Int[Array, ""] | None = None,
    ) -> tuple[Array, Cache | None]:
        c, d = self.config, x.shape[-1]

        def projection(name, heads, axis):
            shape, axes = (d, heads, c.head_dim), ("embed", axis, "head_dim")
            return Linear("bsd,dhn->bshn", shape, axes, self.precision, bias=c.qkv_bias, name=name)

        to_q, to_k, to_v = (
            projection("q", c.heads, "heads"),
            projection("k", c.kv_heads, "kv_heads"),
            projection("v", c.kv_heads, "kv_heads"),
        )
        q, k, v = to_q(x), to_k(x), to_v(x)
        if c.qk_norm != "none":  # Henry et al., 2020, arXiv:2010.04245
            q, k = self._norm("q_norm", "heads")(q), self._norm("k_norm", "kv_heads")(k)
        how = ScoreOptions(
            c.causal,
            c.head_dim**-0.5 if c.query_scale is None else c.query_scale,
            c.attention_softcap,
        )
        if c.positions == "rope":
            q, k = rotate(q, rope), rotate(k, rope)
        keys, precision = tokens, self.precision
        if cache is not None:
            write = lambda old, new: lax.dynamic_update_slice_in_dim(
                old, new.transpose(0, 2, 1, 3).astype(old.dtype), cache.slot, axis=2
            )
            cache, keys = cache._replace(k=write(cache.k, k), v=write(cache.v, v)), cache.tokens
            # [B, T, K, N]; XLA cancels it against that of the product
            k, v = cache.k.transpose(0, 2, 1, 3), cache.v.transpose(0, 2, 1, 3)
            precision = "bf16" if k.dtype == jnp.bfloat16 else "fp32"
        if self.has_variable("adapters", "adapter"):
            k, v, keys = self.get_variable("adapters", "adapter").keys_values(k, v, keys)
        # the keys of a prefix come first, where this layer has one
        bias, own = None, slice(-k.shape[1], None)
        if c.positions == "relative":
            bias = rope[..., own]
        if c.positions == "disentangled":
            of_positions, rows = rope
            bias = how.scale * disentangled.bias(
                q,
                k,
                to_q(of_positions[None])[0],
                to_k(of_positions[None])[0],
                rows[..., own],
                self.precision,
            )
        path = (
            PATHS[choose(c.attention, q.shape[1], k.shape[1])]
            if bias is None
            else functools.partial(reference, bias=bias)
        )
        with jax.named_scope("attend"):
            y = path(q, k, v, tokens, keys, how, precision, window)  # [B, S, H, N]
        scale = (2 * c.layers) ** -0.5  # of what is added to the residual stream, as in GPT-2
        shape, axes = (c.heads, c.head_dim, d), ("heads", "head_dim", "embed")
        return (
            Linear(
                "bshn,hnd->bsd",
                shape,
                axes,
                self.precision,
                inputs=2,
                scale=scale,
                bias=c.o_bias,
                name="o",
            )(y),
            cache,
        )

    def _norm(self, name: str, heads: str) -> Norm:
        return Norm.of(
            self.config,
            axes=("head_dim",) if self.config.qk_norm == "head" else (heads, "head_dim"),
            name=name,
        )
