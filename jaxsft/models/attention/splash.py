"""Attention on TPU by the splash kernel that comes with JAX: segments, grouped queries, windows and
soft caps, without the score matrix.

The kernel's mask goes by the place in the row. Within a text of a packed row positions rise with
the place, so that together with "in the same segment" it is `reference.segment_mask`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxsft.models.attention import context
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
    if (own := needs.queries // needs.context) % BLOCKS[-1]:
        return f"rows of {own} tokens on a device are no multiple of {BLOCKS[-1]}"
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
    axis: str | None = None,
    interpret: bool = False,
) -> Float[Array, "batch queries heads head_dim"]:
    """Computes the same as `reference.run` for rows that attend to themselves.

    Args:
      q: `[B, S, H, N]`; k, v: `[B, S, K, N]`, K divides H.
      window: the same in all layers.
      axis: the mesh axis along which `q` and `query` are a part of the row; None: they are whole.
      interpret: as a program of any platform, for tests.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    dtype = q.dtype if precision == "fp32" else jnp.bfloat16
    heads_first = lambda x: x.astype(dtype).transpose(0, 2, 1, 3)
    kernel = kernels.make_splash_mha(
        _mask(k.shape[1], q.shape[2], how.causal, window),
        block_sizes=_block_sizes(q.shape[1], k.shape[1]),
        head_shards=1,
        q_seq_shards=k.shape[1] // q.shape[1],
        attn_logits_soft_cap=how.softcap,
        residual_checkpoint_name=CONTEXT,
        interpret=interpret,
    )
    kernel = kernel if axis is None else _of_part(kernel, axis)
    one = lambda q, k, v, *segments: kernel(q, k, v, kernels.SegmentIds(*segments))
    arrays = map(heads_first, (q * how.scale, k, v))
    out = jax.vmap(one)(*arrays, query.segment_ids, key.segment_ids)
    out = out.transpose(0, 2, 1, 3).astype(q.dtype)
    # padding is a segment of its own to the kernel
    return jnp.where(query.segment_ids[:, :, None, None] > 0, out, 0)


def of_parts(axis: str, *arrays_and_how: Any, interpret: bool = False) -> Array:
    """Computes `run` for the part of a row that a device has, with the keys of all of it."""
    of_all = functools.partial(run, axis=axis, interpret=interpret)
    return context.gathered(of_all)(axis, *arrays_and_how)


def _of_part(kernel: Any, axis: str) -> Any:
    """Returns the kernel of the queries that lie on this device: of what it knows of all blocks of
    the mask, the rows of its own.
    """
    at, count = lax.axis_index(axis), lax.axis_size(axis)

    def own(x: Array | None, dim: int) -> Array | None:
        if x is None:
            return None
        size = x.shape[dim] // count
        return lax.dynamic_slice_in_dim(jnp.asarray(x), at * size, size, dim)

    def cut(info: Any) -> Any:
        if info is None:
            return None
        blocks = {name: own(getattr(info, name), 1) for name in info._fields[:3]}
        return info._replace(**blocks, q_sequence=own(info.q_sequence, 0))

    infos = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    return type(kernel)(*map(cut, infos), **kernel.kwargs)


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


def _block_sizes(queries: int, keys: int):
    """Returns tiles that divide a row, the same in the forward and in the backward pass."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernels,
    )

    of_queries, of_keys = (next(n for n in BLOCKS if s % n == 0) for s in (queries, keys))
    return kernels.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        use_fused_bwd_kernel=True,
    )
