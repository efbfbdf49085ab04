"""Run directories in object stores (`gs://bucket/run`), with a synchronised local copy.

An object store has no rename, no append and no locks; an object appears whole or not at all. So the
small files of a run are written to a working copy on the local disk, as everywhere else, and copied
object by object; `result.json`, which says that a run is complete, comes last. Where both exist the
store is right: opening a run throws its working copy away. Checkpoints are no small files: Orbax
reads and writes them at the store itself, each process its own shards, and marks a complete step by
an object that it writes last.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxsft.errors import ConfigError, JaxsftError, first_line
from jaxsft.runlock import RunLock

APART = ("checkpoints", "damaged", "steps.json", RunLock.NAME)  # never copied
LAST = "result.json"


def is_remote(place: str | Path) -> bool:
    return "://" in str(place)


def path(place: str | Path) -> Any:
    """Returns a `Path`, or its like for the store.

    Raises ConfigError where the scheme is not supported here.
    """
    if not is_remote(place):
        return Path(place)
    scheme = str(place).partition("://")[0]
    if scheme != "gs":
        raise ConfigError(
            f"{place}: {scheme}:// is not supported; give a local folder, or gs://bucket/folder"
        )
    from etils import epath

    try:
        import gcsfs  # noqa: F401 - what fsspec and etils reach Google Cloud Storage through
    except ImportError as error:
        raise ConfigError(
            f"{place}: Google Cloud Storage needs the extra `gcs`: pip install 'jaxsft[gcs]'"
        ) from error
    import fsspec

    # that of etils; another machine may have written since it listed
    fsspec.filesystem("gcs", finalize_on_close=True).invalidate_cache()
    return epath.Path(place)


def join(place: str | Path, *parts: str | Path) -> str | Path:
    return (
        "/".join((str(place).rstrip("/"), *map(str, parts)))
        if is_remote(place)
        else Path(place, *parts)
    )


def working_copy(place: str | Path, process: int = 0) -> Path:
    """Returns the local folder of a run's small files.

    It is the run itself, or a folder of the user's cache, one for each process.
    """
    if not is_remote(place):
        return Path(place)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxsft" / "runs"
    name = hashlib.sha256(str(place).rstrip("/").encode()).hexdigest()[:16]
    return root / f"{name}-{process}"


def pull(place: str | Path, copy: Path) -> None:
    """Makes the working copy what the store has. Raises JaxsftError."""
    if not is_remote(place):
        return
    with friendly(place, "read"):
        for old in copy.iterdir() if copy.is_dir() else ():
            if old.name not in APART:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for name, source in _small_files(path(place)):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())


class Mirror:
    """Copies what changed in a working copy to the store. Does nothing for a local run."""

    def __init__(self, place: str | Path, copy: Path):
        self.place, self.copy = place, copy
        self._sent = (
            {name: _stamp(file) for name, file in _small_files(copy)} if is_remote(place) else {}
        )

    def push(self) -> None:
        """Raises JaxsftError; the store then has each file as it was or as it is, and no
        `result.json` of this push.
        """
        if not is_remote(self.place):
            return
        with friendly(self.place, "write"):
            there, here = path(self.place), dict(_small_files(self.copy))
            for name in sorted(self._sent.keys() - here.keys()):
                (there / name).unlink(missing_ok=True)
                del self._sent[name]
            for name in sorted(here, key=lambda name: (name == LAST, name)):
                if self._sent.get(name) != (stamp := _stamp(here[name])):
                    (there / name).parent.mkdir(parents=True, exist_ok=True)
                    (there / name).write_bytes(here[name].read_bytes())
                    self._sent[name] = stamp


@functools.cache
def opened(place: str) -> Path:
    """Returns the folder to read a run's small files from.

    It is the run itself, or a copy that lives as long as this process. Raises JaxsftError.
    """
    if not is_remote(place):
        return Path(place)
    copy = Path(tempfile.mkdtemp(prefix="jaxsft-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    pull(place, copy)
    return copy


def files(folder: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (name, file) of every file below a folder, here or at a store."""
    for entry in sorted(_entries(folder), key=lambda p: p.name):
        if entry.name in ("", ".", "..") or set(entry.name) & set("/\\"):
            raise JaxsftError(
                f"{folder}: has a file of the name {entry.name!r}, which cannot be one of a run"
            )
        if entry.is_dir():
            yield from files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry


def _entries(folder: Any) -> Iterator[Any]:
    """Yields the entries of a folder.

    At a store, an empty object whose name ends in a slash marks a folder and is listed in it;
    it is left out.
    """
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not (is_remote(folder) and entry.name == folder.name and not entry.exists()):
            yield entry


def move(source: Any, target: Any) -> None:
    """Moves a folder to another place of the same kind.

    At a store object by object: if interrupted, both places have a part.
    """
    if not is_remote(source):
        source.replace(target)
        return
    for name, file in files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(file.read_bytes())
    source.rmtree()


def _small_files(folder: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, file) of the files of a run that are copied."""
    for entry in _entries(folder):
        if entry.name in ("", ".", ".."):
            raise JaxsftError(
                f"{folder}: has a file of the name {entry.name!r}, which cannot be one of a run"
            )
        if entry.name not in APART:
            found = files(entry, f"{entry.name}/") if entry.is_dir() else [(entry.name, entry)]
            yield from ((name, file) for name, file in found if not name.endswith(".tmp"))


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def friendly(place: str | Path, doing: str) -> Iterator[None]:
    try:
        yield
    except JaxsftError:
        raise
    # whatever the client of a store raises: no credentials, no bucket, no network
    except Exception as error:
        raise JaxsftError(f"{place}: cannot {doing} ({first_line(error)})") from error
