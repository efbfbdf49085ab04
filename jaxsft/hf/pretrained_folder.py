"""A Hugging Face folder as it lies there, read without JAX: config.json, the family it is of, and
the names, shapes and bytes of its tensors.

They are read as data; no code of it ever runs. A file of weights is mapped, not read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import mmap
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxsft import documents
from jaxsft.config.model import ModelConfig
from jaxsft.errors import CheckpointError, ConfigError, first_line
from jaxsft.hf import families
from jaxsft.hf.families import text_half
from jaxsft.hf.families.family import Family
from jaxsft.hf.families.key_types import shown

OWN = ("head", "adapters")  # the roots of weights that a body has not
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
JSON_BYTES = 1 << 26  # of config.json and of an index: far more than the largest has


# --- files
# --------------------------------------------------------------------------------------------------
class Tensors:
    """The tensors of a folder, by name; each is read when it is asked for.

    `named` gives the name that one goes by here, and None for one that is left out. Raises
    CheckpointError where there are none, or a file is damaged.
    """

    def __init__(self, folder: Path, named: Callable[[str], str | None] = lambda name: name):
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
        self._written: dict[str, str] = {}  # the names in the files
        self._maps: dict[Path, tuple[dict[str, Any], np.ndarray]] = {}
        self._whole: dict[Path, np.memmap] = {}
        for file in sorted(files):
            opened = _open(folder / file)
            for written in opened.keys():  # noqa: SIM118
                if (name := named(written)) is None:
                    continue
                if name in self._slices:
                    raise CheckpointError(f"{folder / file}: {name} is in another shard too")
                self._slices[name], self._files[name] = opened.get_slice(written), folder / file
                self._written[name] = written
        wanted = {name for one in listed or () if (name := named(one)) is not None}
        if lost := sorted(wanted - set(self._slices)):
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
        begin, end = header[self._written[name]]["data_offsets"]
        return data[begin:end].view(FLOATS[self.dtype(name)]).reshape(self.shape(name))

    def release(self, name: str) -> None:
        """Releases the pages of a tensor to the system; they are read again when asked for."""
        file = self._files[name]
        header, data = self._mapped(file)
        begin, end = (
            data.ctypes.data - self._whole[file].ctypes.data + at
            for at in header[self._written[name]]["data_offsets"]
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


FLOATS = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}


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
    named: Callable[[str], str | None] = lambda name: name  # of its tensors, as in `Tensors`

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
                if match := pattern.search(modern(self.family, name)):
                    deepest[root] = max(deepest.get(root, (-1, "")), (int(match[1]), name))
        for root, (last, name) in deepest.items():
            if counts[root] > last + 1:
                raise CheckpointError(
                    f"{self.folder / 'config.json'}: says {counts[root]} layers, but the files have"
                    f" {last + 1}: {name} is of the last one"
                )

    @functools.cached_property
    def tensors(self) -> Tensors:
        return Tensors(self.folder, self.named)


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
    place = Path(folder) / "config.json"
    values = documents.read_json(place, ConfigError, dict, JSON_BYTES)
    if (half := text_half.config_of(values)) is None:
        return PretrainedFolder(Path(folder), values, families.of(values, str(place), part))
    source = PretrainedFolder(
        Path(folder), half, families.of(half, str(place), part), text_half.name_of
    )
    # which config of the two says it has changed from version to version: the files know
    own = (Path(folder, WEIGHTS).is_file() or Path(folder, INDEX).is_file()) and any(
        entry.theirs in source.tensors for entry in source.family.heads["lm"].table
    )
    return dataclasses.replace(source, values={**half, "tie_word_embeddings": not own})


def modern(family: Family, name: str) -> str:
    """Returns the name that a tensor of an old file has today."""
    for old, new in family.renamed:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
