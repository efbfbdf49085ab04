"""What `--cfg job` prints: the config that would run, with what pretrained weights and data decide.

It imports no JAX, and reads no weights: what the devices decide stays `auto`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxsft.config import compose, overrides
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError

CFG, PACKAGE, FOLDER = ("-c", "--cfg"), ("-p", "--package"), ("-cd", "--config-dir")
SEARCHED = "hydra.searchpath="
OF_THE_DEVICES = ("mesh.", "precision")


def is_asked(arguments: Sequence[str]) -> bool:
    """Returns whether the config of one job is asked for, and not one of Hydra's own."""
    many = any(argument in ("-m", "--multirun") for argument in arguments)
    return not many and values_of(arguments, CFG) == ["job"]


def folders(arguments: Sequence[str]) -> list[str]:
    """Returns the folders of presets that `--config-dir` and `hydra.searchpath` name."""
    found = values_of(arguments, FOLDER)
    for argument in arguments:
        if argument.lstrip("+").startswith(SEARCHED):
            listed = argument.partition("=")[2].replace("file://", "")
            found += [one for one in re.split(r"[\[\],'\"\s]+", listed) if one]
    return found


def show(arguments: Sequence[str]) -> int:
    """Prints the config that runs, or the part of it that `--package` names, as YAML.

    Comments before it say where values come from that nobody gave. Raises ConfigError.
    """
    from jaxsft.training import setup

    there = folders(arguments)
    for folder in values_of(arguments, FOLDER):
        if not os.path.isdir(folder):
            raise ConfigError(f"--config-dir {folder}: there is no such folder")
    config = overrides.composed(_options(arguments), folders=there)
    config = setup.resolve_for(config, None)
    part = next(iter(values_of(arguments, PACKAGE)), None)
    print("\n".join([*_comments(config), _yaml(config, part)]))
    return 0


def _options(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments that are options: no flag, no value of one, no folder of presets."""
    flags = (*CFG, *PACKAGE, *FOLDER)
    return [
        argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
        if before not in flags
        and not argument.startswith("-")
        and not argument.lstrip("+").startswith(SEARCHED)
    ]


def _comments(config: Config) -> list[str]:
    values = compose.flat(compose.to_dict(config))
    last = dict(config.origins)
    told = [f"# {key}={values[key]}: {why}" for key, why in last.items() if key in values]
    left = [
        key for key, value in values.items() if value == "auto" and key.startswith(OF_THE_DEVICES)
    ]
    if left:
        told.append(f"# decided by the devices: {', '.join(left)}")
    if config.model.pretrained:
        told.append("# more where the tokenizer has more tokens: model.vocab_rows")
    if config.model.decoder_layers and config.model.pretrained and values.get("task.start") is None:
        told.append("# decided by the tokenizer: task.start")
    return told


def _yaml(config: Config, part: str | None) -> str:
    """Returns the YAML of a config, or of one part of it by its name."""
    if part is None or part == "_global_":
        return compose.to_yaml(config).rstrip()
    try:
        found: Any = OmegaConf.select(OmegaConf.create(compose.to_dict(config)), part)
    except OmegaConfBaseException:
        found = None
    if not OmegaConf.is_config(found):
        raise ConfigError(f"--package {part}: expected a part of the config, such as model")
    plain = OmegaConf.to_container(found)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).rstrip()


def values_of(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Returns the values of a flag, which follow it or stand behind its `=`."""
    after = [value for flag, value in itertools.pairwise(arguments) if flag in flags]
    signs = tuple(f"{flag}=" for flag in flags)
    return after + [a.partition("=")[2] for a in arguments if a.startswith(signs)]
