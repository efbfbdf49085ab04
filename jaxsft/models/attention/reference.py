"""Who may attend to whom, and softmax attention with the whole score matrix: what every other
backend must equal.

Letters: B batch, S queries, T keys, H heads, K kv heads, G = H / K, N head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from jaxsft.models.attention.needs import CONTEXT
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.products import at_least_fp32, contract


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


def run(
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
    (b, s, h, n), dtype = q.shape, q.dtype
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
    out = jnp.where(query.segment_ids[:, :, None, None] > 0, out, 0)
    return checkpoint_name(out.astype(dtype), CONTEXT)
