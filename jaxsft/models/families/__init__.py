"""Families of pretrained models, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxsft.errors import ConfigError
from jaxsft.models.families import (
    bart,
    bert,
    deberta,
    distilbert,
    electra,
    experts,
    gemma,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    modernbert,
    olmo2,
    phi3,
    qwen,
    roberta,
    t5,
)
from jaxsft.models.families.base import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        qwen.QWEN2,
        qwen.QWEN3,
        phi3.FAMILY,
        olmo2.FAMILY,
        gemma.GEMMA2,
        gemma.GEMMA3,
        experts.MIXTRAL,
        experts.QWEN3_MOE,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        bert.BERT,
        roberta.ROBERTA,
        roberta.XLM_ROBERTA,
        distilbert.FAMILY,
        t5.T5,
        t5.MT5,
        bart.FAMILY,
        electra.FAMILY,
        deberta.FAMILY,
        modernbert.FAMILY,
    )
}


def get(model_type: object, place: str) -> Family:
    """Raises ConfigError for a family that is not known."""
    if model_type not in FAMILIES:
        raise ConfigError(f"{place}: model_type={model_type!r} is not known here; there are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def of(values: Mapping[str, Any], place: str, part: str = "all") -> Family:
    """The family of a config.json; of an encoder-decoder that of its encoder alone where `part` (`model.part`) says so, or where the class that the
    file names has no other half. Raises ConfigError where the family is not known, or has no encoder beside a decoder."""
    found = get(values.get("model_type"), place)
    if found.encoder is None and part == "encoder":
        raise ConfigError(f"model.part=encoder: {place} has model_type={found.model_type}, which has no decoder beside an encoder; leave it out")
    alone = found.encoder is not None and any(name in found.encoder.classes for name in values.get("architectures") or [])
    return found.encoder if alone or part == "encoder" else found
