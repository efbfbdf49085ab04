"""ModernBERT (arXiv:2412.13663): rotary positions, local and global layers, a gated MLP.

The MLP's gate and up are one matrix.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Head, Keys, WeightEntry, both, norm
from jaxsft.hf.families.transforms import FUSED, LINEAR


def read(keys: Keys) -> dict[str, Any]:
    layers, (embed, heads) = (
        keys.need("num_hidden_layers"),
        keys.divided("hidden_size", "num_attention_heads"),
    )
    every, context, kinds = (
        keys.get("global_attn_every_n_layers", 3),
        keys.get("max_position_embeddings"),
        keys.get("layer_types"),
    )
    if kinds is None:
        kinds = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    full, local = (decoders.rope(keys, context, kind, base=base) for kind, base in _BASES.items())
    if local["rope_scaling"].kind != "none":
        keys.refuse("rope_parameters", "a scaling of layers with a window is not known here")
    seen = decoders.windows(keys, layers, keys.get("local_attention", 128) // 2 + 1, kinds)
    return {
        "layers": layers,
        "embed": embed,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": embed // heads,
        "mlp": keys.need("intermediate_size"),
        "context": context,
        "vocab_rows": keys.need("vocab_size"),
        "causal": False,
        "norm": "layer",
        "norm_bias": keys.get("norm_bias"),
        "norm_epsilon": keys.get("norm_eps"),
        "first_norm": False,
        "embed_norm": True,
        **full,
        **seen,
        "rope_local_base": local["rope_base"] if seen["window"] else None,
        "qkv_bias": keys.get("attention_bias"),
        "o_bias": keys.get("attention_bias"),
        "mlp_bias": keys.get("mlp_bias"),
        "gated": True,
        "activation": keys.named("hidden_activation", decoders.ACTIVATIONS),
        "tied": keys.get("tie_word_embeddings"),
    }


_BASES = {
    "full_attention": ("global_rope_theta", 160000.0),
    "sliding_attention": ("local_rope_theta", 10000.0),
}


def write(m: ModelConfig) -> dict[str, Any]:
    sizes = {
        "hidden_size": m.embed,
        "num_attention_heads": m.heads,
        "num_hidden_layers": m.layers,
        "intermediate_size": m.mlp,
        "layer_types": decoders.write_windows(m)["layer_types"],
        "norm_eps": m.norm_epsilon,
        "norm_bias": m.norm_bias,
        "attention_bias": m.qkv_bias,
        "mlp_bias": m.mlp_bias,
        "hidden_activation": decoders.HF_ACTIVATIONS[m.activation],
        "tie_word_embeddings": m.tied,
    }
    window = {"local_attention": 2 * (m.window - 1)} if m.window else {}
    # A base of layers with a window is written even where no layer has one: transformers reads
    # both.
    return decoders.with_rope(sizes | window | {"rope_parameters": {"full_attention": {}}}, m)


POOLS = {"first": "cls", "mean": "mean"}


def _words(task: Any) -> dict[str, Any]:
    """Returns the config keys of the heads.

    The layer before the norm has a bias, but where `task.bias` says that it has none.
    """
    out = {
        "classifier_activation": decoders.HF_ACTIVATIONS[task.activation],
        "classifier_bias": getattr(task, "bias", True),
    }
    return out | ({"classifier_pooling": POOLS[task.pool]} if hasattr(task, "pool") else {})


_DENSE = (*both("head/dense", "head.dense"), *norm("head/norm", "head.norm"))
_CLASSES = (*_DENSE, *both("head/out", "classifier"))
_HEADS = {
    "text": Head(
        "ForSequenceClassification", _CLASSES, {"pool": ("first", "mean"), "head": "normed"}, _words
    ),
    "tag": Head(
        "ForTokenClassification",
        _CLASSES,
        {"head": "normed", "crf": False, "align": ("first", "all")},
        _words,
    ),
    "span": Head("ForQuestionAnswering", _CLASSES, {"head": "normed"}, _words),
    "mlm": Head(
        "ForMaskedLM",
        (
            *_DENSE,
            WeightEntry("head/b", "decoder.bias"),
            WeightEntry("head/w", "decoder.weight", LINEAR),
        ),
        {},
        _words,
    ),
}

FAMILY = Family(
    model_type="modernbert",
    architecture="ModernBert",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "embeddings.tok_embeddings.weight"),
        *norm("embed/norm", "embeddings.norm"),
        *norm("layers/*/attention_norm", "layers.*.attn_norm"),
        *both(
            "layers/*/attention/q layers/*/attention/k layers/*/attention/v",
            "layers.*.attn.Wqkv",
            FUSED,
        ),
        *both("layers/*/attention/o", "layers.*.attn.Wo"),
        *norm("layers/*/mlp_norm", "layers.*.mlp_norm"),
        *both("layers/*/mlp/gate layers/*/mlp/up", "layers.*.mlp.Wi", FUSED),
        *both("layers/*/mlp/down", "layers.*.mlp.Wo"),
        *norm("norm", "final_norm"),
    ),
    prefix="model.",
    heads=_HEADS,
    skip=(r"head\..*", r"decoder\..*", r"classifier\..*"),
    absent=(r"layers\.0\.attn_norm\..*",),
)
