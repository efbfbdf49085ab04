"""DistilBERT (arXiv:1910.01108)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert, decoders
from jaxsft.hf.families.family import OF_MODEL, RENAMED_NORMS, Family, Keys, WeightEntry, both, norm


def read(keys: Keys) -> dict[str, Any]:
    embed, heads = keys.divided("dim", "n_heads")
    return {
        **bert.ENCODER,
        "layers": keys.need("n_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("hidden_dim"),
        "context": keys.get("max_position_embeddings"),
        "vocab_rows": keys.need("vocab_size"),
        "norm_epsilon": 1e-12,
        "activation": keys.named("activation", decoders.ACTIVATIONS),
        "tied": keys.get("tie_word_embeddings"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        "dim": m.embed,
        "n_heads": m.heads,
        "n_layers": m.layers,
        "hidden_dim": m.mlp,
        "max_position_embeddings": m.context,
        "activation": decoders.HF_ACTIVATIONS[m.activation],
        "tie_word_embeddings": m.tied,
    }


FAMILY = Family(
    model_type="distilbert",
    architecture="DistilBert",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "embeddings.word_embeddings.weight"),
        WeightEntry("embed/positions/w", "embeddings.position_embeddings.weight"),
        *norm("embed/norm", "embeddings.LayerNorm"),
        *(
            e
            for x in "qkv"
            for e in both(f"layers/*/attention/{x}", f"transformer.layer.*.attention.{x}_lin")
        ),
        *both("layers/*/attention/o", "transformer.layer.*.attention.out_lin"),
        *norm("layers/*/attention_norm", "transformer.layer.*.sa_layer_norm"),
        *both("layers/*/mlp/up", "transformer.layer.*.ffn.lin1"),
        *both("layers/*/mlp/down", "transformer.layer.*.ffn.lin2"),
        *norm("layers/*/mlp_norm", "transformer.layer.*.output_layer_norm"),
    ),
    prefix="distilbert.",
    heads=bert.heads(
        "pre_classifier",
        "classifier",
        "relu",
        bert.masked_head(
            "vocab_transform",
            "vocab_layer_norm",
            "vocab_projector.bias",
            "vocab_projector.weight",
            OF_MODEL,
        ),
    ),
    skip=(r"vocab_(transform|layer_norm|projector)\..*", r"pre_classifier\..*", r"qa_outputs\..*"),
    renamed=RENAMED_NORMS,
)
