"""The cache of encoded examples: flat arrays in a folder named by a hash of all they depend on.

The key hashes the rows, the task's options, the tokenizer, the template and the source code that
turns rows into examples. A trial of a sweep that differs in the learning rate only finds the folder
there; one that differs in any of these makes its own.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents, rundir
from jaxsft.errors import DataError

Arrays = dict[str, np.ndarray]
DAY = 86400  # seconds
Stored = dict[str, dict[str, Any]]


def root(cache_dir: str | None) -> Path:
    """Returns the given folder, or the user's cache folder (`$XDG_CACHE_HOME/jaxsft`)."""
    return (
        Path(cache_dir)
        if cache_dir
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxsft"
    )


@functools.cache
def code_digest() -> str:
    """Returns the hash of the sources that examples depend on.

    A new version of the code never reads an old version's examples.
    """
    package = Path(__file__).parent.parent
    sources = sorted([*(package / "data").rglob("*.py"), *(package / "tasks").glob("*.py")])
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()


def key(parts: Mapping[str, Any]) -> str:
    return rundir.sha256_json({**parts, "code": code_digest()})[:32]


def crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def load_or_build(folder: Path, build: Callable[[], tuple[Arrays, dict]]) -> tuple[Arrays, dict]:
    """Returns the memory-mapped arrays and the facts of a folder; builds what is missing.

    A folder of another key, or with facts or arrays that are not as they were written, is built
    again.
    """
    if not (found := load(folder)):
        with _uncollected():
            arrays, facts = build()

        def write(aside: Path) -> Stored:
            for name, array in arrays.items():
                np.save(aside / f"{name}.npy", array, allow_pickle=False)
            return {
                "facts": facts,
                "crc": {name: crc32(np.asarray(a)) for name, a in arrays.items()},
            }

        save(folder, write, "examples")
        found = load(folder) or (arrays, facts)
    return found


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Disables the cycle collector in the block.

    It would scan a million small objects again and again (a third of the time), and they hold
    no cycles.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def load(folder: Path) -> tuple[Arrays, dict] | None:
    """Returns what `save` stored, arrays memory-mapped; None where it is missing or damaged."""
    try:
        stored = documents.read_json(folder / "facts.json", top=dict, halves=True)
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in stored["crc"]
        }
        intact = stored == _bound(
            folder,
            {"facts": stored["facts"], "crc": {name: crc32(a) for name, a in arrays.items()}},
            arrays,
        )
        return (arrays, stored["facts"]) if intact else None
    except Exception:  # whatever a damaged file makes NumPy raise
        return None


def _bound(folder: Path, stored: Stored, arrays: Mapping[str, np.ndarray]) -> Stored:
    """Adds the key (the folder's name), the shapes and a checksum.

    So an entry of another key is never taken for this one.
    """
    about = {
        **stored,
        "key": folder.name,
        "shapes": {name: [str(a.dtype), *a.shape] for name, a in arrays.items()},
    }
    return {**about, "sum": rundir.sha256_json(about)}


def used(folder: Path) -> None:
    """Marks the folder as read now, for `prune`."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def prune(root: Path, limit: float, mine: Collection[str]) -> tuple[int, int, int]:
    """Removes folders of `root`, the longest unused first, until what stays has no more than
    `limit` bytes. Those of names in `mine` stay, and what another process writes aside; what one
    left aside a day ago goes as the others do.

    Returns: how many stay, their bytes, and how many were removed.
    """
    found = []
    for folder in root.iterdir():
        with contextlib.suppress(OSError):  # another process removes it now
            files = [path.stat() for path in folder.iterdir()]
            found.append(
                (
                    max([folder.stat().st_mtime, *(s.st_mtime for s in files)]),
                    sum(s.st_size for s in files),
                    folder,
                )
            )
    count, held, removed = len(found), sum(size for _, size, _ in found), 0
    for when, size, folder in sorted(found):
        written = folder.name.startswith(".") and time.time() - when < DAY
        if held > limit and folder.name not in mine and not written:
            shutil.rmtree(folder, ignore_errors=True)
            held, removed = held - size, removed + 1
    return count - removed, held, removed


def save(folder: Path, write: Callable[[Path], Stored], what: str) -> None:
    """Stores arrays under checksums.

    Args:
      write: writes `NAME.npy` files into the folder that it is given, and returns their facts and
        checksums: `{"facts", "crc"}`.
      what: what is stored, for errors.

    Raises:
      DataError: the disk is full, or nothing may be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"{folder.parent}: cannot write the cache of {what} ({error.strerror}); set"
            " data.cache_dir=<folder>"
        ) from error
    try:
        stored = write(aside)
        written = {
            name: np.load(aside / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in stored["crc"]
        }
        rundir.write_text(
            aside / "facts.json",
            json.dumps(_bound(folder, stored, written), ensure_ascii=False, allow_nan=False),
        )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except OSError as error:
        if load(folder) is None:  # else another process was faster, with the same contents
            raise DataError(
                f"{folder}: cannot write the cache of {what} ({error.strerror}); set"
                " data.cache_dir=<folder>"
            ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
