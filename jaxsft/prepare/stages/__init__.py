"""The stages by name: each is one file here, `NAME.py` or `NAME_stage.py`, with one class.

A module is imported only when its stage is used: several need libraries that not every user has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxsft import plugins
from jaxsft.config import compose
from jaxsft.errors import ConfigError
from jaxsft.prepare.stage import Context, Stage

STAGES = plugins.Registry("stages", plugins.files("jaxsft.prepare.stages", ""))


def get(name: str) -> type[Stage]:
    """Returns the class of a stage. Raises ConfigError where there is none of the name."""
    if name not in STAGES:
        raise ConfigError(f"stages: {name!r} is unknown; there are {', '.join(STAGES)}")
    return STAGES.take(name)


def build(name: str, given: Mapping[str, Any], context: Context) -> Stage:
    """Builds a stage with its options, typed and checked. Raises ConfigError."""
    cls = get(name)
    stage = compose.filled(cls, given, f"stages.{name}", skip=("context",))
    stage = dataclasses.replace(stage, context=context)
    stage.check()
    return stage


def options(stage: Stage) -> dict[str, Any]:
    """Returns the options of a stage as plain JSON."""
    return {key: value for key, value in compose.to_dict(stage).items() if key != "context"}
