"""Models that read images too, of which the half for texts is read as a model of its own.

Gemma 3 from 4 billion weights on (arXiv:2503.19786), Mistral Small 3.1 and Ministral 3. Nothing is
read of the rest, and an export is of that half alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxsft.hf.families.keys import defaults

# by model_type, that of the half for texts where the file says none
KINDS = {"gemma3": "gemma3_text", "mistral3": "mistral"}
# of the whole, where the half has none
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# in files, which may have those of the class for the half itself
_PREFIXES = ("language_model.model.", "model.language_model.")
_IMAGES = ("vision_tower.", "multi_modal_projector.")


def config_of(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the config.json of the half for texts; None: the file is of no such model."""
    kind, half = values.get("model_type"), values.get("text_config")
    if not isinstance(kind, str) or kind not in KINDS or not isinstance(half, Mapping):
        return None
    out = {"model_type": KINDS[kind], **half}
    if isinstance(family := out["model_type"], str) and family in KINDS.values():
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        own = defaults(family)  # a file leaves out what its class has anyway
        out = {**{key: own[key] for key in (*sizes, "vocab_size")}, **out}
    return {**{key: values[key] for key in _IDS if key in values}, **out}


def name_of(name: str) -> str | None:
    """Returns the name that a tensor has in a model of texts alone; None: it is of images."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return f"model.{name.removeprefix(prefix)}"
    if name.removeprefix("model.").startswith(_IMAGES):
        return None
    return name.removeprefix("language_model.")
