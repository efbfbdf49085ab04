"""Phi 1, 1.5 (arXiv:2309.05463) and 2: attention and MLP read one norm, part of a head rotates."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head, Keys, both, norm


def read(keys: Keys) -> dict[str, Any]:
    out = decoders.sizes(keys)
    return {
        **out,
        **decoders.rope(keys, out["context"], part=("partial_rotary_factor", 0.5)),
        "norm": "layer",
        "norm_epsilon": keys.get("layer_norm_eps"),
        "parallel": True,
        "shared_norm": True,
        "gated": False,
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "head" if keys.get("qk_layernorm") else "none",
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "head_bias": True,
    }


def write(m: ModelConfig) -> dict[str, Any]:
    own = {"qk_layernorm": m.qk_norm == "head", "partial_rotary_factor": m.rope_fraction}
    return {**decoders.write_sizes(m, "layer_norm_eps"), **own}


FAMILY = Family(
    model_type="phi",
    architecture="Phi",
    read=read,
    write=write,
    table=(
        decoders.EMBEDDING,
        *decoders.attention()[:-2],
        *both("layers/*/attention/o", "layers.*.self_attn.dense"),
        *norm("layers/*/attention/q_norm", "layers.*.self_attn.q_layernorm"),
        *norm("layers/*/attention/k_norm", "layers.*.self_attn.k_layernorm"),
        *both("layers/*/mlp/up", "layers.*.mlp.fc1"),
        *both("layers/*/mlp/down", "layers.*.mlp.fc2"),
        *norm("layers/*/attention_norm", "layers.*.input_layernorm"),
        *norm("norm", "final_layernorm"),
    ),
    prefix="model.",
    heads={**decoders.TAGGED, "lm": Head("ForCausalLM", both("head", "lm_head"))},
    skip=decoders.SKIP,
)
