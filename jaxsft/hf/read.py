"""Reads weights from a Hugging Face folder: config.json and model.safetensors, whole or in shards.

They are read as data; no code of it ever runs.

Tensors are taken one after the other: read from the file, turned, and written into their place in
our weights, which lie on the mesh from the start. A file is mapped, not read: of a tensor a host
holds what its own devices need.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import mmap
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxsft import documents, halves
from jaxsft.config.model import ModelConfig
from jaxsft.errors import CheckpointError, ConfigError, first_line
from jaxsft.hf import families, trained_heads
from jaxsft.hf.families.family import Family, Move, check_covered, moves
from jaxsft.hf.families.key_types import shown
from jaxsft.hf.trained_heads import Asked
from jaxsft.sharding.weights import Flat, WeightSpec

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
JSON_BYTES = 1 << 26  # of config.json and of an index: far more than the largest has
VOCABULARY = ("embed/tokens/w", "head/w", "head/b")  # grow with the tokenizer
OWN = ("head", "adapters")  # the roots of weights that a body has not


# --- files
# --------------------------------------------------------------------------------------------------
class Tensors:
    """The tensors of a folder, by name; each is read when it is asked for.

    Raises CheckpointError where there are none, or a file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / INDEX
        listed = _listed(index) if index.is_file() else None
        files = {WEIGHTS} if listed is None else set(listed.values())
        if not index.is_file() and not (folder / WEIGHTS).is_file():
            old = sorted(p.name for p in folder.glob("*.bin"))
            found = (
                f"has {old[0]}, a pickle, which can run code and is never opened"
                if old
                else "has no weights"
            )
            raise CheckpointError(
                f"{folder}: {found}; expected {WEIGHTS}, or shards of it with {INDEX}"
            )
        self._slices: dict[str, Any] = {}
        self._files: dict[str, Path] = {}
        self._maps: dict[Path, tuple[dict[str, Any], np.ndarray]] = {}
        self._whole: dict[Path, np.memmap] = {}
        for file in sorted(files):
            opened = _open(folder / file)
            for name in opened.keys():  # noqa: SIM118
                if name in self._slices:
                    raise CheckpointError(f"{folder / file}: {name} is in another shard too")
                self._slices[name], self._files[name] = opened.get_slice(name), folder / file
        if listed is not None and (lost := sorted(set(listed) - set(self._slices))):
            raise CheckpointError(f"{index}: {lost[0]} is in none of the {len(files)} shards")

    def __iter__(self):
        return iter(self._slices)

    def __contains__(self, name: str) -> bool:
        return name in self._slices

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slices[name].get_shape())

    def dtype(self, name: str) -> str:
        """Returns the dtype as safetensors spells it: F32, BF16, F16."""
        return self._slices[name].get_dtype()

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor of floats as a view of its file.

        What is not used of it is not read: a process reads the parts of its own devices.
        """
        header, data = self._mapped(self._files[name])
        begin, end = header[name]["data_offsets"]
        return data[begin:end].view(FLOATS[self.dtype(name)]).reshape(self.shape(name))

    def release(self, name: str) -> None:
        """Releases the pages of a tensor to the system; they are read again when asked for."""
        file = self._files[name]
        header, data = self._mapped(file)
        begin, end = (
            data.ctypes.data - self._whole[file].ctypes.data + at
            for at in header[name]["data_offsets"]
        )
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        if (
            (pages := self._whole[file].base) is not None
            and end - first >= mmap.PAGESIZE
            and hasattr(mmap, "MADV_DONTNEED")
        ):
            pages.madvise(mmap.MADV_DONTNEED, first, end - first)

    def _mapped(self, file: Path) -> tuple[dict[str, Any], np.ndarray]:
        """Returns header and data of a file that was opened before, so that it is sound.

        A file is the header's length in eight bytes, JSON, data.
        """
        if file not in self._maps:
            whole = self._whole[file] = np.memmap(file, np.uint8, "r")
            start = 8 + int(whole[:8].view("<u8")[0])
            self._maps[file] = json.loads(whole[8:start].tobytes()), whole[start:]
        return self._maps[file]


CHUNK = 1 << 20  # numbers that are looked at together
FLOATS = {"F32": np.dtype(np.float32), "BF16": np.dtype(jnp.bfloat16), "F16": np.dtype(np.float16)}


def _open(file: Path) -> Any:
    import safetensors

    try:
        return safetensors.safe_open(file, framework="np")
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read ({first_line(error)})") from None


def _listed(index: Path) -> dict[str, str]:
    """Returns the file of each tensor in an index.

    Raises CheckpointError where an index does not say it, or names a file elsewhere.
    """
    found = documents.read_json(index, CheckpointError, dict, JSON_BYTES).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(
            f"{index}: weight_map={shown(found)}: expected an object with the file of each tensor"
        )
    for name, file in found.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: weight_map: {shown(name)} is {shown(file)}, expected the name of a"
                " .safetensors file"
            )
        if Path(file).name != file:
            raise CheckpointError(f"{index}: names {file[:80]}, which does not lie beside it")
    return found


# --- a folder
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class PretrainedFolder:
    """A folder with a pretrained model: its config.json and its family."""

    folder: Path
    values: Mapping[str, Any]  # of its config.json
    family: Family

    def model(self, context: int | None = None) -> ModelConfig:
        """Returns its architecture in our options. Raises ConfigError for what we cannot follow."""
        found = self.family.model(self.values, str(self.folder / "config.json"), context)
        if (self.folder / WEIGHTS).is_file() or (self.folder / INDEX).is_file():
            self._check_layers(found)
            if (
                self.family.ties
                and not found.tied
                and not any(e.theirs in self.tensors for e in self.family.heads["lm"].table)
            ):
                return dataclasses.replace(found, tied=True)
        return found

    def _check_layers(self, model: ModelConfig) -> None:
        """Compares the number of layers with the names in the headers of the files, before anything
        grows with it. Raises CheckpointError.
        """
        counts = {
            "layers/": model.layers,
            "encoder/layers/": model.layers,
            "decoder/layers/": model.decoder_layers,
        }
        entries = [
            (root, entry.theirs)
            for entry in self.family.table
            for root in counts
            if entry.ours.startswith(f"{root}*")
        ]
        deepest: dict[str, tuple[int, str]] = {}
        for root, theirs in entries:
            pattern = re.compile(
                re.escape(theirs).replace(r"\*", r"(\d{1,9})", 1).replace(r"\#", r"\d+") + r"\Z"
            )
            for name in self.tensors:
                if match := pattern.search(_modern(self.family, name)):
                    deepest[root] = max(deepest.get(root, (-1, "")), (int(match[1]), name))
        for root, (last, name) in deepest.items():
            if counts[root] > last + 1:
                raise CheckpointError(
                    f"{self.folder / 'config.json'}: says {counts[root]} layers, but the files have"
                    f" {last + 1}: {name} is of the last one"
                )

    @functools.cached_property
    def tensors(self) -> Tensors:
        return Tensors(self.folder)


def is_source(folder: str | Path) -> bool:
    """Returns whether a folder has the layout of Hugging Face and is no run directory."""
    return os.path.isfile(Path(folder, "config.json")) and not os.path.isfile(
        Path(folder, "config.yaml")
    )


def open_source(folder: str | Path, part: str = "all") -> PretrainedFolder:
    """Opens a folder; `part` is `model.part`.

    Raises ConfigError: no config.json, one of a family that is not known, or that has no such
    part.
    """
    values = documents.read_json(Path(folder) / "config.json", ConfigError, dict, JSON_BYTES)
    return PretrainedFolder(
        Path(folder), values, families.of(values, str(Path(folder) / "config.json"), part)
    )


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
    taken, why = _over_vocabulary(source, names, head, kind), None
    if head and (kind == "mlm" or (asked is not None and kind != "lm")):
        shapes = {name: source.tensors.shape(there) for name, there in names.items()}
        try:
            if kind == "mlm":
                taken, why = trained_heads.masked(
                    family, source.values, shapes, head, None if asked is None else asked.task
                )
            else:
                taken, why = trained_heads.taken(family, source.values, shapes, head, asked)
        except ConfigError as error:
            raise ConfigError(f"{source.folder}: {error}") from None
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


def _names(source: PretrainedFolder) -> dict[str, str]:
    """Returns the name in the files by today's name.

    Raises CheckpointError where two that are one today differ.
    """
    out: dict[str, str] = {}
    for name in source.tensors:
        other = out.setdefault(_modern(source.family, name), name)
        if other != name and not np.array_equal(
            source.tensors.read(name), source.tensors.read(other)
        ):
            raise CheckpointError(
                f"{source.folder}: {name} and {other} differ, but this model has one for both"
            )
    return out


def _modern(family: Family, name: str) -> str:
    for old, new in family.renamed:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


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
