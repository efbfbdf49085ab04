"""What is told of the rows of splits: files that are not read, rows that were put aside, texts that
two splits have, labels that one lacks, and the hash of all records.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import DataConfig
from jaxsft.data import formats
from jaxsft.data.file_records import Records
from jaxsft.data.ledger import Aside


def left_out(data: DataConfig) -> list[str]:
    """Returns a sentence for each folder or archive of data of which files are not read, as they
    describe the data.
    """
    files = (data.path, data.train, data.validation, data.test)
    named = (*files, *(one.path for one in data.mixture.sources))
    return [
        note
        for path in dict.fromkeys(path for path in named if path)
        for note in formats.left_out_note(path, data.format)
    ]


def write_quarantine(path: str | Path, aside: Mapping[str, Sequence[Aside]]) -> None:
    """Writes a line for every row that was put aside, with split, file, line, reason and message.
    No file stays where there is none.
    """
    fields = lambda bad: {k: v for k, v in dataclasses.asdict(bad).items() if k != "declared"}
    lines = [
        rundir.json_text({"split": name, **fields(bad)})
        for name, rows in aside.items()
        for bad in rows
    ]
    if lines:
        rundir.write_text(path, "\n".join(lines) + "\n")
    else:
        Path(path).unlink(missing_ok=True)


def in_training_too(records: Mapping[str, Records], task: Any) -> dict[str, int]:
    """Counts the rows of each other split that have a text (`Task.text_key`) of the training
    split.
    """
    training = set(map(task.text_key, records["train"].records))
    return {
        name: sum(task.text_key(r) in training for r in split.records)
        for name, split in records.items()
        if name != "train"
    }


def lacking(records: Mapping[str, Records], task: Any) -> dict[str, list[str]]:
    """Returns, by split, the labels that other splits have and this one has not. Splits that lack
    none are left out.
    """
    labels = {
        name: {task.stratum(r) for r in split.records} - {""} for name, split in records.items()
    }
    everywhere = set().union(*labels.values())
    return {name: sorted(everywhere - own) for name, own in labels.items() if everywhere - own}


def data_digest(split: Records) -> str:
    """Returns the SHA-256 of the records of a split, with their weights."""
    hashed = hashlib.sha256()
    for record in split.records:
        hashed.update(repr(record).encode("utf-8", "surrogatepass") + b"\0")
        if (weight := getattr(record, "weight", 1.0)) != 1:
            hashed.update(f"weight {weight!r}\0".encode())
    return hashed.hexdigest()
