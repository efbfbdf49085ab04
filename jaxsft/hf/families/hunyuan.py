"""Hunyuan without experts (Tencent, 2025): queries and keys are normed behind their rotation."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, WeightEntry
from jaxsft.hf.families.key_types import SCALE, shown


def read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    return {
        **out,
        **_rope(keys, out["context"], out["head_dim"]),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qk_norm": "head",
        "qk_norm_last": True,
        "qkv_bias": bias,
        "o_bias": bias,
    }


def _rope(keys: Keys, context: int, dims: int) -> dict[str, Any]:
    """Returns the rotation; with an `alpha`, what is called `dynamic` is a fixed, larger base."""
    where = "rope_parameters" if keys.values.get("rope_parameters") else "rope_scaling"
    found = keys.get(where) or {}
    kind, alpha = found.get("rope_type", found.get("type")), found.get("alpha")
    if kind != "dynamic" or not alpha:
        return decoders.rope(keys, context)
    if not SCALE.fits(alpha) or dims <= 2:
        keys.refuse(where, f"alpha={shown(alpha)}: expected {SCALE.said}, of heads wider than 2")
    base = {"rope_theta": found["rope_theta"]} if "rope_theta" in found else {}
    keys.values[where] = {"rope_type": "default", **base}
    turned = decoders.rope(keys, context)
    return {**turned, "rope_base": turned["rope_base"] * alpha ** (dims / (dims - 2))}


def write(m: ModelConfig) -> dict[str, Any]:
    return {**decoders.write_sizes(m), "attention_bias": m.qkv_bias}


FAMILY = Family(
    model_type="hunyuan_v1_dense",
    architecture="HunYuanDenseV1",
    read=read,
    write=write,
    table=(
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.gated_mlp(),
        *decoders.NORMS,
        WeightEntry("layers/*/attention/q_norm/scale", "layers.*.self_attn.query_layernorm.weight"),
        WeightEntry("layers/*/attention/k_norm/scale", "layers.*.self_attn.key_layernorm.weight"),
    ),
    prefix="model.",
    heads=decoders.GENERIC,
    skip=decoders.SKIP,
)
