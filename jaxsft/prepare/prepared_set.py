"""Writes a prepared set: aside, and renamed when it is whole.

See `jaxsft/data/prepared.py`.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jaxsft
from jaxsft import plugins, rundir
from jaxsft.config.schema import PrepareConfig
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Row, tfds_write
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.spool import Spool
from jaxsft.prepare.stage_runner import StageEntry

WRITTEN = ("jsonl", "json", "csv", "tsv", "parquet", "conll", "conllu", prepared.ARRAY_RECORD)
# .SET.writing-XXXX and .SET.writing-XXXX.old lie beside a set while it is written
WRITING, OLD = ".writing-", ".old"
DROPPED = "dropped.jsonl"


def standing(folder: Path, key: str, overwrite: bool) -> dict[str, Any] | None:
    """Returns the manifest of the set to be made, where the folder has it already.

    Raises ConfigError where it holds something else.
    """
    if found := prepared.manifest(folder):
        if found.get("key") == key and _intact(folder, found):
            return found
        if not overwrite:
            raise ConfigError(
                f"{folder} holds another prepared set; give another output.dir=, or"
                " output.overwrite=true"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds other files; give another output.dir=")
    return None


def mend(folder: Path) -> None:
    """Clears away what a command left that was ended while it wrote this set; the set that it had
    put aside takes its place again.
    """
    begin = f".{folder.name}{WRITING}"
    left = (
        sorted(path for path in folder.parent.iterdir() if path.name.startswith(begin))
        if folder.parent.is_dir()
        else []
    )
    for path in left:
        if path.name.endswith(OLD) and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def write_set(
    config: PrepareConfig,
    folder: Path,
    key: str,
    inputs: list,
    entries: Sequence[StageEntry],
    sets: Mapping[str, Spool],
    work: Path,
) -> dict[str, Any]:
    """Writes the set aside and renames the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}{WRITING}", dir=folder.parent))
    try:
        splits = _write_splits(config, aside, sets)
        found = {
            "kind": prepared.KIND,
            "key": key,
            "jaxsft": jaxsft.__version__,
            "format": config.output.format,
            "columns": prepared.told(config.data.columns),
            "seed": config.seed,
            "run": config.run,
            "inputs": inputs,
            "stages": [e.summary() for e in entries],
            **({"plugins": theirs} if (theirs := plugins.used()) else {}),
            "splits": splits,
        }
        with rundir.atomic_lines(aside / DROPPED) as file:
            for e in entries:
                for split, report in e.reports.items():
                    for where, reason in report.dropped:
                        file.write(
                            rundir.json_text(
                                {"row": where, "set": split, "stage": e.name, "reason": reason}
                            )
                            + "\n"
                        )
        found["dropped"] = {"file": DROPPED, "sha256": rundir.sha256_file(aside / DROPPED)}
        rundir.write_json(aside / "manifest.json", found)
        if folder.exists():
            old = folder.with_name(f"{aside.name}{OLD}")
            folder.rename(old)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            aside.rename(folder)
        folder.chmod(0o755)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the prepared set ({error.strerror or error})"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return prepared.manifest(folder) or found


def _write_splits(config: PrepareConfig, folder: Path, sets: Mapping[str, Spool]) -> dict[str, Any]:
    """Writes the rows of all splits; returns their entries in the manifest."""
    kind, shards, names = config.output.format, config.output.shards, {}
    if kind == prepared.ARRAY_RECORD:
        folder.rmdir()  # made again by the writer
        rows = {split: _fields(rows, config.output.origin) for split, rows in sets.items()}
        tfds_write.write_tfds(folder, "prepared", "1.0.0", rows, shards if shards > 1 else None)
        for split in sets:
            names[split] = sorted(
                p.name for p in folder.iterdir() if p.name.startswith(f"prepared-{split}.")
            )
    for split, rows in sets.items() if kind != prepared.ARRAY_RECORD else ():
        # a file without rows would be one that cannot be read
        many = max(1, min(shards, len(rows)))
        names[split] = (
            [f"{split}.{kind}"]
            if shards == 1
            else [f"{split}-{i:05d}-of-{many:05d}.{kind}" for i in range(many)]
        )
        for i, name in enumerate(names[split]):
            part = itertools.islice(rows, len(rows) * i // many, len(rows) * (i + 1) // many)
            _write_rows(part, folder / name, kind, config.output.origin)
    parts = {
        split: [{"file": name, "sha256": rundir.sha256_file(folder / name)} for name in listed]
        for split, listed in names.items()
    }
    return {split: {"rows": len(rows), "files": parts[split]} for split, rows in sets.items()}


def _write_rows(rows: Iterable[Row], path: Path, kind: str, origin: bool) -> None:
    """Raises DataError, which names the row that was read, where the format has no place for what a
    row holds.
    """
    row = None

    def followed() -> Iterator[Row]:
        nonlocal row
        for following in rows:
            row = following
            yield following

    try:
        formats.write(_fields(followed(), origin), path, kind)
    except DataError as error:
        reason = str(error)
        if row is None or not reason.startswith(f"{path}: "):
            raise
        told = reason.removeprefix(f"{path}: ").replace("write .", "set output.format=")
        raise DataError(f"{row.where}: cannot be written to {path.name}: {told}") from None


def _fields(rows: Iterable[Row], origin: bool) -> Iterator[dict[str, Any]]:
    for row in rows:
        if origin and "origin" in row.fields:
            raise DataError(
                f"{row.where}: has a column 'origin', which output.origin=true would overwrite;"
                " rename it"
            )
        yield {**row.fields, "origin": row.where} if origin else row.fields


def _intact(folder: Path, found: Mapping[str, Any]) -> bool:
    """Returns whether every file is what the manifest says."""
    parts = [part for split in found["splits"].values() for part in split["files"]] + [
        found.get("dropped")
    ]
    return all(parts) and all(
        (folder / p["file"]).is_file() and rundir.sha256_file(folder / p["file"]) == p["sha256"]
        for p in parts
    )
