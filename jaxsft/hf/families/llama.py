"""Llama 1 to 3.3 (arXiv:2302.13971, 2307.09288, 2407.21783) and all models of its class.

Among them are TinyLlama, SmolLM, Yi and DeepSeek's distilled ones.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys


def read(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    bias = keys.get("attention_bias")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": keys.get("mlp_bias"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {**decoders.write_sizes(m), "attention_bias": m.qkv_bias, "mlp_bias": m.mlp_bias}


FAMILY = Family(
    model_type="llama",
    architecture="Llama",
    read=read,
    write=write,
    table=(decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS),
    prefix="model.",
    heads=decoders.HEADS,
    skip=decoders.SKIP,
)
