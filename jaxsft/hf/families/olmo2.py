"""OLMo 2 (arXiv:2501.00656): norms behind attention and MLP, and of queries and keys."""

from __future__ import annotations

from typing import Any

from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, WeightEntry, norm
from jaxsft.hf.families.transforms import FLAT


def read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "norm_position": "output",
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "all",
        "qkv_bias": bias,
        "o_bias": bias,
    }


QUERY_NORMS = (
    WeightEntry("layers/*/attention/q_norm/scale", "layers.*.self_attn.q_norm.weight", FLAT),
    WeightEntry("layers/*/attention/k_norm/scale", "layers.*.self_attn.k_norm.weight", FLAT),
)
FAMILY = Family(
    model_type="olmo2",
    architecture="Olmo2",
    read=read,
    write=lambda m: {**decoders.write_sizes(m), "attention_bias": m.qkv_bias},
    table=(
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.gated_mlp(),
        *QUERY_NORMS,
        *norm("layers/*/attention_post_norm", "layers.*.post_attention_layernorm"),
        *norm("layers/*/mlp_post_norm", "layers.*.post_feedforward_layernorm"),
        *norm("norm", "norm"),
    ),
    prefix="model.",
    heads=decoders.GENERIC,
    skip=decoders.SKIP,
)
