"""The models by `model.kind`. Each has the interface of `Transformer`, and says whether it keeps
the texts of a row apart (`supports_packing`).
"""

from __future__ import annotations

from typing import Any

from jaxsft.config.adapters import AdapterConfig
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.models.encoder_decoder import EncoderDecoder
from jaxsft.models.recurrent import Recurrent
from jaxsft.models.transformer import Transformer

# adapters that change the matrices or the biases of a recurrent cell
CELLS = ("lora", "dora", "bitfit")
KINDS: dict[str, Any] = {"transformer": Transformer, "lstm": Recurrent, "gru": Recurrent}


def adapting(kind: Any, adapter: AdapterConfig, named: str) -> dict[str, Any]:
    """Returns the keyword argument `adapter` of a model class; empty without an adapter.

    `named` is what `model.kind` calls the class. Raises ConfigError where it cannot have this
    adapter.
    """
    name = adapter.name
    if name == "none":
        return {}
    if kind is Recurrent and name not in CELLS:
        why = (
            "has no attention, and no MLP"
            if name == "ia3"
            else "has no attention to tokens that stand before a text"
        )
        raise ConfigError(
            f"adapter={name}: model.kind={named} {why}; choose {', '.join(CELLS)}, or"
            " model.kind=transformer"
        )
    if kind is EncoderDecoder and name == "prompt":
        raise ConfigError(
            "adapter=prompt: the rows of sources of model.decoder_layers keep no places for its"
            " tokens; adapter=prefix needs none"
        )
    return {"adapter": adapter}


def get(config: ModelConfig, packing: bool) -> Any:
    """Returns the class of a model.

    Raises ConfigError where texts that share a row would leak into each other in it.
    """
    found = EncoderDecoder if config.decoder_layers else KINDS[config.kind]
    if packing and not found.supports_packing:
        raise ConfigError(
            f"model.kind={config.kind}: texts that share a row would know of each other in it; set"
            " data.packing=false"
        )
    return found
