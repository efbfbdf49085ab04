"""Rotary positions (Su et al., 2021, arXiv:2104.09864) and the scalings that extend their range.

Letters: B batch, S sequence, R rotated half of a head's dimensions.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsft.config.model import ModelConfig, RopeScaling


def rotated(config: ModelConfig) -> int:
    """Returns how many dimensions of a head are rotated."""
    return int(config.head_dim * config.rope_fraction)


def frequencies(
    base: float, dims: int, scaling: RopeScaling, dtype=np.float32
) -> tuple[np.ndarray, float]:
    """Returns each dimension pair's angle per position `[R]`, and the factor of cos and sin.

    linear: position interpolation (Chen et al., 2023, arXiv:2306.15595). ntk: the base grows so
    that the slowest frequency is interpolated and the fastest kept (bloc97, 2023). llama3: the
    Llama 3.1 release. yarn: Peng et al., 2023, arXiv:2309.00071. longrope: Ding et al., 2024,
    arXiv:2402.13753. As implemented in transformers' `modeling_rope_utils`.
    """
    s, dtype = scaling, np.dtype(dtype)
    if s.kind == "ntk":
        base = base * s.factor ** (dims / (dims - 2))
    plain = (
        dtype.type(1)
        / np.power(dtype.type(base), np.arange(0, dims, 2).astype(dtype) / dtype.type(dims))
    ).astype(dtype)
    if s.kind in ("none", "ntk"):
        return plain, 1.0
    if s.kind == "linear":
        return (plain / dtype.type(s.factor)).astype(dtype), 1.0
    if s.kind == "longrope":
        high = 1.0 if s.factor <= 1 else math.sqrt(1 + math.log(s.factor) / math.log(s.original))
        return (plain / np.asarray(s.factors, dtype)).astype(dtype), (
            high if s.attention is None else s.attention
        )
    if s.kind == "llama3":
        return _llama3(plain, s).astype(dtype), 1.0
    return _yarn(plain, base, dims, s).astype(dtype), (
        0.1 * math.log(max(s.factor, 1.0)) + 1.0 if s.attention is None else s.attention
    )


def _llama3(plain: np.ndarray, s: RopeScaling) -> np.ndarray:
    length = 2 * np.pi / plain  # of a wave, in tokens
    smooth = np.clip((s.original / length - s.low) / (s.high - s.low), 0, 1)
    return (1 - smooth) * plain / s.factor + smooth * plain


def _yarn(plain: np.ndarray, base: float, dims: int, s: RopeScaling) -> np.ndarray:
    def dimension(turns: float) -> float:  # that turns so often in the original context
        return dims * math.log(s.original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(s.fast), dimension(s.slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    stretch = np.clip((np.arange(dims // 2) - low) / ((high - low) or 0.001), 0, 1)
    return plain / s.factor * stretch + plain * (1 - stretch)


def table(
    config: ModelConfig, positions: Int[Array, "batch seq"], dtype, base: float | None = None
) -> tuple[Float[Array, "batch seq 1 half"], Float[Array, "batch seq 1 half"]]:
    """Computes cosines and sines of every position.

    With a separate `base`, those of layers with a window, without scaling.
    """
    scaling = config.rope_scaling if base is None else RopeScaling()
    frequency, high = frequencies(
        config.rope_base if base is None else base, rotated(config), scaling, dtype
    )
    angle = positions[:, :, None, None].astype(dtype) * frequency
    return jnp.cos(angle) * dtype.type(high), jnp.sin(angle) * dtype.type(high)


def rotate(
    x: Float[Array, "batch seq heads head_dim"],
    cos_sin: tuple[Array, Array],
    pairs: str = "halves",
) -> Float[Array, "batch seq heads head_dim"]:
    """Rotates the first 2R dimensions of each head, in pairs of `model.rope_pairs`.

    halves: dimensions i and R + i, as in Hugging Face's Llama; neighbours: 2i and 2i + 1, as in the
    paper.
    """
    cos, sin = cos_sin
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if pairs == "neighbours":
        a, b = turned[..., 0::2], turned[..., 1::2]
        both = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
        return jnp.concatenate([both, rest], axis=-1).astype(x.dtype)
    a, b = turned[..., :half], turned[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1).astype(x.dtype)
