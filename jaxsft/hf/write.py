"""Writes a model as a folder that transformers loads, from the tables of `pretrained.py`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsft import rundir
from jaxsft.config.model import ModelConfig
from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.hf.families.family import OF_MODEL, Family, Head, Move, check_covered, moves
from jaxsft.hf.pretrained_folder import INDEX, OWN, WEIGHTS
from jaxsft.sharding.weight_spec import Flat, WeightSpec

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
NAMES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}  # of `export.dtype`
TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


# --- which class
# --------------------------------------------------------------------------------------------------
def fitting(
    model: ModelConfig, rows: int, name: str | None, kind: str | None = None, task: Any = None
) -> tuple[Family, dict[str, Any]]:
    """Returns the family that has all of these options, and its config.json.

    `name` None: the first that has, of those that have the head of the task too if there is
    one. Raises ConfigError that says what differs.
    """
    if model.kind != "transformer":
        raise ConfigError(
            f"model.kind={model.kind}: transformers has no such model; jaxsft eval, predict and"
            " jaxsft.load run it from its run directory"
        )
    if name is not None:
        family = families.get(name, "export.family").of_model(model)
        return family, family.to_config(model, rows)
    lacking: dict[str, dict[str, tuple[Any, Any]]] = {}
    every = [family.of_model(model) for family in families.FAMILIES.values()]
    for family in sorted(
        every, key=lambda family: task is not None and not _has_head(family, kind, task, model)
    ):
        if family.write is not None:
            try:
                if not (other := family.lacks(model, rows)):
                    return family, family.to_config(model, rows)
            except ConfigError:
                continue  # it cannot say such a model at all
            if task is None or kind in family.heads:
                lacking.setdefault(family.model_type, other)
    nearest = min(lacking, key=lambda name: len(lacking[name]), default=None)
    told = (
        f": the nearest is {nearest}, which would have {_would(lacking[nearest])}"
        if nearest
        else ""
    )
    preset = (
        "" if model.causal or model.decoder_layers else f"; {PRESET} is an encoder that is written"
    )
    raise ConfigError(f"no family of transformers has all options of this model{told}{preset}")


PRESET = "model=encoder"


def _would(other: Mapping[str, tuple[Any, Any]]) -> str:
    """Describes up to four options that a family has otherwise."""
    some = [
        f"model.{name}={found} and not {wanted}"
        for name, (found, wanted) in itertools.islice(other.items(), 4)
    ]
    return ", ".join(some) + (f" and {len(other) - 4} more" if len(other) > 4 else "")


def class_of(model: ModelConfig, kind: str | None) -> Head | None:
    """Returns the head of this kind of the first family with all the model's options; else None."""
    for family in (family.of_model(model) for family in families.FAMILIES.values()):
        if family.write is not None and kind in family.heads:
            try:
                if not family.lacks(model, 1):
                    return family.heads[kind]
            except ConfigError:
                continue
    return None


def _has_head(family: Family, kind: str | None, task: Any, model: ModelConfig) -> bool:
    try:
        head_of(family, kind, task, model)
    except ConfigError:
        return False
    return True


def head_of(family: Family, kind: str | None, task: Any, model: ModelConfig) -> Head:
    """Returns the class of a task, whose options must be those that the class has.

    Raises ConfigError that names the one to change.
    """
    what = f"task={task.name}"
    if kind not in family.heads:
        there = ", ".join(f"{family.architecture}{head.suffix}" for head in family.heads.values())
        raise ConfigError(
            f"{what}: transformers has no class of {family.model_type} with this head; there are"
            f" {there}; {APART}"
        )
    head = family.heads[kind]
    other = {}
    for option, wanted in head.options.items():
        found = getattr(task, option, None)
        fits = (
            wanted
            if isinstance(wanted, tuple)
            else (getattr(model, option) if wanted is OF_MODEL else wanted,)
        )
        if found not in fits:
            other[f"task.{option}={found}"] = " or ".join(
                f"task.{option}={value}" for value in fits
            )
    if other:
        name = f"{family.architecture}{head.suffix}"
        raise ConfigError(
            f"{', '.join(other)}: {name} computes with {', '.join(other.values())}; train with"
            f" that; {APART}"
        )
    return head


APART = (
    "or set export.head=body: the model without its head, for AutoModel, and the head in a file of"
    " its own"
)


# --- tensors
# --------------------------------------------------------------------------------------------------
def all_moves(
    family: Family, head: Head | None, specs: Mapping[str, WeightSpec], what: str
) -> list[Move]:
    """Returns every tensor of the class, by today's name; without a head, of the body.

    Raises CheckpointError where a weight has no place in it.
    """
    body = {path: spec for path, spec in specs.items() if path.split("/")[0] not in OWN}
    if head is None:
        return family.moves(body, "", what)
    mine = {path: spec for path, spec in specs.items() if path not in body}
    found, own = family.moves(body, family.prefix_of(head), what), moves(head.table, mine)
    check_covered(own, mine, what)
    return [*found, *own]


