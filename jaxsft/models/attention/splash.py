"""Attention on TPU by the splash kernel that comes with JAX: segments, grouped queries, windows and
soft caps, without the score matrix.

The kernel's mask goes by the place in the row. Within a text of a packed row positions rise with
the place, so that together with "in the same segment" it is `reference.segment_mask`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsft.models.attention.needs import CONTEXT, AttentionNeeds
from jaxsft.models.attention.reference import TokenInfo
from jaxsft.models.attention.score_options import ScoreOptions

BLOCKS = (1024, 512, 256, 128)  # tokens of a tile; the largest that divides a row


def refuses(needs: AttentionNeeds, platform: str) -> str | None:
    """Returns why the kernel cannot do what is asked; None: it can."""
    if platform != "tpu":
        return f"the kernel is one of TPUs, and the devices are of the platform {platform}"
    if not needs.own:
        return "it has no place for a cache, a prefix or the keys of another text"
    if needs.queries % BLOCKS[-1]:
        return f"rows of {needs.queries} tokens are no multiple of {BLOCKS[-1]}"
    if needs.has_window and needs.static_window is None:
        return "layers differ in their window, which the kernel must know when it is compiled"
    if needs.precision == "fp32":
        return "its products are those of bfloat16; precision=fp32 asks for more"
    return None


def run(
    q: Array,
    k: Array,
    v: Array,
    query: TokenInfo,
    key: TokenInfo,
    how: ScoreOptions,
    precision: str,
    window: int | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes the same as `reference.run` for rows that attend to themselves.

    Args:
      q: `[B, S, H, N]`; k, v: `[B, S, K, N]`, K divides H.
      window: the same in all layers.
      interpret: as a program of any platform, for tests.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    dtype = q.dtype if precision == "fp32" else jnp.bfloat16
    heads_first = lambda x: x.astype(dtype).transpose(0, 2, 1, 3)
    kernel = kernels.make_splash_mha(
        _mask(q.shape[1], q.shape[2], how.causal, window),
        block_sizes=_block_sizes(q.shape[1]),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=how.softcap,
        residual_checkpoint_name=CONTEXT,
        interpret=interpret,
    )
    one = lambda q, k, v, segments: kernel(q, k, v, kernels.SegmentIds(segments, segments))
    out = jax.vmap(one)(*map(heads_first, (q * how.scale, k, v)), query.segment_ids)
    out = out.transpose(0, 2, 1, 3).astype(q.dtype)
    # padding is a segment of its own to the kernel
    return jnp.where(query.segment_ids[:, :, None, None] > 0, out, 0)


def _mask(tokens: int, heads: int, causal: bool, window: int | None):
    """Returns the static half of the mask, by place: causal, and nearer than a window."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (tokens, tokens)
    if window is not None:
        near = (window - 1, 0 if causal else window - 1)
        one = masks.LocalMask(shape, near, offset=0)
    else:
        one = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    return masks.MultiHeadMask([one] * heads)


def _block_sizes(tokens: int):
    """Returns tiles that divide a row, the same in the forward and in the backward pass."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    size = next(one for one in BLOCKS if tokens % one == 0)
    return kernels.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        use_fused_bwd_kernel=True,
    )
