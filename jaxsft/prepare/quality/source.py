"""The splits of a data set, as rows that can be gone through again and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxsft.config.schema import DataConfig
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError
from jaxsft.prepare.quality.texts import label_text
from jaxsft.prepare.stage import Rows, value_of

ORDER = ("train", "validation", "valid", "dev", "test")
WHOLE = "all"  # the name of the only split


@dataclasses.dataclass(frozen=True)
class Sets:
    """Splits by name: training first, then validation and test, then others as they come.

    Attributes:
      files: what each split is read from, as the user spelled it.
      parts: re-iterable rows per split; with `column` one of them only, under the name "all", whose rows say which split they belong to.
    """

    names: tuple[str, ...]
    files: Mapping[str, str]
    parts: Mapping[str, Rows]
    column: str | None = None

    def rows(self, *names: str) -> Iterator[tuple[str, Row]]:
        """(split, row) of the splits named, or of all."""
        if self.column is None:
            for name in names or self.names:
                for row in self.parts[name]:
                    yield name, row
            return
        for row in self.parts[WHOLE]:
            name = _split_of(row, self.column)
            if not names or name in names:
                yield name, row


@dataclasses.dataclass(frozen=True)
class File:
    """The rows of a file, read again each time."""

    path: str
    how: Mapping[str, Any]

    def __iter__(self) -> Iterator[Row]:
        return formats.stream(self.path, **self.how)


def of_config(data: DataConfig, split_column: str | None = None) -> Sets:
    """The splits that `data.*` names. A file given as `data.path` is one split, "all", or has those of its `split_column`.

    Raises:
      ConfigError: no file is given, or data.path together with another.
      DataError: a row has no split.
    """
    given = {name: path for name in ("train", "validation", "test") if (path := getattr(data, name))}
    if bool(given) == bool(data.path):
        raise ConfigError("give data.path=FILE, or data.train=FILE and perhaps data.validation=FILE and data.test=FILE")
    if split_column is not None and not data.path:
        raise ConfigError(f"split_column={split_column}: expected data.path=FILE with it, a file that holds all splits")
    how = reading(data, split_column)
    files = given or {WHOLE: data.path}
    parts = {name: File(path, how) for name, path in files.items()}
    if split_column is None:
        return Sets(tuple(files), files, parts)
    found = dict.fromkeys(_split_of(row, split_column) for row in parts[WHOLE])
    return Sets(_ordered(found), dict.fromkeys(_ordered(found), data.path), parts, split_column)


def of_rows(parts: Mapping[str, Rows]) -> Sets:
    """Splits that are in memory already (or any other rows that can be gone through twice)."""
    return Sets(_ordered(parts), {}, parts)


def reading(data: DataConfig, *more: str | None) -> dict[str, Any]:
    """How `formats.stream` reads the files of a config; the columns that the options name decide `header=auto`."""
    named = [column for column in (*dataclasses.astuple(data.columns), *more) if column]
    return {"format": data.format, "header": data.header, "encoding": data.encoding, "unit": data.unit, "columns": tuple(named)}


def _split_of(row: Row, column: str) -> str:
    return label_text(value_of(row, column, "split_column")).strip() or "none"


def _ordered(names: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def reference(names: Sequence[str]) -> str:
    """The split that the others are compared with: train, or the first."""
    return "train" if "train" in names else names[0]
