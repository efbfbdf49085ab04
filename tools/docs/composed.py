"""Composed configs, as the command line makes them, for the pages that are generated."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from jaxsft.commands.hydra_app import config_folder
from jaxsft.config import compose, schema

FILE, GIVEN = "FILE", "FOLDER"
NEEDED = {"tokenizer=pretrained": f"tokenizer.path={GIVEN}"}  # what has no default


@functools.cache
def composed(task: str, *choices: str) -> schema.Config:
    """What `jaxsft train task=TASK data.train=FILE CHOICES` would run, before any `auto` is resolved."""
    compose.register()
    needed = [NEEDED[choice] for choice in choices if choice in NEEDED]
    with initialize_config_dir(config_folder(), version_base="1.3"):
        return compose.typed(hydra_compose(config_name="config", overrides=[f"task={task}", f"data.train={FILE}", *choices, *needed]))


def with_values(config: schema.Config, values: dict[str, Any]) -> schema.Config:
    """The config with options set by their whole names, their types unchecked."""
    for key, value in values.items():
        head, _, rest = key.partition(".")
        config = dataclasses.replace(config, **{head: with_values(getattr(config, head), {rest: value}) if rest else value})
    return config
