"""BERT (arXiv:1810.04805)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import (
    OF_MODEL,
    RENAMED_NORMS,
    Family,
    Head,
    Keys,
    WeightEntry,
    both,
    norm,
    span_head,
    tag_head,
)
from jaxsft.hf.families.transforms import LINEAR

ENCODER: dict[str, Any] = {
    "causal": False,
    "norm": "layer",
    "norm_position": "post",
    "positions": "learned",
    "gated": False,
    "qkv_bias": True,
    "o_bias": True,
    "mlp_bias": True,
    "embed_norm": True,
}


def read(keys: Keys, types: bool = True) -> dict[str, Any]:
    """Reads BERT's options; `types`: the class embeds types of tokens."""
    embed, heads = keys.divided("hidden_size", "num_attention_heads")
    return {
        **ENCODER,
        "layers": keys.need("num_hidden_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("intermediate_size"),
        "context": keys.get("max_position_embeddings"),
        "vocab_rows": keys.need("vocab_size"),
        "types": keys.get("type_vocab_size") if types else 0,
        "norm_epsilon": keys.get("layer_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
        "tied": keys.get("tie_word_embeddings"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": m.embed,
        "num_attention_heads": m.heads,
        "num_hidden_layers": m.layers,
        "intermediate_size": m.mlp,
        "max_position_embeddings": m.context,
        "type_vocab_size": m.types,
        "layer_norm_eps": m.norm_epsilon,
        "hidden_act": decoders.HF_ACTIVATIONS[m.activation],
        "tie_word_embeddings": m.tied,
    }


BLOCK = (  # behind the products of queries, keys and values
    *both("layers/*/attention/o", "encoder.layer.*.attention.output.dense"),
    *norm("layers/*/attention_norm", "encoder.layer.*.attention.output.LayerNorm"),
    *both("layers/*/mlp/up", "encoder.layer.*.intermediate.dense"),
    *both("layers/*/mlp/down", "encoder.layer.*.output.dense"),
    *norm("layers/*/mlp_norm", "encoder.layer.*.output.LayerNorm"),
)
BODY = (
    WeightEntry("embed/tokens/w", "embeddings.word_embeddings.weight"),
    WeightEntry("embed/positions/w", "embeddings.position_embeddings.weight"),
    WeightEntry("embed/types/w", "embeddings.token_type_embeddings.weight"),
    *norm("embed/norm", "embeddings.LayerNorm"),
    *both("layers/*/attention/q", "encoder.layer.*.attention.self.query"),
    *both("layers/*/attention/k", "encoder.layer.*.attention.self.key"),
    *both("layers/*/attention/v", "encoder.layer.*.attention.self.value"),
    *BLOCK,
)


def masked_head(dense: str, normed: str, bias: str, matrix: str, activation: Any = "gelu") -> Head:
    """Builds BERT's head over the vocabulary.

    An output matrix that is tied is not in the files; one that is not has a bias of its own in
    transformers.
    """
    biases = (
        WeightEntry("head/b", bias, unless="head/w"),
        WeightEntry("head/b", matrix.removesuffix("weight") + "bias", beside="head/w"),
    )
    table = (
        *both("head/dense", dense),
        *norm("head/norm", normed),
        *biases,
        WeightEntry("head/w", matrix, LINEAR),
    )
    return Head("ForMaskedLM", table, {"activation": activation})


def heads(dense: str, out: str, activation: str, masked: Head) -> dict[str, Head]:
    """Returns the heads by kind.

    The class for texts reads the first token through a dense layer; those for tokens have one
    linear layer.
    """
    pooled = {"pool": "first", "head": "dense", "activation": activation}
    return {
        "text": Head(
            "ForSequenceClassification",
            (*both("head/dense", dense), *both("head/out", out)),
            pooled,
        ),
        "tag": tag_head("classifier"),
        "span": span_head(),
        "mlm": masked,
    }


_PREDICTIONS = [
    f"cls.predictions.{name}"
    for name in ("transform.dense", "transform.LayerNorm", "bias", "decoder.weight")
]
PREDICTIONS = masked_head(*_PREDICTIONS, OF_MODEL)
BERT = Family(
    model_type="bert",
    architecture="Bert",
    read=read,
    write=write,
    table=BODY,
    prefix="bert.",
    heads=heads("bert.pooler.dense", "classifier", "tanh", PREDICTIONS),
    skip=(r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
    renamed=RENAMED_NORMS,
)
