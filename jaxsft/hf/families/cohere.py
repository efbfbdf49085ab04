"""Command R (Cohere, 2024) and Command R7B or A (arXiv:2504.00698), Aya: one norm for both parts.

Its LayerNorm has no bias, neighbouring dimensions rotate, logits are scaled. In the second, three
layers of four have a window, and the others do not rotate.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, norm


def read(keys: Keys) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "rope_pairs": "neighbours",
        "norm": "layer",
        "norm_bias": False,
        "norm_epsilon": keys.get("layer_norm_eps"),
        "parallel": True,
        "shared_norm": True,
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "logit_scale": keys.get("logit_scale"),
    }


def read1(keys: Keys) -> dict[str, Any]:
    keys.only("use_qk_norm", False)  # each head has norms of its own there
    return read(keys)


def read2(keys: Keys) -> dict[str, Any]:
    out, kinds = read(keys), keys.get("layer_types")
    kinds = decoders.pattern(keys, out["layers"], 4) if kinds is None else kinds
    seen = decoders.windows(keys, out["layers"], keys.get("sliding_window"), kinds)
    turning = list(range(out["layers"])) if seen["window"] else []
    turning = turning if seen["window_layers"] is None else seen["window_layers"]
    return {**out, **seen, "rope_layers": None if len(turning) == out["layers"] else turning}


def write(m: ModelConfig) -> dict[str, Any]:
    sizes = decoders.write_sizes(m, "layer_norm_eps")
    return {**sizes, "attention_bias": m.qkv_bias, "logit_scale": m.logit_scale}


_OPTIONS: dict[str, Any] = {
    "table": (
        decoders.EMBEDDING,
        *decoders.attention(),
        *decoders.gated_mlp(),
        *norm("layers/*/attention_norm", "layers.*.input_layernorm"),
        *norm("norm", "norm"),
    ),
    "prefix": "model.",
    "heads": {"lm": decoders.GENERIC["lm"]},
    "skip": decoders.SKIP,
}
COHERE = Family(model_type="cohere", architecture="Cohere", read=read1, write=write, **_OPTIONS)
COHERE2 = Family(
    model_type="cohere2",
    architecture="Cohere2",
    read=read2,
    write=lambda m: {**write(m), **decoders.write_windows(m)},
    **_OPTIONS,
)
