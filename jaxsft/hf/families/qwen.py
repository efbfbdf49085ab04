"""Qwen 2 and 2.5 (arXiv:2407.10671, 2412.15115), and Qwen 3 (arXiv:2505.09388).

Qwen 2 has biases on queries, keys and values, Qwen 3 norms of queries and keys instead.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, WeightEntry


def _read(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
    }


def _windows(keys: Keys, layers: int) -> dict[str, Any]:
    """Returns the windows of layers from `max_window_layers` on, or of those in `layer_types`."""
    window, full = keys.get("sliding_window"), keys.get("max_window_layers")
    if not keys.get("use_sliding_window"):
        window = None
    kinds = keys.get("layer_types")
    if kinds is None and window is not None:
        kinds = ["sliding_attention" if i >= full else "full_attention" for i in range(layers)]
    return decoders.windows(keys, layers, window, kinds)


def normed(keys: Keys) -> dict[str, Any]:
    """Reads Qwen 3 but for its windows."""
    bias = keys.get("attention_bias")
    return {**_read(keys), "qk_norm": "head", "qkv_bias": bias, "o_bias": bias}


def read2(keys: Keys) -> dict[str, Any]:
    out = _read(keys)
    return {**out, **_windows(keys, out["layers"]), "qkv_bias": True}


def read3(keys: Keys) -> dict[str, Any]:
    out = normed(keys)
    return {**out, **_windows(keys, out["layers"])}


def write2(m: ModelConfig) -> dict[str, Any]:
    return {
        **decoders.write_sizes(m),
        **({**decoders.write_windows(m), "use_sliding_window": True} if m.window else {}),
    }


_COMMON = (decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS)
QUERY_NORMS = (
    WeightEntry("layers/*/attention/q_norm/scale", "layers.*.self_attn.q_norm.weight"),
    WeightEntry("layers/*/attention/k_norm/scale", "layers.*.self_attn.k_norm.weight"),
)
_OPTIONS: dict[str, Any] = {"prefix": "model.", "heads": decoders.HEADS, "skip": decoders.SKIP}

QWEN2 = Family(
    model_type="qwen2", architecture="Qwen2", read=read2, write=write2, table=_COMMON, **_OPTIONS
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3",
    read=read3,
    write=lambda m: {**write2(m), "attention_bias": m.qkv_bias},
    table=(*_COMMON, *QUERY_NORMS),
    **_OPTIONS,
)
