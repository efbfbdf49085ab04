"""Prepared data sets as training sees them: the rows of each split and a manifest.

DIR/train.jsonl  validation.jsonl  test.jsonl     or in parts: train-00000-of-00004.jsonl ...
DIR/manifest.json     inputs with their hashes, stages with options, what they learnt and counts,
  splits with files and hashes
DIR/dropped.jsonl     every row that is not there: file:line, stage, reason
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row, tfds
from jaxsft.errors import ConfigError, DataError

KIND = "jaxsft prepared set"
# output.format: ArrayRecord in the layout of TFDS, which is one data set and not a file per split
ARRAY_RECORD = "array_record"
SPLITS = ("train", "validation", "test")


def manifest(folder: str | Path) -> dict[str, Any] | None:
    """Returns the manifest of a prepared set; None where the folder is none.

    Raises DataError where the file is damaged.
    """
    path = Path(folder) / "manifest.json"
    if not os.path.isfile(path):  # a name that is too long is none either
        return None
    found = rundir.read_json(path)
    return found if isinstance(found, dict) and found.get("kind") == KIND else None


def around(file: str | Path) -> dict[str, Any] | None:
    """Returns the manifest of the prepared set that a file belongs to; None without one.

    The file may be a pattern of files or a split of TFDS (`tfds:DIR:split`); a file that merely
    lies beside the set's files does not belong to it.
    """
    if str(file).startswith("tfds:"):
        return manifest(tfds.located(str(file))[0])
    if not file or os.path.isdir(file):
        return manifest(file) if file else None
    found = manifest(unescaped(Path(file).parent))
    name = Path(file).name
    return (
        found
        if found
        and any(fnmatchcase(part["file"], name) or part["file"] == name for part in _parts(found))
        else None
    )


def unescaped(folder: Path) -> Path:
    """Returns the folder of a pattern of files that `located` made.

    glob.escape puts each special character in brackets.
    """
    return folder if folder.is_dir() else Path(re.sub(r"\[([*?[])\]", r"\1", str(folder)))


def _parts(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (part for split in found["splits"].values() for part in split["files"])


def treatment(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Returns what was done to the rows: equal for sets that were prepared alike."""
    return [(told["stage"], told["options"], told["state"]) for told in found["stages"]]


def check_alike(files: Mapping[str, str]) -> None:
    """Raises DataError where the rows of a split did not go through what cleaned, filled and scaled
    the training rows: a score on them would say nothing of the model. `files` are those of all
    splits, by name.
    """
    treated = {name: _replayed(around(file)) for name, file in files.items()}
    for name, file in files.items():
        if treated[name] != treated["train"]:
            stages = ", ".join(dict.fromkeys(told[0] for told in treated["train"] or treated[name]))
            raise DataError(
                f"data.{name}={file} was not prepared as data.train={files['train']} was"
                f" ({stages}); prepare them in one command, jaxsft prepare data.train=..."
                f" data.{name}=..."
            )


def check_raw(path: str) -> None:
    """Raises DataError where a source of a mixture went through stages that `predict` would have to
    repeat: it knows one training set only.
    """
    if stages := _replayed(around(path)):
        raise DataError(
            f"data.mixture: {path} is of a prepared set, whose stages"
            f" ({', '.join(dict.fromkeys(told[0] for told in stages))}) predict could not repeat"
            " for a mixture; mix the raw files and prepare them together"
        )


def _replayed(found: Mapping[str, Any] | None) -> list[tuple[Any, ...]]:
    """Returns the stages that `predict` repeats; empty without a prepared set."""
    return [
        (told["stage"], told["options"], told["state"])
        for told in (found or {"stages": ()})["stages"]
        if told.get("replayed")
    ]


def located(folder: str | Path, found: Mapping[str, Any], split: str) -> str:
    """Returns `data.train` and the like for a split of a prepared set.

    It is a file, a pattern of files, or a split of TFDS.
    """
    if found["format"] == ARRAY_RECORD:
        return f"tfds:{folder}:{split}"
    files = [part["file"] for part in found["splits"][split]["files"]]
    if len(files) == 1:
        return str(Path(folder) / files[0])
    return str(Path(glob.escape(str(folder))) / f"{split}-*-of-*.{found['format']}")


def told(given: Columns) -> dict[str, Any]:
    """Returns the columns that differ from the defaults, for the manifest."""
    return {k: v for k, v in _listed(given).items() if v != _listed(Columns())[k]}


def columns(found: Mapping[str, Any], given: Columns, read: Sequence[str] | None = None) -> Columns:
    """Returns the columns of a prepared set, where those given take precedence.

    Of the set's, only the ones in `read` (None: all).
    """
    carried = {k: v for k, v in found["columns"].items() if read is None or k in read}
    chosen = {**_listed(Columns()), **carried, **told(given)}
    return Columns(**{k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()})


def _listed(given: Columns) -> dict[str, Any]:
    """Returns the columns with lists for tuples, as defaults and JSON have them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(given).items()}


def paths(folder: str | Path, found: Mapping[str, Any]) -> dict[str, str]:
    """Returns `data.train`, `data.validation` and `data.test` for a prepared set.

    Raises ConfigError where it has no training split.
    """
    if "train" not in found["splits"]:
        raise ConfigError(
            f"{folder}: the prepared set has no training split (found"
            f" {', '.join(found['splits'])}); add the stage split"
        )
    return {split: located(folder, found, split) for split in SPLITS if split in found["splits"]}


def rows(folder: str | Path, found: Mapping[str, Any], split: str) -> Iterator[Row]:
    """Yields the rows of a split, file after file."""
    if found["format"] == ARRAY_RECORD:
        yield from formats.stream(f"tfds:{folder}:{split}")
        return
    header = {"header": "true"} if found["format"] in ("csv", "tsv") else {}
    for part in found["splits"][split]["files"]:
        yield from formats.stream(Path(folder) / part["file"], format=found["format"], **header)
