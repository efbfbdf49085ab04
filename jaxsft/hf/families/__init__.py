"""Families of pretrained models, by the `model_type` of their config.json."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.errors import ConfigError
from jaxsft.hf.families import (
    bart,
    bert,
    cohere,
    deberta,
    distilbert,
    electra,
    eurobert,
    exaone4,
    gemma,
    glm,
    gpt2,
    gpt_neox,
    granite,
    hunyuan,
    llama,
    mbart,
    mistral,
    modernbert,
    moe,
    mpnet,
    nomic_bert,
    olmo2,
    phi,
    phi3,
    qwen,
    roberta,
    smollm3,
    starcoder2,
    t5,
)
from jaxsft.hf.families.family import Family
from jaxsft.hf.families.key_types import OF_HEADS, shown, wrong
from jaxsft.hf.families.keys import names_read

_OWN = {
    family.model_type: family
    for family in (
        llama.FAMILY,
        mistral.FAMILY,
        mistral.MINISTRAL,
        mistral.MINISTRAL3,
        qwen.QWEN2,
        qwen.QWEN3,
        phi3.FAMILY,
        olmo2.FAMILY,
        olmo2.OLMO3,
        smollm3.FAMILY,
        granite.FAMILY,
        glm.GLM,
        glm.GLM4,
        cohere.COHERE,
        cohere.COHERE2,
        exaone4.FAMILY,
        hunyuan.FAMILY,
        starcoder2.FAMILY,
        phi.FAMILY,
        gemma.GEMMA,
        gemma.GEMMA2,
        gemma.GEMMA3,
        moe.MIXTRAL,
        moe.QWEN3_MOE,
        moe.QWEN2_MOE,
        moe.OLMOE,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        bert.BERT,
        roberta.ROBERTA,
        roberta.XLM_ROBERTA,
        roberta.CAMEMBERT,
        distilbert.FAMILY,
        t5.T5,
        t5.MT5,
        t5.UMT5,
        bart.FAMILY,
        mbart.MBART,
        mbart.M2M_100,
        mbart.PEGASUS,
        electra.FAMILY,
        deberta.FAMILY,
        modernbert.FAMILY,
        eurobert.FAMILY,
        nomic_bert.FAMILY,
        mpnet.FAMILY,
    )
}
FAMILIES = plugins.Registry("families", _OWN)


# What people take for a family that is known; other names are compared letter by letter.
HINTS = {
    "gemma3": "it reads images too; its half for texts is read where there is a text_config",
    "gemma3n": "its models compute otherwise than gemma3_text",
    "deberta": "version 1 computes otherwise; those of version 3 are deberta-v2",
    "mistral3": "it reads images too; its half for texts is read where there is a text_config",
    "albert": "its layers share one set of weights, which nothing here does",
    "mllama": "it reads images too; its models of texts alone are llama",
}
OF_IMAGES = ("vision_config", "audio_config", "text_config")


def get(model_type: object, place: str) -> Family:
    """Raises ConfigError for a family that is not known."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        hint = HINTS.get(model_type) if isinstance(model_type, str) else None
        near = (
            difflib.get_close_matches(model_type, FAMILIES, 1, 0.65)
            if isinstance(model_type, str) and len(model_type) < 50
            else []
        )
        if isinstance(model_type, str) and (same := model_type.lower()) in FAMILIES:
            hint = f"it is written {same}"
        hint = hint or (f"the nearest, {near[0]}, computes otherwise" if near else None)
        told = f"model_type={shown(model_type)} is not known here{f' ({hint})' if hint else ''}"
        raise ConfigError(f"{place}: {told}; there are {', '.join(FAMILIES)}")
    return FAMILIES.take(model_type)


def of(values: Mapping[str, Any], place: str, part: str = "all") -> Family:
    """Returns the family of a config.json, or that of its encoder alone.

    The latter where `part` (`model.part`) says so, or where the class that the file names has
    no other half. Raises ConfigError where the family is not known, or has no encoder beside a
    decoder.
    """
    if "model_type" not in values:
        raise ConfigError(
            f"{place}: has no model_type, so that nothing says how its model computes; expected one"
            f" of {', '.join(FAMILIES)}"
        )
    if next((key for key in OF_IMAGES if isinstance(values.get(key), Mapping)), None) and values[
        "model_type"
    ] not in (*FAMILIES, *HINTS):
        raise ConfigError(
            f"{place}: model_type={shown(values['model_type'])} reads images or sounds; models of"
            " texts alone can be loaded"
        )
    found = get(values["model_type"], place)
    for key in OF_HEADS:
        if (
            key in values
            and key in names_read(found.model_type)
            and (why := wrong(key, values[key]))
        ):
            raise ConfigError(f"{place}: {key}={shown(values[key])}: {why}")
    if found.encoder is None and part == "encoder":
        raise ConfigError(
            f"model.part=encoder: {place} has model_type={found.model_type}, which has no decoder"
            " beside an encoder; leave it out"
        )
    alone = found.encoder is not None and any(
        name in found.encoder.classes for name in values.get("architectures") or []
    )
    return found.encoder if alone or part == "encoder" else found
