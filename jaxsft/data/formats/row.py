"""A row as read, and what stands in its place where it cannot be read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from jaxsft.errors import DataError


class AnyName(str):
    """The name of a wanted column, in the place of which there may be others.

    Attributes:
      others: their names; one of all is enough.
    """

    def __new__(cls, name: str, *others: str) -> AnyName:
        made = super().__new__(cls, name)
        made.others = others
        return made

    others: tuple[str, ...]


def has_column(names: Iterable[str], wanted: str) -> bool:
    """Returns whether a wanted column, or one in its place (`AnyName`), is among the names."""
    return not {wanted, *getattr(wanted, "others", ())}.isdisjoint(names)


class Struct(dict):
    """An object of a columnar file.

    It has the fields of all objects of its column, null where nobody wrote one.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row as read: its fields, its file and its line.

    The file is spelled as the user gave it; the line is the 1-based physical one where the row
    begins.
    """

    fields: dict[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        """Returns the beginning of an error message about this row, `train.csv:17`."""
        return f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be read, and why; the reader goes on behind it.

    `data.on_bad_row` says whether it ends the run or is put aside.
    """

    line: int
    reason: str
    file: str = ""
    text: str = ""  # of a line that cannot be decoded: what can be read of it
    # what can still be read of the row
    fields: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


# What a reader yields: a row's line and fields; or, of a tree, a whole row, which says in which of
# its files it stands.
Numbered = Iterator[tuple[int, dict[str, Any]] | Row | Bad]


@dataclasses.dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a format that reads one way only."""


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Attributes:
      name: what `data.format` calls it.
      suffixes: of its file names, lower case, without .gz.
      read: `read(source, encoding, options)` yields every row of a file, in order, and `Bad` for
        one that it cannot read; it raises DataError where it cannot go on. With `tree` the source
        is a folder or an archive as a whole (`source.Tree`).
      options: the frozen dataclass of its options, `data.options`; the fields header, unit and
        columns come from the options of that name.
      looks_like: whether the beginning of a file (64 KiB at most, the last line possibly cut) is of
        this format beyond doubt, whatever the file is called; None: the suffix alone tells. With
        `tree` it takes the tree.
      write: `write(rows, file, name)` writes dicts as UTF-8 to an open binary file; None: cannot be
        written. `name` is for errors.
      tree: reads a folder or an archive, not a file.
      rows: what its rows hold, in half a sentence, for the documentation.
      order: its place among those that the beginning of a file is compared with: the strict ones
        first, then what nearly every text could be.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Any, str, Any], Numbered]
    rows: str
    options: type = NoOptions
    looks_like: Callable[[Any], bool] | None = None
    write: Callable[[Iterable[dict[str, Any]], IO[bytes], str], None] | None = None
    tree: bool = False
    order: int = 100


def listed(names: Iterable[str], most: int = 20) -> str:
    """Formats names for a message: the first of them, and how many there are beside them."""
    names = list(names)
    return ", ".join(names[:most]) + (
        f" and {len(names) - most:,} more" if len(names) > most else ""
    )


def repeated(names: Iterable[str]) -> str | None:
    """Returns the first name that occurs for the second time; None where all differ.

    In time that grows with their number.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


_number = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def plain_number(text: str) -> float | None:
    """Parses a number in the digits 0 to 9 with a point and an exponent; None for other text.

    None for Python's `1_000`, for `inf`, `nan` and other digits.
    """
    return float(text) if _number.fullmatch(text.strip()) else None


def require_column(row: Row, name: str, option: str) -> Any:
    """Returns `row.fields[name]`.

    Raises DataError for a missing column, with those found and `option` (such as
    data.columns.text).
    """
    if name not in row.fields:
        found = listed(map(repr, row.fields)) or "none"
        raise DataError(
            f"{row.where}: missing column {name!r}: found columns {found}; set {option}=<column>"
        )
    return row.fields[name]
