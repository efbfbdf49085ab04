"""Families of pretrained models, by the `model_type` of their config.json."""

from __future__ import annotations

from jaxsft.errors import ConfigError
from jaxsft.models.families import bart, bert, deberta, electra, experts, gemma, gpt2, gpt_neox, llama, mistral, modernbert, olmo2, phi3, qwen, t5
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
        bert.ROBERTA,
        bert.XLM_ROBERTA,
        bert.DISTILBERT,
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
