"""Runs that start from a folder in the layout of Hugging Face: its architecture, its weights, and
what a run keeps of it for `jaxsft export`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsft import halves, patterns, rundir
from jaxsft.config.schema import Config, ModelConfig
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import read as pretrained
from jaxsft.hf import trained_heads
from jaxsft.hf.pretrained_folder import PretrainedFolder, is_source, open_source
from jaxsft.models.model_base import Params
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weight_spec import Flat
from jaxsft.sharding.weights import flatten
from jaxsft.training.components import Components
from jaxsft.training.started_from import architecture, folder_of, longer

NAME = "pretrained.json"  # in a run directory: what it started from


def differs(a: ModelConfig, b: ModelConfig) -> tuple[str, Any, Any] | None:
    """Returns (name, value in a, value in b) of the first option that differs.

    Returns None where none does. The rows of the vocabulary are not compared; lists and tuples of
    the same numbers are equal.
    """
    one, other = (json.loads(rundir.json_text(dataclasses.asdict(model))) for model in (a, b))
    return next(
        (
            (name, one[name], other[name])
            for name in one
            if name != "vocab_rows" and one[name] != other[name]
        ),
        None,
    )


def starting(
    parts: Components, folder: Path, fresh: Mapping[str, Any], rounded: bool = False
) -> Params:
    """Initialises parameters on the mesh and fills them from the files, tensor by tensor.

    Args:
      fresh: by path, whether its weight (or, of a stack, which layers) keeps its initial values.
      rounded: the weights of linear layers are rounded to bfloat16 (`products.ROUNDED`), for a
        model that is not trained; of a large one that writes, on one device, they are held so
        (`halves`).

    Raises:
      CheckpointError: a tensor is missing, additional or of another shape; or config.json is
        another one than the run was started with.
    """
    source = open_source(folder, parts.config.model.part)
    if other := differs(
        longer(parts.config.model, architecture(parts.config, source)), parts.config.model
    ):
        name, now, before = other
        raise CheckpointError(
            f"{folder / 'config.json'}: says model.{name}={now!r}, the run was started with"
            f" model.{name}={before!r}"
        )
    todo = plan(parts, source)
    keep = {path: value for path, value in fresh.items() if np.any(value)}
    specs = flatten(parts.specs)
    rounds = narrow(parts, source, todo) if rounded else set()
    large = sum(math.prod(specs[path].shape) for path in rounds) >= halves.LARGE
    # one that only reads texts has many states a product, whose speed is worth more
    writes = parts.config.task.spec.has_lm_head
    bits = rounds if large and writes and parts.mesh.size == 1 else ()
    weights = initial(parts, {*todo.fresh, *keep}, bits)
    weights = pretrained.load(source, todo, weights, keep, rounds)
    return jax.tree.unflatten(jax.tree.structure(parts.specs), [weights[path] for path in specs])


def narrow(parts: Components, source: PretrainedFolder, todo: pretrained.LoadPlan) -> set[str]:
    """Returns the paths of weights that lose nothing when held in bfloat16 under precision=bf16.

    They are those that products round anyway, and those over the vocabulary whose files hold
    bfloat16.
    """
    vocabulary = {"embed/tokens/w"}
    if parts.config.task.spec.has_lm_head:
        vocabulary.add("head/w")
    return pretrained.read_by_products(flatten(parts.specs)) | {
        slot.path
        for move in todo.moves
        for slot in move.slots
        if slot.path in vocabulary and source.tensors.dtype(move.theirs) == "BF16"
    }


def plan(parts: Components, source: PretrainedFolder) -> pretrained.LoadPlan:
    """Returns the plan that says what becomes of every tensor; a head that starts anew takes none.

    Raises ConfigError and CheckpointError, as `pretrained.plan`.
    """
    specs, wanted = flatten(parts.specs), asked(parts)
    if resets_head(parts):
        return pretrained.plan(source, specs, None)
    return pretrained.plan(source, specs, wanted.kind, wanted)


def asked(parts: Components) -> trained_heads.Asked:
    """Returns what the task needs of a trained head: its kind, options and labels."""
    state = parts.task.state
    names = state.get("labels") or state.get("targets")
    return trained_heads.Asked(parts.config.task.spec.head, parts.config.task, names)


def resets_head(parts: Components) -> bool:
    """Returns whether the head of the task starts anew, whatever the files have."""
    given = resets(parts.config)
    head = [path for path in flatten(parts.specs) if path.startswith("head/")]
    return bool(head) and (
        parts.config.model.init == "scratch"
        or all(any(patterns.full(one, path, "train.init_fresh") for one in given) for path in head)
    )


def resets(config: Config) -> list[str]:
    """Returns the patterns of weights that keep their initial values.

    They are those of `train.init_fresh` and of `model.init=reset:PATTERN`.
    """
    reset = (
        config.model.init.removeprefix("reset:") if config.model.init.startswith("reset:") else None
    )
    return [*config.train.init_fresh, *([reset] if reset is not None else [])]


def initial(parts: Components, wanted: set[str], bits: Collection[str] = ()) -> Flat:
    """Computes the initial values of the weights `wanted`, by path, and zeros for all others.

    Zeros cost nothing to make, and are overwritten. Weights in `bits` are packed as `halves` are
    held.
    """
    place = flatten(meshes.shardings(parts.specs, parts.mesh))

    def init(key: jax.Array) -> Flat:
        values = flatten(nn.meta.unbox(parts.model.init(key)))
        return {
            path: value if path in wanted else jnp.zeros_like(value)
            for path, value in (
                (path, halves.pack(value) if path in bits else value)
                for path, value in values.items()
            )
        }

    key = ("initial", frozenset(wanted), frozenset(bits))
    run = parts.compiled(key, lambda: jax.jit(init, out_shardings=place))
    return run(jax.random.key(parts.config.seeds.init))


# --- what a run keeps
# --------------------------------------------------------------------------------------------------
def facts(parts: Components, other: Callable[[str], Path]) -> dict[str, Any] | None:
    """Returns the facts that `pretrained.json` of a run holds.

    Returns None where nothing came from a folder in this layout. The facts are: folder, config and
    generation (config.json and generation_config.json as they were), tensors ({name: [dtype,
    shape]}), and fresh, left and head (of `pretrained.LoadPlan`).
    """
    config = parts.config
    if (folder := folder_of(config)) is None:
        before = config.train.init_from or config.model.pretrained
        path = other(before) / NAME if before else None
        return (
            rundir.read_json(path) | {"head": None} if path is not None and path.is_file() else None
        )
    source = open_source(folder, config.model.part)
    todo = plan(parts, source)
    generation = folder / "generation_config.json"
    return {
        "folder": str(config.model.pretrained),
        "config": dict(source.values),
        "generation": rundir.read_json(generation) if generation.is_file() else None,
        "tensors": {
            name: [source.tensors.dtype(name), list(source.tensors.shape(name))]
            for name in source.tensors
        },
        "fresh": list(todo.fresh),
        "left": list(todo.left),
        "head": todo.head,
    }


def config_of(config: Config, other: Callable[[str], Path]) -> dict[str, Any] | None:
    """Returns the part of `facts` that is known before tensors are read.

    That is config.json; for a run that started from another run, all that the other one keeps.
    """
    if (folder := folder_of(config)) is not None:
        return {"config": dict(open_source(folder, config.model.part).values)}
    before = config.train.init_from or config.model.pretrained
    path = other(before) / NAME if before else None
    return rundir.read_json(path) if path is not None and path.is_file() else None


def told(found: Mapping[str, Any]) -> str:
    """Formats the line that a run prints first: how many tensors it took, and which it did not."""
    some = lambda names: (
        ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    )
    out = f"{found['folder']}: {len(found['tensors']) - len(found['left'])} tensors taken"
    out += f"; not taken: {some(found['left'])}" if found["left"] else ""
    out += f"; fresh: {some(found['fresh'])}" if found["fresh"] else ""
    return out + (
        f"\nnote       its trained head is not taken: {found['head']}" if found.get("head") else ""
    )


def check_init(option: str, folder: Path) -> None:
    """Raises ConfigError where `train.init_from` names a folder in the layout of Hugging Face.

    Its architecture would not be read.
    """
    if is_source(folder):
        raise ConfigError(
            f"{option}={folder}: is no run directory; model.pretrained={folder} takes its"
            " architecture and tokenizer too"
        )
