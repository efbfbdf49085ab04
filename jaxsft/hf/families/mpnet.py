"""MPNet (arXiv:2004.09297): BERT with T5's biases of relative positions beside its table."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert
from jaxsft.hf.families.family import RENAMED_NORMS, Family, Keys, WeightEntry, both, norm

OFFSET, BUCKETS, DISTANCE = 2, 32, 128  # constants of its class


def read(keys: Keys) -> dict[str, Any]:
    keys.only("relative_attention_num_buckets", BUCKETS)
    out = bert.read(keys, types=False)
    if out["context"] <= OFFSET:
        keys.refuse("max_position_embeddings", f"has no row behind the {OFFSET} of padding")
    return {
        **out,
        "positions": "learned_relative",
        "position_offset": OFFSET,
        "context": out["context"] - OFFSET,
        "relative_buckets": BUCKETS,
        "relative_distance": DISTANCE,
    }


def write(m: ModelConfig) -> dict[str, Any]:
    out = {key: value for key, value in bert.write(m).items() if key != "type_vocab_size"}
    sizes = {"max_position_embeddings": m.context + OFFSET}
    return {**out, **sizes, "relative_attention_num_buckets": m.relative_buckets}


_LM_HEAD = bert.masked_head(
    *(f"lm_head.{name}" for name in ("dense", "layer_norm", "bias", "decoder.weight"))
)
FAMILY = Family(
    model_type="mpnet",
    architecture="MPNet",
    read=read,
    write=write,
    table=(
        WeightEntry("embed/tokens/w", "embeddings.word_embeddings.weight"),
        WeightEntry("embed/positions/w", "embeddings.position_embeddings.weight"),
        *norm("embed/norm", "embeddings.LayerNorm"),
        WeightEntry("relative/w", "encoder.relative_attention_bias.weight"),
        *(
            entry
            for name in "qkvo"
            for entry in both(
                f"layers/*/attention/{name}", f"encoder.layer.*.attention.attn.{name}"
            )
        ),
        *norm("layers/*/attention_norm", "encoder.layer.*.attention.LayerNorm"),
        *bert.BLOCK[-6:],
    ),
    prefix="mpnet.",
    heads=bert.heads("classifier.dense", "classifier.out_proj", "tanh", _LM_HEAD),
    skip=(r"embeddings\.position_ids", r"pooler\..*", r"lm_head\..*"),
    renamed=RENAMED_NORMS,
)
