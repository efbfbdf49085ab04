"""What `model.pretrained` decides and was asked for all the same. It would be an option that
nothing reads, so it is an error.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxsft.config import compose
from jaxsft.config.overrides import fixed
from jaxsft.config.schema import BytesTokenizer, Config, ModelConfig, PretrainedTokenizer
from jaxsft.errors import ConfigError

INSTEAD = {  # what does have an effect
    "layers": "model.keep_layers and model.repeat_layers choose among its layers",
    "mlp": "model.resize_mlp changes it",
    "heads": "model.resize_heads changes it",
    "kv_heads": "model.resize_heads changes it",
    "context": (
        "data.max_length bounds the rows, and model.rope_scaling makes a longer context of rotary"
        " positions"
    ),
    "causal": "model.bidirectional=true lets a token see the whole text",
    "vocab_rows": "tokenizer.added gives it further rows",
}


def check(config: Config, users: tuple[str, ...], source: ModelConfig, started: Config) -> None:
    """Raises ConfigError where an option that was given contradicts the pretrained model.

    An option of model or tokenizer must have the value of `source` or that of the run. It is given
    unless it has the value of a preset that nobody asked for (`Config.unasked`); where nobody
    knows, unless it has its default.

    Args:
      users: options of the model that stay the user's.
      source: the architecture that `model.pretrained` names.
      started: the config with the model that starts from it, changed as was asked.
    """
    unasked, standard = dict(config.unasked), _values(ModelConfig())
    its, run = _values(source), _values(started.model)
    for name, value in _values(config.model).items():
        presets = (
            [unasked[f"model.{name}"], standard[name]]
            if f"model.{name}" in unasked
            else []
            if unasked
            else [standard[name]]
        )
        if name in users or value in (its[name], run[name], *presets):
            continue
        raise ConfigError(
            f"model.{name}={value}: model.pretrained={config.model.pretrained} decides it, and has"
            f" {its[name]}; leave the option out, or the preset that gives it"
            + (f"; {INSTEAD[name]}" if name in INSTEAD else "")
        )
    _check_tokenizer(config, started.tokenizer)


def _check_tokenizer(config: Config, own: PretrainedTokenizer) -> None:
    given, unasked = config.tokenizer, dict(config.unasked)
    values = {
        f"tokenizer.{name}": fixed(value)
        for name, value in compose.to_dict(given).items()
        if name != "added"
    }
    by_nobody = (
        all(name in unasked and unasked[name] == value for name, value in values.items())
        if unasked
        else isinstance(given, BytesTokenizer)
    )
    if not by_nobody and dataclasses.replace(given, added=own.added) != own:
        raise ConfigError(
            f"tokenizer={given.kind}: model.pretrained={config.model.pretrained} brings its own"
            " tokenizer; leave the option out"
        )


def _values(model: ModelConfig) -> dict[str, Any]:
    return {name: fixed(value) for name, value in compose.flat(compose.to_dict(model)).items()}
