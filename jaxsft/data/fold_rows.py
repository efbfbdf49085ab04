"""The rows of a cross-validation: one set, with the group of each row, and the files beside it."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxsft.config.schema import Config
from jaxsft.data import few_rows, file_records, splits
from jaxsft.data.file_records import Records
from jaxsft.data.ledger import Aside
from jaxsft.errors import ConfigError, DataError


class FoldRows(NamedTuple):
    """One set of rows.

    Attributes:
      groups: of each record the value of `crossval.groups`; None: there are no groups.
      others: by name, the records of `data.validation` and `data.test`, which no fold trains on.
    """

    records: Records
    groups: list[str] | None
    others: dict[str, Records]


def read_fold_rows(config: Config, task: Any) -> FoldRows:
    """Reads `data.path` or `data.train` as one set, and the files beside it. Raises ConfigError and
    DataError.
    """
    d, aside = config.data, []
    path = d.path or d.train
    if not path:
        raise ConfigError("crossval: give the rows as data.path=FILE; there are no mixtures here")
    split = "" if d.path else "train"
    rows = file_records.usable_rows(config, path, task, aside, split, training=True)
    parsed = file_records.parse_some(config, rows, task, aside, training=True)
    file_records.check_some(parsed.records, aside, path)
    where, column = [row.where for row in parsed.rows], config.crossval.groups
    of_place: dict[str, str] = {}
    for row in parsed.rows if column else ():
        if row.fields.get(column) in (None, ""):
            raise DataError(f"{row.where}: no value of {column!r}, which crossval.groups names")
        of_place[row.where] = str(row.fields[column])
    records = splits.arranged(task, Records(parsed.records, where, aside), d.columns, training=True)
    records = few_rows.limit(records, d.limit, task)
    groups = None
    if column:
        if lost := next((place for place in records.where if place not in of_place), None):
            raise ConfigError(
                f"crossval.groups={column}: {lost} stands for several rows of the file, which"
                " may be of several groups; leave the option out"
            )
        groups = [of_place[place] for place in records.where]
    return FoldRows(records, groups, _others(config, task))


def _others(config: Config, task: Any) -> dict[str, Records]:
    out = {}
    for name in ("validation", "test"):
        if file := getattr(config.data, name):
            aside: list[Aside] = []
            parsed = file_records.read_split(config, file, task, aside, name)
            file_records.check_some(parsed.records, aside, file)
            found = Records(parsed.records, [row.where for row in parsed.rows], aside)
            out[name] = splits.arranged(task, found, config.data.columns, training=False)
    return out
