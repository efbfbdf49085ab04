"""The architecture that the options of structure make of a pretrained one (`surgery.py` changes the
weights), without JAX.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError

FIELDS = (
    "keep_layers",
    "keep_decoder_layers",
    "repeat_layers",
    "resize_mlp",
    "resize_heads",
    "bidirectional",
)
NONE = {f.name: f.default for f in dataclasses.fields(ModelConfig) if f.name in FIELDS}


def changes(model: ModelConfig, name: str) -> bool:
    """Returns whether the option of this name is set."""
    return getattr(model, name) != NONE[name]


def asked(model: ModelConfig) -> bool:
    return any(changes(model, name) for name in NONE)


def without(model: ModelConfig) -> ModelConfig:
    """Returns the config with all structure-changing options at their defaults."""
    return dataclasses.replace(model, **NONE) if asked(model) else model


def resized(found: ModelConfig) -> ModelConfig:
    """Returns the architecture that the structure options make of the pretrained one.

    Raises ConfigError where they cannot change this model.
    """
    m = found
    if not asked(m):
        return m
    if m.kind != "transformer":
        raise ConfigError(f"model.{_first(m)}: cannot change the structure of model.kind={m.kind}")
    if m.decoder_layers and m.bidirectional:
        raise ConfigError(
            "model.bidirectional=True: an encoder sees the whole text already, and a decoder that"
            " does cannot write"
        )
    if m.keep_decoder_layers is not None and not m.decoder_layers:
        raise ConfigError(
            f"model.keep_decoder_layers={list(m.keep_decoder_layers)}: the model has no decoder"
            " beside an encoder; set model.keep_layers"
        )
    order = layers(m)
    if not m.first_norm and (order[0] != 0 or 0 in order[1:]):
        raise ConfigError(
            "model.keep_layers: the first layer of this model reads the embeddings without a norm;"
            " it must stay the first, and once"
        )
    changes: dict[str, Any] = {"layers": len(order), "decoder_layers": len(decoder_layers(m))}
    for name in ("window_layers", "rope_layers"):
        if (chosen := getattr(m, name)) is not None:
            changes[name] = tuple(i for i, layer in enumerate(order) if layer in chosen)
    if m.resize_mlp:
        if m.experts:
            raise ConfigError(
                f"model.resize_mlp={m.resize_mlp}: the model has experts in the place of an MLP"
            )
        changes["mlp"] = m.resize_mlp
    if m.resize_heads:
        if m.qk_norm == "all":
            raise ConfigError(
                f"model.resize_heads={m.resize_heads}: the norm of queries and keys goes over all"
                " heads together"
            )
        if not m.relative_shared:
            raise ConfigError(
                f"model.resize_heads={m.resize_heads}: each layer has a table of relative positions"
                " by heads"
            )
        if m.resize_heads * m.kv_heads % m.heads:
            each = m.heads // m.kv_heads
            raise ConfigError(
                f"model.resize_heads={m.resize_heads}: {each} heads share keys and values, so that"
                f" it must be a multiple of {each}"
            )
        changes |= {"heads": m.resize_heads, "kv_heads": m.resize_heads * m.kv_heads // m.heads}
    return dataclasses.replace(m, **changes, causal=m.causal and not m.bidirectional)


def _first(m: ModelConfig) -> str:
    return next(
        f"{name}={getattr(m, name)}" for name, value in NONE.items() if getattr(m, name) != value
    )


def layers(m: ModelConfig) -> list[int]:
    """Returns the pretrained layer that each layer starts from, in an encoder-decoder the
    encoder's.

    Raises ConfigError for an impossible order.
    """
    return _order(m, "keep_layers", m.layers)


def decoder_layers(m: ModelConfig) -> list[int]:
    """Returns the pretrained layer that each decoder layer starts from; empty without a decoder.

    Raises ConfigError for an impossible order.
    """
    return _order(m, "keep_decoder_layers", m.decoder_layers) if m.decoder_layers else []


def _order(m: ModelConfig, option: str, depth: int) -> list[int]:
    kept = list(range(depth)) if getattr(m, option) is None else list(getattr(m, option))
    if not kept or [i for i in kept if not 0 <= i < depth]:
        raise ConfigError(f"model.{option}={kept}: expected some of the layers 0 to {depth - 1}")
    return [i for i in kept for _ in range(m.repeat_layers)]


def encoder_of(config: ModelConfig) -> ModelConfig:
    """Returns the config of the encoder alone."""
    return dataclasses.replace(config, decoder_layers=0, output_scale=1.0)
