"""The stage `collect`: rows of several sources under one set of columns, with their origin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Optional

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import Report, Stage, State, choice

ABSENT = (None, "")


@dataclasses.dataclass(frozen=True)
class Collect(Stage):
    """Gives rows of different files the same columns, and says where they come from: the first
    stage wherever there is more than one source.

    In this order: columns are renamed; the name of the folder becomes a label
    (`archive.zip/pos/12.txt` is "pos"); `source` and `values` are added; what is not kept goes; and
    the columns of `columns` are put in their order, with null where a row has none. Nothing is
    overwritten or left out silently: two columns of one name, and a column that `columns` does not
    know, are errors. Of the patterns in `values`, such as `{licence: {"*/wiki/*": CC BY-SA, "*":
    MIT}}`, the first that fits the name of the file decides; `*` stands for slashes too.
    """

    source: Optional[str] = option(
        "source", "the column that takes the name of the file; null: none"
    )
    rename: dict[str, Any] = option(
        {},
        "old name: new name; a row need not have all of them",
    )
    folder: Optional[str] = option(
        None, "the column that takes the name of the folder in which the file lies; null: none"
    )
    values: dict[str, Any] = option(
        {},
        "new column: a value for all rows, or {pattern of file names: value}",
    )
    keep: list[str] = option(
        [],
        "the columns that stay, beside the new ones; empty: all",
    )
    columns: list[str] = option(
        [],
        "the columns of every row in the end, in this order; missing ones are null; empty: any",
    )
    extra: str = option("error", "a column that `columns` does not have: error | drop")
    replace: bool = option(
        False, "a new column may take the place of an old one that holds something"
    )

    def check(self) -> None:
        choice("collect", "extra", self.extra, ("error", "drop"))
        new = [*self.values, *filter(None, (self.source, self.folder)), *self.rename.values()]
        if not all(isinstance(name, str) and name for name in new):
            raise ConfigError(
                f"stages.collect.rename={dict(self.rename)}: expected the new name of each column"
            )
        if twice := next((name for name in new if new.count(name) > 1), None):
            raise ConfigError(f"stages.collect: the column {twice!r} would be made twice")
        if self.columns and (lost := [name for name in new if name not in self.columns]):
            raise ConfigError(
                f"stages.collect.columns: {lost[0]!r} is made, but not among them; add it"
            )

    def row(self, row: Row, state: State, report: Report) -> Row:
        fields = self._renamed(row)
        new: dict[str, Any] = {}
        if self.folder is not None:
            new[self.folder] = _folder(row)
        if self.source is not None:
            new[self.source] = row.file
        new |= {name: _value(row, name, value) for name, value in self.values.items()}
        if self.keep:
            if missing := [name for name in self.keep if name not in fields]:
                raise DataError(
                    f"{row.where}: missing column {missing[0]!r}: found columns {_names(fields)};"
                    " set stages.collect.keep"
                )
            fields = {name: fields[name] for name in self.keep}
        for name, value in new.items():
            if not self.replace and fields.get(name) not in (*ABSENT, value):
                raise DataError(
                    f"{row.where}: column {name!r} holds {fields[name]!r:.60} already; set another"
                    " name, or stages.collect.replace=true"
                )
        fields |= new
        if self.columns:
            extra = [name for name in fields if name not in self.columns]
            if extra and self.extra == "error":
                raise DataError(
                    f"{row.where}: column {extra[0]!r} is not in stages.collect.columns; add it, or"
                    " set stages.collect.extra=drop"
                )
            fields = {name: fields.get(name) for name in self.columns}
        return Row(fields, row.file, row.line)

    def _renamed(self, row: Row) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in row.fields.items():
            new = self.rename.get(name, name)
            if new in fields:
                raise DataError(
                    f"{row.where}: two columns would be called {new!r}; set stages.collect.rename"
                )
            fields[new] = value
        return fields


def _folder(row: Row) -> str:
    name = PurePosixPath(row.file.replace("\\", "/")).parent.name
    if not name:
        raise DataError(
            f"{row.where}: the file lies in no folder whose name could be its label; set"
            " stages.collect.folder=null"
        )
    return name


def _value(row: Row, name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for pattern, found in value.items():
        if fnmatchcase(row.file, pattern):
            return found
    raise DataError(
        f"{row.where}: stages.collect.values.{name}: no pattern fits this file; add one, or '*' for"
        " all others"
    )


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, fields)) or "none"
