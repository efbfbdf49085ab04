"""What `eval`, `predict` and `generate` share: arguments of their own, strict overrides of a run's own config, and the opened run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxsft.config import compose, validate
from jaxsft.config.schema import Config, MeshConfig
from jaxsft.errors import ConfigError

OVERRIDABLE = ("data", "evaluation", "generate", "mesh", "precision", "seed", "loss.chunk", "model.attention", "model.unroll")


def arguments(given: Sequence[str], own: Sequence[str], needed: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(own arguments, overrides) of a command line of `key=value`. Raises ConfigError for a missing one."""
    mine = {k: v for k, s, v in (a.partition("=") for a in given) if s and k in own}
    if missing := [k for k in needed if not mine.get(k)]:
        raise ConfigError(f"missing {missing[0]}=; give {' '.join(f'{k}=...' for k in needed)}")
    return mine, [a for a in given if a.partition("=")[0] not in own]


def open_run(folder: str, overrides: Sequence[str], data: dict[str, Any] | None = None):
    """The run with its weights, its config changed by overrides that cannot change what the weights mean.

    Args:
      data: fields of the DataConfig that the command sets itself.
    """
    from jaxsft.sharding import mesh as meshes
    from jaxsft.training import runs

    for text in overrides:
        key = text.partition("=")[0]
        if key.partition(".")[0] not in OVERRIDABLE and key not in OVERRIDABLE:
            raise ConfigError(f"{key}: cannot be changed for a trained run; this command reads {', '.join(OVERRIDABLE)}")

    def change(config: Config) -> Config:
        config = compose.override(config, overrides)
        validate.validate_values(compose.flat(compose.to_dict(config)))
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **(data or {})))
        given = any(text.startswith("mesh.") for text in overrides)
        config = dataclasses.replace(config, mesh=meshes.resolve(config.mesh) if given else _mesh_here(config.mesh))
        validate.evaluation_batches(config)
        return config if config.precision != "auto" else dataclasses.replace(config, precision="bf16")

    return runs.open_run(folder, change)


def _mesh_here(mesh: MeshConfig) -> MeshConfig:
    """The run's own mesh, or one device where there are fewer than it was trained on."""
    import jax

    if mesh.data * mesh.fsdp * mesh.tensor <= jax.device_count():
        return mesh
    print(f"trained on {mesh.data * mesh.fsdp * mesh.tensor} devices; running on one of {jax.device_count()}", file=sys.stderr)
    return MeshConfig(data=1)


def evaluate_records(run: Any, name: str, records: tuple[list[Any], list[str]]):
    """(split, evaluation without generated answers) of records under a run's weights."""
    import jax

    from jaxsft.config.durations import Clock
    from jaxsft.evaluation import evaluate as evaluation
    from jaxsft.sharding import mesh as meshes
    from jaxsft.training.step import make_hyper, objective_value

    parts = run.parts
    hyper = make_hyper(parts.config, Clock(1, 1, 1))
    batches = parts.batches(parts.split(name, records))
    step = jax.jit(parts.program.evaluate, out_shardings=meshes.replicated(parts.mesh))
    result = evaluation.evaluate(
        lambda batch: step(run.weights, run.frozen, parts.put(batch, batches), hyper),
        parts.task,
        batches,
        lambda terms, totals: objective_value(terms, totals, hyper["terms"]),
    )
    return batches.split, result


def new_tokens(run: Any) -> int:
    """How many tokens are generated at most where there is no reference."""
    limit = run.parts.config.generate.max_new_tokens
    return run.parts.task.answers_up_to if limit == "auto" else limit


def stem(path: str) -> str:
    return Path(path).name.split(".")[0]
