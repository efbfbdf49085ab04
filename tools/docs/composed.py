"""Composed configs, as the command line makes them, for the pages that are generated."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from jaxsft.config import overrides, schema

FILE, GIVEN = "FILE", "FOLDER"
NEEDED = {"tokenizer=pretrained": f"tokenizer.path={GIVEN}"}  # what has no default


@functools.cache
def composed(task: str, *choices: str) -> schema.Config:
    """What `jaxsft train task=TASK data.train=FILE CHOICES` would run, before any `auto` is
    resolved.
    """
    needed = [NEEDED[choice] for choice in choices if choice in NEEDED]
    return overrides.composed([f"task={task}", f"data.train={FILE}", *choices, *needed])


def with_values(config: schema.Config, values: dict[str, Any]) -> schema.Config:
    """The config with options set by their whole names, their types unchecked."""
    for key, value in values.items():
        head, _, rest = key.partition(".")
        config = dataclasses.replace(
            config, **{head: with_values(getattr(config, head), {rest: value}) if rest else value}
        )
    return config
