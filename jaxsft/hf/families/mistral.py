"""Mistral (arXiv:2310.06825): Llama with a sliding window in every layer.

Ministral has it in those layers that the config names. Ministral 3 multiplies the queries of far
positions, and is read for texts that have none.
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.hf.families import decoders
from jaxsft.hf.families.family import Family, Keys, span_head
from jaxsft.hf.families.key_types import LENGTH, number, shown


def read(keys: Keys) -> dict[str, Any]:
    """Reads Mistral and Ministral; only Ministral has `layer_types`."""
    out, kinds = decoders.sizes(keys), keys.get("layer_types")
    if kinds is not None and keys.family != "ministral":
        keys.refuse(
            "layer_types",
            "kinds of layers are those of ministral; every layer of this family is alike",
        )
    return {
        **out,
        **decoders.rope(keys, out["context"]),
        **decoders.windows(keys, out["layers"], keys.get("sliding_window"), kinds),
        "norm_epsilon": keys.get("rms_norm_eps"),
        "activation": keys.named("hidden_act", decoders.ACTIVATIONS),
    }


_STANDARD = {  # rope_parameters of a file of ministral3 that has none
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def read3(keys: Keys) -> dict[str, Any]:
    """Reads Ministral 3, whose queries grow from the first multiple of the original context on.

    Below that the factor is 1, and that is the context which the model has here.
    """
    if not keys.get("rope_parameters"):
        keys.values["rope_parameters"] = _STANDARD
    turned = dict(keys.get("rope_parameters"))
    beta, first = turned.get("llama_4_scaling_beta"), turned.get("original_max_position_embeddings")
    for name, value, kind in (
        ("llama_4_scaling_beta", beta, number("a number")),
        ("original_max_position_embeddings", first, LENGTH),
    ):
        if not kind.fits(value):
            keys.refuse("rope_parameters", f"{name}={shown(value)}: expected {kind.said}")
    out = read(keys)
    return out if not beta else {**out, "context": min(out["context"], first)}


_MISTRAL: dict[str, Any] = {
    "table": (decoders.EMBEDDING, *decoders.attention(), *decoders.gated_mlp(), *decoders.NORMS),
    "prefix": "model.",
    "heads": {**decoders.TAGGED, "span": span_head()},
    "skip": decoders.SKIP,
}
FAMILY = Family(
    model_type="mistral",
    architecture="Mistral",
    read=read,
    write=lambda m: {**decoders.write_sizes(m), "sliding_window": m.window},
    **_MISTRAL,
)
MINISTRAL = Family(
    model_type="ministral",
    architecture="Ministral",
    read=read,
    write=lambda m: {
        **decoders.write_sizes(m),
        "sliding_window": None,
        **decoders.write_windows(m),
    },
    **_MISTRAL,
)


def write3(m: ModelConfig) -> dict[str, Any]:
    """Returns the config of Ministral 3; a factor of 1 is what a model has here."""
    sizes = {key: value for key, value in decoders.write_sizes(m).items() if "rope_" not in key}
    first = {"original_max_position_embeddings": m.context, "llama_4_scaling_beta": 0.0}
    turned = {"rope_parameters": {**first, **decoders.rope_words(m)}}
    return {**sizes, **turned, "sliding_window": m.window}


MINISTRAL3 = Family(
    model_type="ministral3", architecture="Ministral3", read=read3, write=write3, **_MISTRAL
)
