"""StarCoder 2 (arXiv:2402.19173): grouped queries, a window, LayerNorm, an MLP without a gate."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, both


def read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("use_bias")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), None),
        "norm": "layer",
        "norm_epsilon": keys.get("norm_epsilon"),
        "gated": False,
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bias,
    }


def write(m: ModelConfig) -> dict[str, Any]:
    own = {"use_bias": m.qkv_bias, "sliding_window": m.window, "norm_epsilon": m.norm_epsilon}
    return {**decoders.write_sizes(m, "norm_epsilon"), **own}


FAMILY = Family(
    model_type="starcoder2",
    architecture="Starcoder2",
    read=read,
    write=write,
    table=(
        decoders.EMBEDDING,
        *decoders.attention(),
        *both("layers/*/mlp/up", "layers.*.mlp.c_fc"),
        *both("layers/*/mlp/down", "layers.*.mlp.c_proj"),
        *decoders.NORMS,
    ),
    prefix="model.",
    heads=decoders.TAGGED,
    skip=decoders.SKIP,
)
