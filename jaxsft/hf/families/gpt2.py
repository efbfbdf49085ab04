"""GPT-2 (Radford et al., 2019): learned positions, LayerNorm, and matrices stored [in, out]."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import (
    Family,
    Head,
    Keys,
    WeightEntry,
    both,
    norm,
    span_head,
    tag_head,
)
from jaxsft.hf.families.transforms import CONV1D, FUSED_CONV1D, LINEAR


def read(keys: Keys) -> dict[str, Any]:
    embed, heads = keys.divided("n_embd", "n_head")
    inner = keys.get("n_inner")
    keys.only("scale_attn_weights", True)
    keys.only("scale_attn_by_inverse_layer_idx", False)
    return {
        "layers": keys.need("n_layer"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": 4 * embed if inner is None else inner,
        "context": keys.get("n_positions"),
        "vocab_rows": keys.need("vocab_size"),
        "causal": True,
        "norm": "layer",
        "norm_epsilon": keys.get("layer_norm_epsilon"),
        "positions": "learned",
        "gated": False,
        "activation": keys.named("activation_function", decoders.ACTIVATIONS),
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "tied": keys.get("tie_word_embeddings"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": m.embed,
        "n_head": m.heads,
        "n_layer": m.layers,
        "n_inner": m.mlp,
        "n_positions": m.context,
        "layer_norm_epsilon": m.norm_epsilon,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(m.activation, m.activation),
        "tie_word_embeddings": m.tied,
    }


_QKV = "layers/*/attention/q layers/*/attention/k layers/*/attention/v"

FAMILY = Family(
    model_type="gpt2",
    architecture="GPT2",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "wte.weight"),
        WeightEntry("embed/positions/w", "wpe.weight"),
        *both(_QKV, "h.*.attn.c_attn", FUSED_CONV1D),
        *both("layers/*/attention/o", "h.*.attn.c_proj", CONV1D),
        *both("layers/*/mlp/up", "h.*.mlp.c_fc", CONV1D),
        *both("layers/*/mlp/down", "h.*.mlp.c_proj", CONV1D),
        *norm("layers/*/attention_norm", "h.*.ln_1"),
        *norm("layers/*/mlp_norm", "h.*.ln_2"),
        *norm("norm", "ln_f"),
    ),
    prefix="transformer.",
    heads={
        **decoders.GENERIC,
        "lm": Head("LMHeadModel", (WeightEntry("head/w", "lm_head.weight", LINEAR),)),
        "tag": tag_head("classifier"),
        "span": span_head(),
    },
    skip=(r"h\.\d+\.attn\.(masked_)?bias",),
)
