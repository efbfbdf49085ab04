"""Granite 3 without experts (IBM, 2024): Llama with four multipliers (arXiv:2203.03466)."""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders, llama
from jaxsft.hf.families.family import Family, Keys


def read(keys: Keys) -> dict[str, Any]:
    return {
        **llama.read(keys),
        "embed_scale": float(keys.get("embedding_multiplier")),
        "query_scale": float(keys.get("attention_multiplier")),
        "residual_scale": float(keys.get("residual_multiplier")),
        "logit_scale": 1 / keys.get("logits_scaling"),
    }


def write(m: ModelConfig) -> dict[str, Any]:
    return {
        **llama.write(m),
        "embedding_multiplier": m.embed_scale,
        "attention_multiplier": m.head_dim**-0.5 if m.query_scale is None else m.query_scale,
        "residual_multiplier": m.residual_scale,
        "logits_scaling": 1 / m.logit_scale,
    }


FAMILY = Family(
    model_type="granite",
    architecture="Granite",
    read=read,
    write=write,
    table=llama.FAMILY.table,
    prefix="model.",
    heads={"lm": decoders.GENERIC["lm"]},
    skip=decoders.SKIP,
)
