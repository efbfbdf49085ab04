"""Reads weights from a Hugging Face folder: config.json and model.safetensors, whole or in shards.

They are read as data; no code of it ever runs.

Tensors are taken one after the other: read from the file, turned, and written into their place in
our weights, which lie on the mesh from the start. Of a tensor a host holds what its own devices
need.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxsft import halves
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import trained_heads
from jaxsft.hf.families.family import Move, check_covered, moves
from jaxsft.hf.pretrained_folder import FLOATS, OWN, PretrainedFolder, modern
from jaxsft.hf.trained_heads import Asked
from jaxsft.sharding.weight_spec import Flat, WeightSpec

VOCABULARY = ("embed/tokens/w", "head/w", "head/b")  # grow with the tokenizer
CHUNK = 1 << 20  # numbers that are looked at together


# --- the plan
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class LoadPlan:
    """The plan of which tensor goes where.

    Attributes:
      moves: with the names that the files have.
      fresh: weights of ours that keep their initial values.
      left: tensors that have no place here: buffers, heads of other tasks.
      head: why the head that the files have is not that of the task; None: it is, or they have
        none.
    """

    moves: tuple[Move, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    head: str | None = None


def plan(
    source: PretrainedFolder,
    specs: Mapping[str, WeightSpec],
    kind: str | None,
    asked: Asked | None = None,
) -> LoadPlan:
    """Plans what becomes of every tensor and every weight (a flat dict of specs).

    Args:
      kind: of the head, as `TaskSpec.head`.
      asked: what the head must be, to be taken from the files where it is none over the vocabulary;
        None: it starts anew.

    Raises:
      CheckpointError: a tensor is missing, additional, of another shape or no float.
    """
    family, what = source.family, str(source.folder)
    names = _names(source)
    prefix = next(
        (one for one in family.prefixes if any(name.startswith(one) for name in names)), ""
    )
    body = {path: spec for path, spec in specs.items() if path.split("/")[0] not in OWN}
    found = family.moves(body, prefix, what)
    head = {path: spec for path, spec in specs.items() if path.split("/")[0] == "head"}
    taken, why = _head(source, names, head, kind, asked)
    filled = {slot.path for move in taken for slot in move.slots}
    fresh = tuple(path for path in specs if path not in body and path not in filled)
    for move in (*found, *taken):
        _check(move, names, source)
    known = {move.theirs for move in (*found, *taken)}
    heads = {entry.theirs for one in family.heads.values() for entry in one.table}
    skip = re.compile("|".join(f"(?:{pattern})" for pattern in family.skip) or r"(?!)")
    left = [name for name in names if name not in known]
    copies = [
        name
        for name in left
        if any(re.fullmatch(pattern, name.removeprefix(prefix)) for pattern in family.copies)
    ]
    _check_twins(
        source, names, (*found, *taken), left, copies, kind if kind == "lm" or taken else None
    )
    for name in left:
        if (
            name not in heads
            and name not in copies
            and not skip.fullmatch(name)
            and not skip.fullmatch(name.removeprefix(prefix))
        ):
            raise CheckpointError(
                f"{what}: has {names[name]} {list(source.tensors.shape(names[name]))}, for which"
                " this model has no place"
            )
    return LoadPlan(
        tuple(move._replace(theirs=names[move.theirs]) for move in (*found, *taken)),
        fresh,
        tuple(names[name] for name in left),
        why,
    )


def _head(
    source: PretrainedFolder,
    names: Mapping[str, str],
    specs: Mapping[str, WeightSpec],
    kind: str | None,
    asked: Asked | None,
) -> tuple[list[Move], str | None]:
    """Returns (the tensors of the head that the files have, why there are none), as `plan` and
    `trained_heads.taken` have it."""
    family, values = source.family, source.values
    if not specs or not (kind == "mlm" or (asked is not None and kind != "lm")):
        return _over_vocabulary(source, names, specs, kind), None
    shapes = {name: source.tensors.shape(there) for name, there in names.items()}
    try:
        if kind == "mlm":
            task = None if asked is None else asked.task
            return trained_heads.masked(family, values, shapes, specs, task)
        return trained_heads.taken(family, values, shapes, specs, asked)
    except ConfigError as error:
        raise ConfigError(f"{source.folder}: {error}") from None


def _names(source: PretrainedFolder) -> dict[str, str]:
    """Returns the name in the files by today's name.

    Raises CheckpointError where two that are one today differ.
    """
    out: dict[str, str] = {}
    for name in source.tensors:
        other = out.setdefault(modern(source.family, name), name)
        if other != name and not np.array_equal(
            source.tensors.read(name), source.tensors.read(other)
        ):
            raise CheckpointError(
                f"{source.folder}: {name} and {other} differ, but this model has one for both"
            )
    return out


def _over_vocabulary(
    source: PretrainedFolder,
    names: Mapping[str, str],
    head: Mapping[str, WeightSpec],
    kind: str | None,
) -> list[Move]:
    """Returns the moves of a language model's head; all must be in the files, but for a bias.

    Raises CheckpointError.
    """
    if not head or kind != "lm" or kind not in source.family.heads:
        return []
    found = moves(source.family.heads[kind].table, head)
    check_covered(found, head, str(source.folder))
    return [move for move in found if move.theirs in names or not trained_heads.is_bias(move)]


def _check_twins(
    source: PretrainedFolder,
    names: Mapping[str, str],
    taken: Sequence[Move],
    left: Sequence[str],
    copies: Sequence[str],
    kind: str | None,
) -> None:
    """Checks tensors that are copies of others, such as an output tied to the embedding.

    They are not taken. Raises CheckpointError where one differs.
    """
    heads = source.family.heads
    twins = (
        {
            entry.theirs: entry.ours
            for entry in heads[kind].table
            if entry.ours in ("head/w", "head/b")
        }
        if kind in heads
        else {}
    )
    twins |= dict.fromkeys(copies, "head/w")
    there = {move.slots[0].path: names[move.theirs] for move in taken}
    for name in left:
        ours = twins.get(name)
        one, other = names[name], there.get("embed/tokens/w" if ours == "head/w" else ours)
        if (
            ours
            and other
            and not np.array_equal(source.tensors.read(one), source.tensors.read(other))
        ):
            tied = "but config.json says that they are one; set tie_word_embeddings to false there"
            raise CheckpointError(
                f"{source.folder}: {one} and {other} differ,"
                f" {'but this model has one for both' if name in copies else tied}"
            )


def _check(move: Move, names: Mapping[str, str], source: PretrainedFolder) -> None:
    ours = ", ".join("/".join([slot.path, *map(str, slot.index)]) for slot in move.slots)
    if move.theirs not in names:
        raise CheckpointError(
            f"{source.folder}: has no {move.theirs}, which {ours} needs ({len(names)} tensors"
            " there)"
        )
    name = names[move.theirs]
    shape, rows = source.tensors.shape(name), source.values.get("vocab_size")
    grown = (
        move.slots[0].path in VOCABULARY
        and shape[:1] == (rows,)
        and move.shape[0] > shape[0]
        and shape[1:] == move.shape[1:]
    )
    if shape != move.shape and not grown:
        raise CheckpointError(
            f"{source.folder}: {name} is {list(shape)}, but {ours} needs {list(move.shape)}"
        )
    if (dtype := source.tensors.dtype(name)) not in FLOATS:
        raise CheckpointError(
            f"{source.folder}: {name} is of dtype {dtype}; only {', '.join(FLOATS)} can be loaded"
        )


# --- loading
# --------------------------------------------------------------------------------------------------
def load(
    source: PretrainedFolder,
    todo: LoadPlan,
    weights: Flat,
    keep: Mapping[str, np.ndarray] | None = None,
    rounded: Collection[str] = (),
) -> Flat:
    """Returns `weights` (arrays by path, which are used up) with the values of the files.

    Args:
      keep: by path, which layers (`[L]`, or a single value) keep what they have.
      rounded: paths of weights that are rounded to bfloat16, and held in their own dtype; where
        that is uint16, as bits (`halves`).

    Raises:
      CheckpointError: a value is NaN or infinite.
    """
    weights, keep = dict(weights), keep or {}
    for move in todo.moves:
        wanted = [
            not np.ravel(keep.get(slot.path, False))[
                slot.index[0] if np.size(keep.get(slot.path, False)) > 1 else 0
            ]
            for slot in move.slots
        ]
        if not any(wanted):
            continue
        for slot, value, want in zip(
            move.slots,
            move.to_ours(_grown(source.tensors.read(move.theirs), move)),
            wanted,
            strict=True,
        ):
            if want:
                about = f"{source.folder}: {move.theirs}"
                weights[slot.path] = _put(
                    weights.pop(slot.path), value, slot.index, about, slot.path in rounded
                )
        source.tensors.release(move.theirs)
    return weights


def read_by_products(specs: Mapping[str, WeightSpec]) -> set[str]:
    """Returns the matrices of a body that only `layers.Linear` reads, in the model's precision.

    The router of experts and their own matrices are not among them.
    """
    apart = {"experts", "experts_out"}
    return {
        path
        for path, spec in specs.items()
        if spec.inputs and not apart & set(spec.axes) and path.split("/")[0] not in OWN
    }


def _finite(value: np.ndarray, what: str) -> np.ndarray:
    """Returns `value`. Raises CheckpointError where a number of it is NaN or infinite.

    It looks at the exponents: all of their bits are set.
    """
    bits, ones = {
        2: (np.uint16, 0x7F80 if value.dtype == FLOATS["BF16"] else 0x7C00),
        4: (np.uint32, 0x7F800000),
    }[value.itemsize]
    flat = value.reshape(-1).view(bits)
    for start in range(0, flat.size, CHUNK):
        if ((flat[start : start + CHUNK] & bits(ones)) == ones).any():
            raise CheckpointError(
                f"{what} holds numbers that are not finite (NaN or infinity); every answer would"
                " be NaN"
            )
    return value


def _grown(tensor: np.ndarray, move: Move) -> np.ndarray:
    """Adds rows for added tokens, which start at the mean of the others.

    Hewitt, 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html.
    """
    more = move.shape[0] - len(tensor) if move.slots[0].path in VOCABULARY else 0
    if not more:
        return tensor
    mean = tensor.astype(np.float32).mean(0, keepdims=True).astype(tensor.dtype)
    return np.concatenate([tensor, np.broadcast_to(mean, (more, *mean.shape[1:]))])


def _put(
    weight: jax.Array, value: np.ndarray, index: Sequence[int], what: str, rounded: bool
) -> jax.Array:
    """Computes `weight[index] = value` in place, each device its own part.

    `what` names the weight in an error.
    """
    place, dtype = _part(weight.sharding, len(index)), FLOATS["BF16"] if rounded else value.dtype
    # a copy: a file may change
    bits = np.uint16 if halves.are(weight) else dtype
    own = lambda where: (
        _finite(np.array(value[where], order="C"), what).astype(dtype, copy=False).view(bits)
    )
    part = jax.make_array_from_callback(value.shape, place, own)
    return _write(weight.sharding)(weight, part, np.array(index, np.int32))


def _part(place: Sharding, depth: int) -> Sharding:
    """Returns the sharding of the value for one layer of a stack."""
    return (
        NamedSharding(place.mesh, PartitionSpec(*place.spec[depth:]))
        if isinstance(place, NamedSharding)
        else place
    )


@functools.cache
def _write(place: Sharding) -> Any:
    def write(weight, value, index):
        value = value.astype(weight.dtype).reshape((1,) * (weight.ndim - value.ndim) + value.shape)
        start = (
            *(index[i] for i in range(index.shape[0])),
            *[jnp.int32(0)] * (weight.ndim - index.shape[0]),
        )
        return lax.dynamic_update_slice(weight, value, start)

    return jax.jit(write, donate_argnums=0, out_shardings=place)
