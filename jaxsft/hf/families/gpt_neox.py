"""GPT-NeoX (arXiv:2204.06745) and Pythia (arXiv:2304.01373): parallel attention and MLP.

Part of each head is rotated, and one matrix holds q, k and v head by head.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, WeightEntry, both, norm, span_head, tag_head
from jaxsft.hf.families.transforms import FUSED_BY_HEAD


def read(keys: Keys) -> dict[str, Any]:
    (embed, heads), context = (
        keys.divided("hidden_size", "num_attention_heads"),
        keys.get("max_position_embeddings"),
    )
    bias = keys.get("attention_bias")
    turned = decoders.rope(
        keys, context, base=("rotary_emb_base", 10000.0), part=("rotary_pct", 0.25)
    )
    if keys.get("rope_theta", turned["rope_base"]) != turned["rope_base"]:
        keys.refuse(
            "rope_theta",
            f"differs from rotary_emb_base={turned['rope_base']}, which is the one that is read",
        )
    return {
        "layers": keys.need("num_hidden_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("intermediate_size"),
        "context": context,
        "vocab_rows": keys.need("vocab_size"),
        "causal": True,
        "norm": "layer",
        "norm_epsilon": keys.get("layer_norm_eps"),
        "parallel": keys.get("use_parallel_residual"),
        "positions": "rope",
        **turned,
        "gated": False,
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": True,
        "tied": keys.get("tie_word_embeddings"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        **decoders.write_rope(m, "rotary_emb_base"),
        "hidden_size": m.embed,
        "num_attention_heads": m.heads,
        "num_hidden_layers": m.layers,
        "intermediate_size": m.mlp,
        "max_position_embeddings": m.context,
        "layer_norm_eps": m.norm_epsilon,
        "use_parallel_residual": m.parallel,
        "rotary_pct": m.rope_fraction,
        "hidden_act": decoders.HF_ACTIVATIONS[m.activation],
        "attention_bias": m.qkv_bias,
        "tie_word_embeddings": m.tied,
    }


FAMILY = Family(
    model_type="gpt_neox",
    architecture="GPTNeoX",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "embed_in.weight"),
        *both(
            "layers/*/attention/q layers/*/attention/k layers/*/attention/v",
            "layers.*.attention.query_key_value",
            FUSED_BY_HEAD,
        ),
        *both("layers/*/attention/o", "layers.*.attention.dense"),
        *both("layers/*/mlp/up", "layers.*.mlp.dense_h_to_4h"),
        *both("layers/*/mlp/down", "layers.*.mlp.dense_4h_to_h"),
        *norm("layers/*/attention_norm", "layers.*.input_layernorm"),
        *norm("layers/*/mlp_norm", "layers.*.post_attention_layernorm"),
        *norm("norm", "final_layer_norm"),
    ),
    prefix="gpt_neox.",
    heads={
        **decoders.GENERIC,
        "tag": tag_head("classifier"),
        "span": span_head(),
    },
    skip=(r"layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
    renamed=(("embed_out.weight", "lm_head.weight"),),
    stored={"lm_head.weight": "embed_out.weight"},
)
