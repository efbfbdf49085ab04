"""What `jaxsft prepare` leaves, as training sees it: a folder with the rows of each split and a manifest of where they come from.

DIR/train.jsonl  validation.jsonl  test.jsonl     or in parts: train-00000-of-00004.jsonl ...
DIR/manifest.json     inputs with their hashes, stages with options, what they learnt and counts, splits with files and hashes
DIR/dropped.jsonl     every row that is not there: file:line, stage, reason
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.data import formats
from jaxsft.data.formats import Row, tfds
from jaxsft.errors import ConfigError

KIND = "jaxsft prepared set"
ARRAY_RECORD = "array_record"  # output.format: ArrayRecord in the layout of TFDS, which is one data set and not a file per split
SPLITS = ("train", "validation", "test")


def manifest(folder: str | Path) -> dict[str, Any] | None:
    """The manifest of a prepared set; None where the folder is none. Raises DataError where the file is damaged."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        return None
    found = rundir.read_json(path)
    return found if isinstance(found, dict) and found.get("kind") == KIND else None


def around(file: str | Path) -> dict[str, Any] | None:
    """The manifest of the prepared set that a file, a pattern of files or a split of TFDS (`tfds:DIR:split`) belongs to."""
    if str(file).startswith("tfds:"):
        return manifest(tfds.located(str(file))[0])
    return manifest(file if Path(file).is_dir() else Path(file).parent) if file else None


def treatment(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What was done to the rows: equal for sets that were prepared alike."""
    return [(told["stage"], told["options"], told["state"]) for told in found["stages"]]


def paths(folder: str | Path, found: Mapping[str, Any]) -> dict[str, str]:
    """What `data.train`, `data.validation` and `data.test` are, for a prepared set. Raises ConfigError where it has no training split."""
    if "train" not in found["splits"]:
        raise ConfigError(f"{folder}: the prepared set has no training split (found {', '.join(found['splits'])}); add the stage split")
    out = {}
    for split in SPLITS:
        if split in found["splits"] and found["format"] == ARRAY_RECORD:
            out[split] = f"tfds:{folder}:{split}"
        elif split in found["splits"]:
            files = [part["file"] for part in found["splits"][split]["files"]]
            pattern = files[0] if len(files) == 1 else f"{split}-*-of-*.{found['format']}"
            out[split] = str(Path(folder) / pattern)
    return out


def rows(folder: str | Path, found: Mapping[str, Any], split: str) -> Iterator[Row]:
    """The rows of a split, file after file."""
    if found["format"] == ARRAY_RECORD:
        yield from formats.stream(f"tfds:{folder}:{split}")
        return
    for part in found["splits"][split]["files"]:
        yield from formats.stream(Path(folder) / part["file"], format=found["format"])
