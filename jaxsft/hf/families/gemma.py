"""Gemma (arXiv:2403.08295), Gemma 2 (arXiv:2408.00118) and the text models of Gemma 3.

Gemma 3: arXiv:2503.19786. Scales are kept as their distance from 1, embeddings multiplied by the
root of their size; from the second on there are norms before and behind, and windows in most
layers.
"""

from __future__ import annotations

import math
from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head, Keys, WeightEntry


def _read(keys: Keys, kinds: list[str]) -> dict[str, Any]:
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    keys.only("use_bidirectional_attention", None, False)
    return {
        **out,
        **decoders.windows(
            keys,
            out["layers"],
            keys.get("sliding_window"),
            keys.get("layer_types") if keys.get("layer_types") is not None else kinds,
        ),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "norm_position": "sandwich",
        "norm_plus_one": True,
        "activation": keys.named("hidden_activation", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "query_scale": keys.get("query_pre_attn_scalar") ** -0.5,
        "embed_scale": math.sqrt(out["embed"]),
        "tied": keys.get("tie_word_embeddings"),
    }


def read2(keys: Keys) -> dict[str, Any]:
    """Reads Gemma 2: every other layer, from the first on, has the window."""
    kinds = [
        "full_attention" if i % 2 else "sliding_attention"
        for i in range(keys.need("num_hidden_layers"))
    ]
    out = _read(keys, kinds)
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "attention_softcap": keys.get("attn_logit_softcapping"),
        "logit_softcap": keys.get("final_logit_softcapping"),
    }


def read3(keys: Keys) -> dict[str, Any]:
    """Reads Gemma 3: of six layers, five have the window and a rope base of their own.

    Scaling is for the sixth.
    """
    out = _read(keys, decoders.pattern(keys, keys.need("num_hidden_layers")))
    keys.only("attn_logit_softcapping", None)  # its class keeps it and computes without
    full = decoders.rope(keys, out["context"], "full_attention", base=("rope_theta", 1e6))
    local = decoders.rope(
        keys,
        out["context"],
        "sliding_attention",
        base=("rope_local_base_freq", 10000.0),
        beside=False,
    )
    if local["rope_scaling"].kind != "none":
        keys.refuse("rope_parameters", "a scaling of the layers with a window is not known here")
    return {
        **out,
        **full,
        "rope_local_base": local["rope_base"] if out["window"] else None,
        "qk_norm": "head",
        "logit_softcap": keys.get("final_logit_softcapping"),
    }


def read1(keys: Keys) -> dict[str, Any]:
    """Reads Gemma 1: one norm before each part, no window, no cap."""
    out, bias = decoders.sizes(keys), keys.get("attention_bias")
    keys.only("use_bidirectional_attention", None, False)
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "norm_plus_one": True,
        # what its first files mean by gelu
        "activation": keys.named("hidden_act", {**decoders.ACTIVATIONS, "gelu": "gelu_tanh"}),
        "qkv_bias": bias,
        "o_bias": bias,
        "embed_scale": math.sqrt(out["embed"]),
    }


def _scalar(m: ModelConfig) -> float | int:
    """Returns the number whose root divides queries; a whole one where that is exact."""
    scale = m.head_dim**-0.5 if m.query_scale is None else m.query_scale
    return round(scale**-2) if round(scale**-2) ** -0.5 == scale else scale**-2


def write2(m: ModelConfig) -> dict[str, Any]:
    return {
        **{key: value for key, value in decoders.write_sizes(m).items() if key != "hidden_act"},
        **decoders.write_windows(m),
        "hidden_activation": decoders.HF_ACTIVATIONS[m.activation],
        "attention_bias": m.qkv_bias,
        "query_pre_attn_scalar": _scalar(m),
        "attn_logit_softcapping": m.attention_softcap,
        "final_logit_softcapping": m.logit_softcap,
    }


def write3(m: ModelConfig) -> dict[str, Any]:
    return decoders.with_rope(
        {key: value for key, value in write2(m).items() if key != "rope_theta"}, m
    )


_COMMON = (decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.SANDWICH)
_OPTIONS: dict[str, Any] = {"prefix": "model.", "skip": decoders.SKIP}

GEMMA = Family(
    model_type="gemma",
    architecture="Gemma",
    read=read1,
    write=lambda m: {**decoders.write_sizes(m), "attention_bias": m.qkv_bias},
    table=(decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS),
    heads=decoders.TAGGED,
    **_OPTIONS,
)
GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2",
    read=read2,
    write=write2,
    table=_COMMON,
    heads=decoders.TAGGED,
    **_OPTIONS,
)
GEMMA3 = Family(
    model_type="gemma3_text",
    architecture="Gemma3",
    read=read3,
    write=write3,
    table=(
        *_COMMON,
        WeightEntry("layers/*/attention/q_norm/scale", "layers.*.self_attn.q_norm.weight"),
        WeightEntry("layers/*/attention/k_norm/scale", "layers.*.self_attn.k_norm.weight"),
    ),
    heads={**decoders.GENERIC, "text": Head("TextForSequenceClassification", *decoders.SCORE)},
    bare="TextModel",
    **_OPTIONS,
)