def with_biases(
    head: Head, weights: Flat, specs: Mapping[str, WeightSpec]
) -> tuple[Flat, dict[str, WeightSpec]]:
    """Adds zero biases to layers of the head that have a bias in the class only."""
    weights, specs = dict(weights), dict(specs)
    for path in (entry.ours for entry in head.table if entry.ours.endswith("/b")):
        matrix = specs.get(path.removesuffix("b") + "w")
        if path not in specs and matrix is not None:
            shape, axes = matrix.shape[matrix.inputs :], matrix.axes[matrix.inputs :]
            weights[path], specs[path] = (
                np.zeros(shape, np.float32),
                WeightSpec(shape, matrix.dtype, axes),
            )
    return weights, specs


def rescaled(weights: Flat, head: Head, mean: np.ndarray, deviation: np.ndarray, what: str) -> Flat:
    """Returns a head that outputs `y` where it learned `(y - mean) / deviation`.

    `w d` and `b d + m`, of each output. Raises ConfigError without a bias.
    """
    if np.any(mean) and "head/out/b" not in weights:
        raise ConfigError(
            f"{what}: {head.suffix} has no bias, which the mean of the targets would need; train"
            f" with task.standardize=false, {APART}"
        )
    w, b = (np.asarray(weights.get(f"head/out/{name}", 0), np.float64) for name in "wb")
    new = {"head/out/w": w * deviation} | (
        {"head/out/b": b * deviation + mean} if "head/out/b" in weights else {}
    )
    return {**weights, **{path: value.astype(np.float32) for path, value in new.items()}}


def tensor(move: Move, weights: Flat, dtype: str) -> np.ndarray:
    """Returns a tensor in its exported form, on this host.

    Raises ConfigError where a value is beyond float16.
    """
    ours = [
        np.asarray(weights[slot.path][slot.index] if slot.index else weights[slot.path])
        for slot in move.slots
    ]
    value = np.ascontiguousarray(move.to_theirs(ours)).astype(DTYPES[dtype])
    if dtype == "F16" and np.isinf(value).any() and not any(np.isinf(x).any() for x in ours):
        raise ConfigError(f"export.dtype=fp16: {move.theirs} has values beyond it; choose bf16")
    return value


def write(
    folder: Path,
    family: Family,
    found: Sequence[Move],
    weights: Flat,
    dtypes: Mapping[str, str],
    shard: int,
) -> None:
    """Writes model.safetensors, or shards of at most `shard` bytes with their index.

    A host holds one shard at a time.
    """
    parts, names, total = list(_shards(found, dtypes, shard)), {}, 0
    for i, part in enumerate(parts, start=1):
        file = WEIGHTS if len(parts) == 1 else f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        values = {
            family.stored.get(move.theirs, move.theirs): tensor(move, weights, dtypes[move.theirs])
            for move in part
        }
        save(values, folder / file)
        names |= dict.fromkeys(values, file)
        total += sum(value.nbytes for value in values.values())
    if len(parts) > 1:
        rundir.write_json(
            folder / INDEX,
            {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))},
        )


def save(tensors: Mapping[str, np.ndarray], file: Path) -> None:
    """Writes a safetensors file that others may read too, as far as the umask lets them."""
    import safetensors.numpy

    safetensors.numpy.save_file(dict(tensors), file, metadata={"format": "pt"})
    file.chmod(file.parent.stat().st_mode & 0o666)  # the library writes for the owner only


def _shards(found: Sequence[Move], dtypes: Mapping[str, str], limit: int) -> Iterator[list[Move]]:
    part, size = [], 0
    for move in found:
        bytes_of = int(np.prod(move.shape)) * np.dtype(DTYPES[dtypes[move.theirs]]).itemsize
        if part and size + bytes_of > limit:
            yield part
            part, size = [], 0
        part, size = [*part, move], size + bytes_of
    yield part


def dtypes_of(
    family: Family, found: Sequence[Move], before: Mapping[str, Sequence[Any]], given: str | None
) -> dict[str, str]:
    """Returns the dtype of every tensor.

    The given one, else that which it had, else the most common one there, else float32.

    Args:
      before: [dtype, shape] by name, as the files had them that the model was loaded from.
    """
    if given is not None:
        if given not in NAMES:
            raise ConfigError(f"export.dtype={given}: expected one of {', '.join(NAMES)}")
        return {move.theirs: NAMES[given] for move in found}
    had: dict[str, str] = {}
    bare = lambda name: name.removeprefix(
        next((prefix for prefix in family.prefixes if name.startswith(prefix)), "")
    )
    for name, (dtype, _) in before.items():
        for old, new in family.renamed:
            name = re.sub(re.escape(old) + "$", new, name)
        had[name] = had[bare(name)] = dtype
    standard = max(had.values(), key=list(had.values()).count, default="F32")
    look = lambda name: had.get(name) or had.get(bare(name)) or standard
    return {move.theirs: look(move.theirs) for move in found}
