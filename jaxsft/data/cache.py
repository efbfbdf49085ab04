"""Examples on disk, once per data set: flat arrays in a folder named by everything that they depend on.

The key hashes the rows, the task's options, the tokenizer, the template and the source code that turns rows into examples. A trial of a sweep
that differs in the learning rate only finds the folder there; one that differs in any of these makes its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import rundir
from jaxsft.errors import DataError

Arrays = dict[str, np.ndarray]
Stored = dict[str, dict[str, Any]]


def root(cache_dir: str | None) -> Path:
    """The given folder, or the user's cache folder (`$XDG_CACHE_HOME/jaxsft`)."""
    return Path(cache_dir) if cache_dir else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxsft"


@functools.cache
def code_digest() -> str:
    """Hash of the sources that examples depend on: a new version of the code never reads an old version's examples."""
    package = Path(__file__).parent.parent
    sources = sorted([*(package / "data").rglob("*.py"), *(package / "tasks").glob("*.py")])
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()


def key(parts: Mapping[str, Any]) -> str:
    return rundir.sha256_json({**parts, "code": code_digest()})[:32]


def crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def load_or_build(folder: Path, build: Callable[[], tuple[Arrays, dict]]) -> tuple[Arrays, dict]:
    """The arrays (memory-mapped) and the facts stored with them; built, written aside and renamed where they are missing.

    A folder without `facts.json` or with an array whose size is not what the facts say is built again.
    """
    if not (found := load(folder)):
        arrays, facts = build()

        def write(aside: Path) -> Stored:
            for name, array in arrays.items():
                np.save(aside / f"{name}.npy", array, allow_pickle=False)
            return {"facts": facts, "crc": {name: crc32(np.asarray(a)) for name, a in arrays.items()}}

        save(folder, write, "examples")
        found = load(folder) or (arrays, facts)
    return found


def load(folder: Path) -> tuple[Arrays, dict] | None:
    """What `save` stored, the arrays memory-mapped; None where it is not there, or not as it was written."""
    try:
        stored = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in stored["crc"]}
        intact = {n: crc32(a) for n, a in arrays.items()} == stored["crc"]
        return (arrays, stored["facts"]) if intact else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def save(folder: Path, write: Callable[[Path], Stored], what: str) -> None:
    """Stores arrays under checksums.

    Args:
      write: writes `NAME.npy` files into the folder that it is given, and returns their facts and checksums: `{"facts", "crc"}`.
      what: what is stored, for errors.

    Raises:
      DataError: the disk is full, or nothing may be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(f"{folder.parent}: cannot write the cache of {what} ({error.strerror}); set data.cache_dir=<folder>") from error
    try:
        stored = write(aside)
        rundir.write_text(aside / "facts.json", json.dumps(stored, ensure_ascii=False))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except OSError as error:
        if load(folder) is None:  # else another process was faster, with the same contents
            raise DataError(f"{folder}: cannot write the cache of {what} ({error.strerror}); set data.cache_dir=<folder>") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
