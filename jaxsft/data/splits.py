"""From the files of a config to the records of its splits: rows are read, those that may be used
give a record each, one file is split, and what gives no record is put aside with its reason.

`task` is everywhere a task or its `records.Kind`: what is asked of it here needs no model.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.data import formats, prepared, row_weights, split_rule, verdicts
from jaxsft.data.ledger import Aside
from jaxsft.data.records import parse_rows, settled_columns
from jaxsft.errors import ConfigError, DataError


class Records(NamedTuple):
    """The records of a split, `file:line` of each, and the rows that gave none."""

    records: list[Any]
    where: list[str]
    aside: Sequence[Aside] = ()
    rows: int | None = None  # of the file, where the task made another number of records of them
    # of a mixture: by `file:line`, the number of the source
    source: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()  # what a reader of the run should know of these rows


class Parsed(NamedTuple):
    """The rows that gave a record, their records, and the function that made one of a row."""

    rows: list[formats.Row]
    records: list[Any]
    record: Callable[[formats.Row], Any] | None


# --- one file
# --------------------------------------------------------------------------------------------------
def read_rows(
    config: Config, path: str, columns: Sequence[str], aside: list[Aside], split: str = ""
) -> list[formats.Row]:
    """Reads all rows of what a path means; unreadable ones go into `aside`.

    Args:
      columns: those that the task reads.
      split: whose options count (`formats.options_of`).

    Raises:
      DataError: a row is unreadable, unless `data.on_bad_row` is quarantine.
    """
    d = config.data
    put = lambda bad: aside.append(
        Aside(bad.file, bad.line, "unreadable", f"{bad.where}: {bad.reason}", bad.fields)
    )
    return formats.read(
        path,
        format=d.format,
        header=d.header,
        encoding=d.encoding,
        unit=d.unit,
        columns=columns,
        options=formats.options_of(d.options, split),
        quarantine=put if d.on_bad_row == "quarantine" else None,
    )


def usable(
    config: Config, rows: Sequence[formats.Row], task: Any, aside: list[Aside], split: str = ""
) -> Sequence[formats.Row]:
    """Returns the rows that the columns beside them, and `data.keep`, let be used
    (`verdicts.used`); the others go into `aside`. Raises DataError.
    """
    if not rows:
        return rows
    columns = task.infer_columns(rows[0], config.data.columns)
    return verdicts.used(rows, columns, config.data.keep, split, aside, config.task.name)


def usable_rows(
    config: Config, path: str, task: Any, aside: list[Aside], split: str, training: bool
) -> Sequence[formats.Row]:
    """Reads the `usable` rows of a file; the weight of a row is a column of it where it trains."""
    columns = config.data.columns
    wanted = [
        *task.inputs(columns),
        *task.outputs(columns),
        *(row_weights.wanted(columns) if training else ()),
    ]
    return usable(config, read_rows(config, path, wanted, aside, split), task, aside, split)


def parse(
    config: Config,
    rows: Sequence[formats.Row],
    task: Any,
    aside: list[Aside],
    training: bool = False,
) -> Parsed:
    """Makes the record of each row, with its weight where it is a `training` row; rows that give
    none go into `aside`.

    Raises:
      DataError: a row gives no record, unless `data.on_bad_row` is quarantine.
    """
    if not rows:
        return Parsed([], [], None)
    columns = settled_columns(task, rows, config)
    record = (
        (lambda row, columns: row_weights.weighted(task.record(row, columns), row, columns))
        if training
        else task.record
    )
    kept, records = parse_rows(rows, record, columns, aside, config.data.on_bad_row)
    return Parsed(kept, records, lambda row: record(row, columns))


def parse_some(
    config: Config,
    rows: Sequence[formats.Row],
    task: Any,
    aside: list[Aside],
    training: bool = False,
) -> Parsed:
    """Makes the records of at least one row (`parse`). Raises DataError where there is none."""
    if not rows:
        raise DataError(
            "there are no rows"
            + (
                f"; {len(aside)} were put aside, the first because {aside[0].message}"
                if aside
                else ""
            )
        )
    return parse(config, rows, task, aside, training)


# --- splits
# --------------------------------------------------------------------------------------------------
def read_splits(config: Config, task: Any) -> dict[str, Records]:
    """Reads train, and validation and test where there are any. Raises ConfigError and DataError.

    Of one file that is split, what was put aside counts as training rows.
    """
    d = config.data
    out = _of_one_file(config, task) if d.path else _of_files(config, task)
    if d.unseen_labels == "drop":
        known = {label for record in out["train"].records for label in task.classes(record)}
        out = {
            name: split if name == "train" else seen(split, task, known)
            for name, split in out.items()
        }
    return {
        name: arranged(task, split, d.columns, training=name == "train")
        for name, split in out.items()
    }


def _of_one_file(config: Config, task: Any) -> dict[str, Records]:
    d, aside = config.data, []
    rows = usable_rows(config, d.path, task, aside, split="", training=True)
    parsed = parse_some(config, rows, task, aside)
    _check_some(parsed.records, aside, d.path)
    splits, _ = split_file(config, parsed, task, aside)
    if "train" not in splits:
        raise ConfigError(
            f"data.fractions={list(d.fractions)}: no row of {d.path} is left for training"
        )
    return splits


def _of_files(config: Config, task: Any) -> dict[str, Records]:
    d, out = config.data, {}
    files = {name: file for name in prepared.SPLITS if (file := getattr(d, name))}
    if d.train:
        prepared.check_alike(files)
    else:
        out["train"] = read_mixture(config, task)
    for name, file in files.items():
        aside: list[Aside] = []
        parsed = _read_split(config, file, task, aside, name)
        _check_some(parsed.records, aside, file)
        out[name] = Records(parsed.records, [row.where for row in parsed.rows], aside)
    return out


def _read_split(config: Config, path: str, task: Any, aside: list[Aside], split: str) -> Parsed:
    """Reads a file of a split. Raises DataError where no row may be used."""
    training = split == "train"
    rows = usable_rows(config, path, task, aside, split, training)
    return parse_some(config, rows, task, aside, training)


def split_file(
    config: Config, parsed: Parsed, task: Any, aside: list[Aside]
) -> tuple[dict[str, Records], int]:
    """Splits the rows of a file (`split_rule.split_file`).

    Args:
      parsed: without weights, which are read of the rows that train.
      aside: the rows that were put aside; they count as rows of train, and those whose weight is
        none join them.

    Returns: the splits that a row falls to; and how many rows went to train for a label that it
      would lack.

    Raises:
      DataError: a training row has no weight, unless `data.on_bad_row` is quarantine.
    """
    d = config.data
    parts, moved = split_rule.split_file(
        parsed.rows, parsed.records, task, d.fractions, d.split_seed
    )
    out = {
        name: Records(records, [row.where for row in rows])
        for name, (rows, records) in zip(prepared.SPLITS, parts, strict=True)
        if rows
    }
    if "train" not in out:
        return out, moved
    record_of = {id(row): record for row, record in zip(*parts[0], strict=True)}
    weighted = lambda row, columns: row_weights.weighted(record_of[id(row)], row, columns)
    rows, records = parse_rows(parts[0][0], weighted, d.columns, aside, d.on_bad_row)
    notes = (
        (f"{moved:,} rows are in train, which would lack a label of theirs by the split alone",)
        if moved
        else ()
    )
    out["train"] = Records(records, [row.where for row in rows], aside, notes=notes)
    return out, moved


def _check_some(records: Sequence[Any], aside: Sequence[Aside], file: str) -> None:
    """Raises DataError where no row is left, with what the first was put aside for."""
    if not records:
        raise DataError(
            f"{aside[0].message} (none of the {len(aside)} rows of {file} gives a record)"
        )


def read_mixture(config: Config, task: Any) -> Records:
    """Reads the training rows of `data.mixture.sources`, one source after another. Raises DataError
    where one has no row, or a row is in two of them.
    """
    records: list[Any] = []
    aside: list[Aside] = []
    source: dict[str, int] = {}
    for number, one in enumerate(config.data.mixture.sources):
        prepared.check_raw(one.path)
        parsed = _read_split(config, one.path, task, aside, "train")
        if not parsed.records:
            raise DataError(f"data.mixture: no row of {one.path} gives a record")
        if twice := [row.where for row in parsed.rows if row.where in source]:
            raise DataError(
                f"{twice[0]}: is in two sources of data.mixture; give each of them its own files"
            )
        source |= {row.where: number for row in parsed.rows}
        records += parsed.records
    return Records(records, list(source), aside, source=source)


def seen(split: Records, task: Any, known: Collection[tuple[str, str]]) -> Records:
    """Returns the rows whose labels (`Kind.classes`) are all known; the others are put aside as
    `unseen_label`.
    """
    keep, aside = [], list(split.aside)
    for i, (record, where) in enumerate(zip(split.records, split.where, strict=True)):
        if new := [name for kind, name in task.classes(record) if (kind, name) not in known]:
            file, _, line = where.rpartition(":")
            message = f"{where}: no row of train has the label {new[0]!r}"
            aside.append(Aside(file, int(line), "unseen_label", message, declared=True))
        else:
            keep.append(i)
    return split._replace(
        records=[split.records[i] for i in keep],
        where=[split.where[i] for i in keep],
        aside=aside,
    )


def arranged(task: Any, split: Records, columns: Any, training: bool) -> Records:
    """Returns the records as the model meets them (`Task.arrange`)."""
    records, where = task.arrange(split.records, split.where, columns, training)
    return split._replace(
        records=records,
        where=where,
        rows=None if len(records) == len(split.records) else len(split.records),
    )


# --- what is told of splits
# --------------------------------------------------------------------------------------------------
def left_out(config: Config) -> list[str]:
    """Returns a sentence for each folder or archive of data of which files are not read, as they
    describe the data.
    """
    d = config.data
    named = (d.path, d.train, d.validation, d.test, *(one.path for one in d.mixture.sources))
    return [
        note
        for path in dict.fromkeys(path for path in named if path)
        for note in formats.left_out_note(path, d.format)
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
