"""Binds a run directory to itself by hashes in `manifest.json`.

It has the SHA-256 of each file that the weights are used with, and the name that the steps carry.

A directory that was written before there was this is opened as it is: its manifest has neither, and
its steps carry no name.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxsft import documents, rundir
from jaxsft.errors import CheckpointError

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
FILES = (CONFIG, "task.json", "label_names.json", "prepared.json", "pretrained.json")
FOLDER = "tokenizer"
_FOREIGN = f"is no file of this run ({MANIFEST} does not have it)"
_WAYS = {_FOREIGN: "remove it"}
_OPTION = "put it back, and give other options on the command line, as KEY=VALUE"
_COPY = "take it from a copy of the run; where training goes on, it is written again"


def name_of(facts: Mapping[str, Any]) -> str:
    """Returns the name of a run's steps: a hash of its config, data, tokenizer and task."""
    return rundir.sha256_json({key: facts[key] for key in ("config", "data", "tokenizer", "task")})[
        :16
    ]


def read(run_dir: Path) -> dict[str, Any]:
    """Returns the manifest of a run.

    Raises CheckpointError where there is none, or it is damaged.
    """
    path = run_dir / MANIFEST
    if not path.exists():
        raise CheckpointError(
            f"{path}: is missing; it says what the run was made of, so that nothing vouches for its"
            " files without it"
        )
    return documents.read_json(path, CheckpointError, dict, halves=True)


def check(run_dir: Path) -> str | None:
    """Returns the name that the steps of a run carry; None for a directory from before names.

    Raises:
        CheckpointError: a file is missing, additional, or not as it was written.
    """
    manifest = read(run_dir)
    if "run" not in manifest and "files" not in manifest:
        return None
    name, files = manifest.get("run"), manifest.get("files")
    if isinstance(name, str) and files is None and "files" in manifest:
        raise CheckpointError(
            f"{run_dir}: was stopped while its files were written; run the same command again"
        )
    if not isinstance(name, str) or not isinstance(files, dict):
        raise CheckpointError(
            f"{run_dir / MANIFEST}: does not say what the files of this run are (run, files); it"
            " was changed"
        )
    for file, how in _differences(run_dir, files):
        raise CheckpointError(
            f"{run_dir / file}: {how}; {_WAYS.get(how) or (_OPTION if file == CONFIG else _COPY)}"
        )
    return name


def heal(run_dir: Path) -> list[str]:
    """Returns a sentence for each missing or changed file of a run that continues and rewrites it.

    Raises:
        CheckpointError: there is a file that is none of this run's, which would be used with it.
    """
    manifest = read(run_dir) if (run_dir / MANIFEST).exists() else {}
    files, told = manifest.get("files"), []
    for file, how in _differences(run_dir, files) if isinstance(files, dict) else ():
        if how in _WAYS:
            raise CheckpointError(f"{run_dir / file}: {how}; {_WAYS[how]}")
        told.append(f"{run_dir / file}: {how}; it is written again")
    return told


def _differences(run_dir: Path, files: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    found = _there(run_dir)
    for file in sorted(found.keys() | files.keys()):
        if file not in files:
            yield file, _FOREIGN
        elif file not in found:
            yield file, "is missing"
        elif not found[file].is_file() or rundir.sha256_file(found[file]) != files[file]:
            yield file, f"is not as it was written (its SHA-256 is not that in {MANIFEST})"


@contextlib.contextmanager
def rewriting(run_dir: Path, facts: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Writes the run's files in the block and their hashes after it.

    A run that is stopped in between says so when it is opened.

    Args:
        facts: the manifest without `files`; None: as it is. Without `run` it is of a directory from
          before there were hashes, and stays so.
    """
    path = run_dir / MANIFEST
    facts = {k: v for k, v in (read(run_dir) if facts is None else facts).items() if k != "files"}
    if "run" not in facts:
        yield
        rundir.write_json(path, facts)
        return
    rundir.write_json(path, {**facts, "files": None})
    yield
    rundir.write_json(
        path,
        {
            **facts,
            "files": {
                name: rundir.sha256_file(file) for name, file in sorted(_there(run_dir).items())
            },
        },
    )


def _there(run_dir: Path) -> dict[str, Path]:
    """Returns the files that a run is used with, by name, without hidden ones."""
    found = {name: run_dir / name for name in FILES if (run_dir / name).exists()}
    folder = run_dir / FOLDER
    inside = sorted(folder.iterdir()) if folder.is_dir() else ([folder] if folder.exists() else [])
    return found | {
        str(path.relative_to(run_dir)): path for path in inside if not path.name.startswith(".")
    }
