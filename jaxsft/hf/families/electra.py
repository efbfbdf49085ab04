"""ELECTRA (arXiv:2003.10555): BERT with embeddings of a size of their own. Its discriminator is the
model that is tuned.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import bert
from jaxsft.hf.families.family import RENAMED_NORMS, Family, Keys, both


def read(keys: Keys) -> dict[str, Any]:
    out, inner = bert.read(keys), keys.get("embedding_size")
    return {**out, "embed_inner": None if inner == out["embed"] else inner}


def write(m: ModelConfig) -> dict[str, Any]:
    return {**bert.write(m), "embedding_size": m.embed_inner or m.embed}


_GENERATOR = (
    "generator_predictions.dense",
    "generator_predictions.LayerNorm",
    "generator_lm_head.bias",
    "generator_lm_head.weight",
)

FAMILY = Family(
    model_type="electra",
    architecture="Electra",
    read=read,
    write=write,
    table=(*bert.BODY, *both("embed/project", "embeddings_project")),
    prefix="electra.",
    heads=bert.heads(
        "classifier.dense", "classifier.out_proj", "gelu", bert.masked_head(*_GENERATOR)
    ),
    skip=(
        r"embeddings\.position_ids",
        r"discriminator_predictions\..*",
        r"generator_(predictions|lm_head)\..*",
    ),
    renamed=RENAMED_NORMS,
)
