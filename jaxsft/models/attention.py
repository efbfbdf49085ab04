"""Attention over packed rows. `segment_mask` is the reference; every other path is tested against
it.

Letters: B batch, S queries, T keys, H heads, K kv heads, G = H / K, N head dim.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxsft.config.model import ModelConfig
from jaxsft.models import blocked, position_inputs
from jaxsft.models.kv_slots import Cache
from jaxsft.models.layers import Linear, Norm
from jaxsft.models.rope import rotate
from jaxsft.models.score_options import ScoreOptions
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


PATHS = {
    "reference": reference,
    "blocked": functools.partial(blocked.over_tokens, segment_mask),
}


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
        positions: Any,
        cache: Cache | None,
        window: Int[Array, ""] | None = None,
    ) -> tuple[Array, Cache | None]:
        """Computes it; `positions` are those of `position_inputs.inputs`, `cache` and `window` are
        None but in generation and in layers that see only what is near.
        """
        c, d = self.config, x.shape[-1]

        def projection(name, heads, axis):
            shape, axes = (d, heads, c.head_dim), ("embed", axis, "head_dim")
            return Linear("bsd,dhn->bshn", shape, axes, self.precision, bias=c.qkv_bias, name=name)

        to_q = projection("q", c.heads, "heads")
        to_k, to_v = (projection(name, c.kv_heads, "kv_heads") for name in ("k", "v"))
        q, k, v = to_q(x), to_k(x), to_v(x)
        if c.qk_norm != "none":  # Henry et al., 2020, arXiv:2010.04245
            q, k = self._norm("q_norm", "heads")(q), self._norm("k_norm", "kv_heads")(k)
        if c.positions == "rope":
            q, k = rotate(q, positions), rotate(k, positions)
        how, keys, precision = ScoreOptions.of(c, c.causal), tokens, self.precision
        if cache is not None:
            cache, keys = cache.written(k, v), cache.tokens
            k, v, precision = cache.keys_values()
        if self.has_variable("adapters", "adapter"):
            k, v, keys = self.get_variable("adapters", "adapter").keys_values(k, v, keys)
        attend = PATHS[choose(c.attention, q.shape[1], k.shape[1])]
        projected = (q, k, to_q, to_k, how.scale, self.precision)
        bias = position_inputs.bias(c, positions, *projected)
        if bias is not None:
            attend = functools.partial(reference, bias=bias)
        with jax.named_scope("attend"):
            y = attend(q, k, v, tokens, keys, how, precision, window)  # [B, S, H, N]
        out = Linear(
            "bshn,hnd->bsd",
            (c.heads, c.head_dim, d),
            ("heads", "head_dim", "embed"),
            self.precision,
            inputs=2,
            scale=(2 * c.layers) ** -0.5,  # of what is added to the residual stream, as in GPT-2
            bias=c.o_bias,
            name="o",
        )
        return out(y), cache

    def _norm(self, name: str, heads: str) -> Norm:
        axes = ("head_dim",) if self.config.qk_norm == "head" else (heads, "head_dim")
        return Norm.of(self.config, axes=axes, name=name)
