"""The splits of a data set, as rows that can be read again and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxsft.config import validate
from jaxsft.config.schema import DataFiles
from jaxsft.data import formats, prepared
from jaxsft.data.formats import Bad, Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.quality.text_measures import label_text
from jaxsft.prepare.stage import value_of

ORDER = ("train", "validation", "valid", "dev", "test")
WHOLE = "all"  # the name of the only split


@dataclasses.dataclass
class File:
    """The rows of a file, read again each time.

    `bad` are those that could not be read, the last time.
    """

    path: str
    how: Mapping[str, Any]
    quarantine: bool = False
    bad: list[Bad] = dataclasses.field(default_factory=list)

    def __iter__(self) -> Iterator[Row]:
        self.bad = []
        return formats.stream(
            self.path, **self.how, quarantine=self.bad.append if self.quarantine else None
        )


@dataclasses.dataclass(frozen=True)
class Sets:
    """The splits by name: training first, then validation and test, then others as they come.

    Attributes:
      files: what each split is read from, as the user spelled it.
      parts: re-iterable rows per split; with `column` one of them only, under the name "all", whose
        rows say which split they belong to.
      max_dropped: the fraction of rows of a part that may be unreadable.
    """

    names: tuple[str, ...]
    files: Mapping[str, str]
    parts: Mapping[str, Iterable[Row]]
    column: str | None = None
    max_dropped: float = 0.0

    def rows(self, *names: str) -> Iterator[tuple[str, Row]]:
        """Yields (split, row) of the splits named, or of all."""
        if self.column is None:
            for name in names or self.names:
                for row in self.parts[name]:
                    yield name, row
            return
        for row in self.parts[WHOLE]:
            name = _split_of(row, self.column)
            if not names or name in names:
                yield name, row

    def unreadable(self, rows: int) -> list[tuple[str, Bad]]:
        """Returns (split, what could not be read) of the last pass over all rows.

        There were `rows` of them; with a split column the first split has them.

        Raises:
          DataError: there are more than data.max_dropped of all.
        """
        out = [
            (name if self.column is None else self.names[0], bad)
            for name, part in self.parts.items()
            for bad in getattr(part, "bad", ())
        ]
        if len(out) > self.max_dropped * (rows + len(out)):
            first = out[0][1]
            raise DataError(
                f"{len(out)} of {rows + len(out)} rows cannot be read, more than"
                f" data.max_dropped={self.max_dropped:g}; the first is {first.where}:"
                f" {first.reason}"
            )
        return out


def of_config(data: DataFiles, split_column: str | None = None) -> Sets:
    """Returns the splits that `data.*` names.

    `data.path` is a prepared set with its splits, or a file: one split, "all", or those of its
    `split_column`.

    Raises:
      ConfigError: no file is given, or data.path together with another.
      DataError: a row has no split.
    """
    given = {name: path for name in prepared.SPLITS if (path := getattr(data, name))}
    if bool(given) == bool(data.path):
        raise ConfigError(
            "give data.path=FILE, or data.train=FILE and perhaps data.validation=FILE and"
            " data.test=FILE"
        )
    if split_column is not None and not data.path:
        raise ConfigError(
            f"split_column={split_column}: expected data.path=FILE with it, a file that holds all"
            " splits"
        )
    if data.path and split_column is None and (found := prepared.manifest(data.path)):
        given = prepared.paths(data.path, found)
    validate.options_of_splits(data)
    how, aside = reading(data, split_column), data.on_bad_row == "quarantine"
    files = given or {WHOLE: data.path}
    parts = {
        name: File(path, how | {"options": formats.options_of(data.options, name)}, aside)
        for name, path in files.items()
    }
    if split_column is None:
        return Sets(tuple(files), files, parts, None, data.max_dropped)
    found = _ordered(dict.fromkeys(_split_of(row, split_column) for row in parts[WHOLE]))
    return Sets(found, dict.fromkeys(found, data.path), parts, split_column, data.max_dropped)


def of_rows(parts: Mapping[str, Iterable[Row]]) -> Sets:
    """Splits of rows that can be gone through several times, such as lists."""
    return Sets(_ordered(parts), {}, parts)


def reading(data: DataFiles, *more: str | None) -> dict[str, Any]:
    """Returns how `formats.stream` reads the files of a config.

    The columns that the options name decide `header=auto`.
    """
    return {
        **{
            name: getattr(data, name)
            for name in ("format", "header", "encoding", "unit", "options")
        },
        "columns": (*data.columns.named(), *filter(None, more)),
    }


def _split_of(row: Row, column: str) -> str:
    return label_text(value_of(row, column, "split_column")).strip() or "none"


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def reference(names: Sequence[str]) -> str:
    """Returns the split that the others are compared with: train, or the first."""
    return "train" if "train" in names else names[0]
