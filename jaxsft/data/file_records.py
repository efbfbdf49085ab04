"""The rows of a file, and the record of each; what gives no record is put aside with its reason.

`task` is everywhere a task or its `records.Kind`: what is asked of it here needs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxsft.config.schema import Config
from jaxsft.data import formats, row_weights, verdicts
from jaxsft.data.ledger import Aside
from jaxsft.data.records import parse_rows, settled_columns
from jaxsft.errors import DataError

RULES = (".yaml", ".yml")  # how the name of a file of rules ends


class Records(NamedTuple):
    """The records of a split, `file:line` of each, and the rows that gave none."""

    records: list[Any]
    where: list[str]
    aside: Sequence[Aside] = ()
    rows: int | None = None  # of the file, where the task made another number of records of them
    # of a mixture: by `file:line`, the number of the source
    source: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()  # what a reader of the run should know of these rows
    # by `file:line`, what the columns that evaluation asks for hold (`columns_beside`)
    beside: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def columns_beside(config: Config) -> list[str]:
    """Returns the columns that no task reads, but the evaluation: the cluster of a row, the schema
    of its answer, and those of slices.
    """
    columns = config.data.columns
    asked = [columns.cluster, columns.schema, *config.evaluation.slices]
    own = ("length",)
    return [name for name in asked if name and name not in own and not name.endswith(RULES)]


def beside(config: Config, rows: Sequence[formats.Row]) -> dict[str, dict[str, Any]]:
    """Returns what rows hold in `columns_beside`, by `file:line`. Raises DataError."""
    names, out = columns_beside(config), {}
    for row in rows if names else ():
        if missing := next((name for name in names if name not in row.fields), None):
            of_cluster = missing == config.data.columns.cluster
            option = f"data.columns.{'cluster' if of_cluster else 'schema'}"
            if missing in config.evaluation.slices:
                option = "evaluation.slices"
            raise DataError(
                f"{row.where}: no column {missing!r}, which {option} names; found"
                f" {', '.join(row.fields)}"
            )
        out[row.where] = {name: row.fields[name] for name in names}
    return out


class Parsed(NamedTuple):
    """The rows that gave a record, their records, and the function that made one of a row."""

    rows: list[formats.Row]
    records: list[Any]
    record: Callable[[formats.Row], Any] | None


def read_split(config: Config, path: str, task: Any, aside: list[Aside], split: str) -> Parsed:
    """Reads the rows of a file of a split, and makes the record of each.

    What cannot be read, may not be used, or gives no record goes into `aside` with its place and
    its reason. A record is what `task.record(row, columns)` returns; of a training row it has the
    weight of the row (`row_weights.weighted`).

    Raises:
      DataError: a row is unreadable or gives no record, unless `data.on_bad_row` is quarantine; or
        no row may be used.
    """
    training = split == "train"
    rows = usable_rows(config, path, task, aside, split, training)
    return parse_some(config, rows, task, aside, training)


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
        *columns_beside(config),
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
    columns = settled_columns(task, rows, config.data.columns, config.task)
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


def check_some(records: Sequence[Any], aside: Sequence[Aside], file: str) -> None:
    """Raises DataError where no row is left, with what the first was put aside for."""
    if not records:
        raise DataError(
            f"{aside[0].message} (none of the {len(aside)} rows of {file} gives a record)"
        )
