"""Options that are given with a trained run: those that may change, and the config with them."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Sequence

import jax

from jaxsft import remote
from jaxsft.config import compose as composing
from jaxsft.config import resolve as resolving
from jaxsft.config import validate
from jaxsft.config.schema import (
    Config,
    DataConfig,
    EvaluationConfig,
    GenerateConfig,
    MeshConfig,
)
from jaxsft.data import config_files, hub
from jaxsft.errors import ConfigError
from jaxsft.hf import pretrained_folder as pretrained
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding import platforms
from jaxsft.training.recorder import Result

OVERRIDABLE = (
    "data",
    "evaluation",
    "generate",
    "mesh",
    "precision",
    "seed",
    "loss.chunk",
    "model.attention",
    "model.unroll",
)


def refuse_fixed(run: str | os.PathLike | Result, overrides: Sequence[str]) -> None:
    """Raises ConfigError where an option cannot be changed for a trained run."""
    for text in overrides:
        key = text.partition("=")[0]
        if (
            key.partition(".")[0] not in OVERRIDABLE
            and key not in OVERRIDABLE
            and not _of_untrained(run, key)
        ):
            groups = {
                "generate": GenerateConfig,
                "evaluation": EvaluationConfig,
                "data": DataConfig,
            }
            near = [
                f"; did you mean {name}.{key}?"
                for name, group in groups.items()
                if key in group.__dataclass_fields__
            ]
            raise ConfigError(
                f"{key}: cannot be changed for a trained run; what can is"
                f" {', '.join(OVERRIDABLE)}{''.join(near[:1])}"
            )


def changed(overrides: Sequence[str], config: Config) -> Config:
    """Returns the config of a run with these options, on the devices that are here."""
    config = composing.override(config, overrides)
    validate.of_run(config)
    config_files.check_columns(config)
    given = any(text.startswith("mesh.") for text in overrides)
    config = dataclasses.replace(
        config, mesh=meshes.resolve(config.mesh) if given else _mesh_here(config.mesh)
    )
    validate.evaluation_batches(config)
    return resolving.with_precision(config, platforms.facts())


def _of_untrained(run: str | os.PathLike | Result, key: str) -> bool:
    """Returns whether an option may be changed because nobody has trained with it.

    That is so for the variables of the template of a folder in the layout of Hugging Face.
    """
    if isinstance(run, Result) or not (
        key == "task.variables" or key.startswith("task.variables.")
    ):
        return False
    return pretrained.is_source(remote.opened(str(hub.run_dir(str(run)))))


def _mesh_here(mesh: MeshConfig) -> MeshConfig:
    """Returns the run's own mesh, or one device where there are fewer than it was trained on."""
    used = math.prod(getattr(mesh, axis) for axis in meshes.AXES)
    if used <= jax.device_count():
        return mesh
    print(
        f"trained on {used} devices; running on one of {jax.device_count()}",
        file=sys.stderr,
    )
    return MeshConfig(data=1)
