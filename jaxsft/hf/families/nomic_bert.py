"""Nomic Embed 1 and 1.5 (arXiv:2402.01613): BERT with rotary positions, gates and no biases."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert, decoders
from jaxsft.hf.families.family import OF_MODEL, RENAMED_NORMS, Family, Keys, WeightEntry, norm
from jaxsft.hf.families.transforms import FUSED, LINEAR

_SIZES = (
    "hidden_size",
    "num_attention_heads",
    "num_hidden_layers",
    "intermediate_size",
    "vocab_size",
)


def read(keys: Keys) -> dict[str, Any]:
    # the class has those of its first files, which say them by names that it does not read
    for name in _SIZES:
        keys.values.setdefault(name, keys.defaults[name])
    out, dim = bert.read(keys), keys.get("head_dim")
    return {
        **out,
        **decoders.rope(keys, out["context"], base=("rope_theta", 1000.0)),
        "head_dim": out["head_dim"] if dim is None else dim,
        "positions": "rope",
        "gated": True,
        "qkv_bias": False,
        "o_bias": False,
        "mlp_bias": False,
        "tied": keys.get("tie_word_embeddings", True),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {**bert.write(m), **decoders.write_rope(m), "head_dim": m.head_dim}


_PREDICTIONS = [
    f"cls.predictions.{name}"
    for name in ("transform.dense", "transform.layer_norm", "bias", "decoder.weight")
]
_HEADS = bert.heads(
    "nomic_bert.pooler.dense", "classifier", "tanh", bert.masked_head(*_PREDICTIONS, OF_MODEL)
)
FAMILY = Family(
    model_type="nomic_bert",
    architecture="NomicBert",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "embeddings.word_embeddings.weight"),
        WeightEntry("embed/types/w", "embeddings.token_type_embeddings.weight"),
        *norm("embed/norm", "emb_ln"),
        WeightEntry(
            "layers/*/attention/q/w layers/*/attention/k/w layers/*/attention/v/w",
            "encoder.layers.*.attn.Wqkv.weight",
            FUSED,
        ),
        WeightEntry("layers/*/attention/o/w", "encoder.layers.*.attn.out_proj.weight", LINEAR),
        *(
            WeightEntry(f"layers/*/mlp/{ours}/w", f"encoder.layers.*.mlp.{name}.weight", LINEAR)
            for ours, name in (("up", "fc11"), ("gate", "fc12"), ("down", "fc2"))
        ),
        *norm("layers/*/attention_norm", "encoder.layers.*.norm1"),
        *norm("layers/*/mlp_norm", "encoder.layers.*.norm2"),
    ),
    prefix="nomic_bert.",
    heads={kind: head for kind, head in _HEADS.items() if kind != "span"},
    skip=(*decoders.SKIP, r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
    renamed=RENAMED_NORMS,
)
