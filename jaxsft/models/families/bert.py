"""BERT (arXiv:1810.04805), RoBERTa (arXiv:1907.11692), XLM-RoBERTa (arXiv:1911.02116) and DistilBERT (arXiv:1910.01108)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.models.families import decoders
from jaxsft.models.families.base import OF_MODEL, RENAMED_NORMS, Entry, Family, Head, Keys, both, norm, span_head, tag_head
from jaxsft.models.families.transforms import LINEAR

_ENCODER: dict[str, Any] = {
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


def read(keys: Keys, types: int = 2) -> dict[str, Any]:
    """`types` is the family's own default."""
    keys.only("position_embedding_type", "absolute")
    embed, heads = keys.need("hidden_size"), keys.need("num_attention_heads")
    return {
        **_ENCODER,
        "layers": keys.need("num_hidden_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("intermediate_size"),
        "context": keys.count("max_position_embeddings", 512),
        "vocab_rows": keys.need("vocab_size"),
        "types": keys.get("type_vocab_size", types),
        "norm_epsilon": keys.get("layer_norm_eps", 1e-12),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS, "gelu"),
        "tied": keys.get("tie_word_embeddings", True),
    }


def read_roberta(keys: Keys) -> dict[str, Any]:
    """Its positions begin after the id of padding, and its table of them has rows for those before it."""
    out, offset = read(keys), keys.count("pad_token_id", 1, 0) + 1
    return {**out, "position_offset": offset, "context": out["context"] - offset}


def read_distilbert(keys: Keys) -> dict[str, Any]:
    keys.get("sinusoidal_pos_embds")  # how the table was made; it is in the file
    embed, heads = keys.need("dim"), keys.need("n_heads")
    return {
        **_ENCODER,
        "layers": keys.need("n_layers"),
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("hidden_dim"),
        "context": keys.get("max_position_embeddings", 512),
        "vocab_rows": keys.need("vocab_size"),
        "norm_epsilon": 1e-12,
        "activation": keys.named("activation", decoders.ACTIVATIONS, "gelu"),
        "tied": keys.get("tie_word_embeddings", True),
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


def write_roberta(m: ModelConfig) -> dict[str, Any]:
    """Positions begin behind the id of padding, which must be that of the tokenizer: 0 where there are no rows to spare."""
    return {**write(m), "pad_token_id": m.position_offset - 1, "max_position_embeddings": m.context + m.position_offset}


def write_distilbert(m: ModelConfig) -> dict[str, Any]:
    return {
        "dim": m.embed,
        "n_heads": m.heads,
        "n_layers": m.layers,
        "hidden_dim": m.mlp,
        "max_position_embeddings": m.context,
        "activation": decoders.HF_ACTIVATIONS[m.activation],
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
    Entry("embed/tokens/w", "embeddings.word_embeddings.weight"),
    Entry("embed/positions/w", "embeddings.position_embeddings.weight"),
    Entry("embed/types/w", "embeddings.token_type_embeddings.weight"),
    *norm("embed/norm", "embeddings.LayerNorm"),
    *both("layers/*/attention/q", "encoder.layer.*.attention.self.query"),
    *both("layers/*/attention/k", "encoder.layer.*.attention.self.key"),
    *both("layers/*/attention/v", "encoder.layer.*.attention.self.value"),
    *BLOCK,
)


def masked_head(dense: str, normed: str, bias: str, matrix: str, activation: Any = "gelu") -> Head:
    """BERT's head over the vocabulary. An output matrix that is tied is not in the files; one that is not has a bias of its own in transformers."""
    biases = Entry("head/b", bias, unless="head/w"), Entry("head/b", matrix.removesuffix("weight") + "bias", beside="head/w")
    table = (*both("head/dense", dense), *norm("head/norm", normed), *biases, Entry("head/w", matrix, LINEAR))
    return Head("ForMaskedLM", table, {"activation": activation})


def heads(dense: str, out: str, activation: str, masked: Head) -> dict[str, Head]:
    """The class for texts reads the first token through a dense layer; those for tokens have one linear layer."""
    pooled = {"pool": "first", "head": "dense", "activation": activation}
    return {
        "text": Head("ForSequenceClassification", (*both("head/dense", dense), *both("head/out", out)), pooled),
        "tag": tag_head("classifier"),
        "span": span_head(),
        "mlm": masked,
    }


_PREDICTIONS = [f"cls.predictions.{name}" for name in ("transform.dense", "transform.LayerNorm", "bias", "decoder.weight")]
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
_LM_HEAD = masked_head(*(f"lm_head.{name}" for name in ("dense", "layer_norm", "bias", "decoder.weight")))
_ROBERTA: dict[str, Any] = {"table": BODY, "prefix": "roberta.", "read": read_roberta, "write": write_roberta}
_ROBERTA |= {"heads": heads("classifier.dense", "classifier.out_proj", "tanh", _LM_HEAD)}
_ROBERTA |= {"skip": (r"embeddings\.position_ids", r"pooler\..*", r"lm_head\..*"), "renamed": RENAMED_NORMS}
ROBERTA = Family(model_type="roberta", architecture="Roberta", **_ROBERTA)
XLM_ROBERTA = Family(model_type="xlm-roberta", architecture="XLMRoberta", **_ROBERTA)
DISTILBERT = Family(
    model_type="distilbert",
    architecture="DistilBert",
    read=read_distilbert,
    write=write_distilbert,
    table=(
        Entry("embed/tokens/w", "embeddings.word_embeddings.weight"),
        Entry("embed/positions/w", "embeddings.position_embeddings.weight"),
        *norm("embed/norm", "embeddings.LayerNorm"),
        *(e for x in "qkv" for e in both(f"layers/*/attention/{x}", f"transformer.layer.*.attention.{x}_lin")),
        *both("layers/*/attention/o", "transformer.layer.*.attention.out_lin"),
        *norm("layers/*/attention_norm", "transformer.layer.*.sa_layer_norm"),
        *both("layers/*/mlp/up", "transformer.layer.*.ffn.lin1"),
        *both("layers/*/mlp/down", "transformer.layer.*.ffn.lin2"),
        *norm("layers/*/mlp_norm", "transformer.layer.*.output_layer_norm"),
    ),
    prefix="distilbert.",
    heads=heads(
        "pre_classifier",
        "classifier",
        "relu",
        masked_head("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight", OF_MODEL),
    ),
    skip=(r"vocab_(transform|layer_norm|projector)\..*", r"pre_classifier\..*", r"qa_outputs\..*"),
    renamed=RENAMED_NORMS,
)
