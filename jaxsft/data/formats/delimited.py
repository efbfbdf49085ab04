"""CSV, with quotes, and TSV, without: real TSV files hold quotes that nobody closed, and a reader that minds them swallows rows."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jaxsft.errors import DataError

Cells = tuple[int, list[str]]

# A column name: begins with a letter, is short, and has none of the signs that end or part sentences.
_name = re.compile(r"[^\W\d][\w .:/#%()\[\]-]{0,39}")


def parse(content: str, file: str, separator: str, header: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {column: cell}); cells are strings, as in the file. Lines without any character are skipped.

    Args:
      content: the whole file.
      file: its name, for errors.
      separator: "," (cells may be quoted) or a tab (quotes are ordinary characters).
      header: true, false, or auto (see `has_header`).
      columns: the names that the caller wants.

    Raises:
      DataError: a row with more or fewer cells than the first, a quote that is never closed, a column name that occurs twice, or a header
        that cannot be told from data.
    """
    table = list(_read_quoted(content, file) if separator == "," else _read_plain(content))
    if not table:
        return
    line, first = table[0]
    names = [str(index) for index in range(len(first))]
    if header == "true" or (header == "auto" and has_header(table, file, columns)):
        # pandas leaves the name of its index column empty.
        names = [cell or str(index) for index, cell in enumerate(first)]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise DataError(f"{file}:{line}: the column name {repeated!r} occurs twice; rename one, or set data.header=false if this is no header")
        table = table[1:]
    for line, cells in table:
        if len(cells) != len(names):
            hint = "; quote cells that hold a comma" if separator == "," and len(cells) > len(names) else ""
            raise DataError(f"{file}:{line}: found {len(cells)} cells, expected {len(names)} as in the first row{hint}")
        yield line, dict(zip(names, cells, strict=True))


def has_header(table: Sequence[Cells], file: str, columns: Sequence[str]) -> bool:
    """Whether the first row names the columns.

    With wanted `columns`: numbers only: no; all wanted names in the first row: yes; otherwise that is an error.
    Without: no, if a cell of the first row is empty (but for the first), a number, a sentence, or occurs again in its own column or in
    the first row; yes, if all look like names and other rows follow.

    Raises:
      DataError: it cannot be known; the message asks for data.header=true or false.
    """
    line, first = table[0]
    if len(first) > 1 and first == [str(index) for index in range(len(first))]:
        raise DataError(f"{file}:{line}: the first row, {_show(first)}, may be a header or data; set data.header=true or data.header=false")
    if columns:
        named = [name for name in columns if not name.isdecimal()]
        if not named:
            return False
        if missing := [name for name in named if name not in first]:
            raise DataError(
                f"{file}:{line}: missing column {missing[0]!r}: the first row is {_show(first)}; name a column by data.columns.<field>=<column>, "
                "or by its number with data.header=false if the file has no header"
            )
        return True
    cells = first[1:] if not first[0] and len(first) > 1 else first
    if len(set(first)) < len(first) or not all(_name.fullmatch(cell) for cell in cells):
        return False
    if len(table) == 1:
        raise DataError(f"{file}:{line}: the only row, {_show(first)}, may be a header or data; set data.header=true or data.header=false")
    again = any(cell == other for _, row in table[1:] for cell, other in zip(first, row, strict=False) if cell)
    return not again


def dump(rows: Iterable[dict[str, Any]], file: str, separator: str) -> str:
    """A header and one line per row. Null becomes an empty cell, numbers and booleans their JSON spelling.

    Raises:
      DataError: no rows, a column that the first row lacks or misses, a list or dict in a cell, a tab or a line break in a TSV cell, an
        empty cell that is the only one of its line in TSV.
    """
    table: list[list[str]] = []
    names: list[str] = []
    for number, row in enumerate(rows, start=1):
        names = names or list(row)
        if set(row) != set(names):
            raise DataError(f"{file}: row {number} has the columns {sorted(row)}, expected {sorted(names)} as in the first; write .jsonl instead")
        table.append([_cell(row[name], f"{file}: row {number}, column {name!r}", separator) for name in names])
    if not table:
        raise DataError(f"{file}: there are no rows to write, and so no columns; write .jsonl instead")
    if separator == "\t" and [""] in table:
        raise DataError(f"{file}: row {table.index(['']) + 1} is an empty line, which a reader skips; write .csv or .jsonl instead")
    table.insert(0, [_cell(name, f"{file}: the header", separator) for name in names])
    if separator == "\t":
        return "".join("\t".join(cells) + "\n" for cells in table)
    # Not csv.writer: it leaves a carriage return inside a cell unquoted.
    return "".join(",".join(map(_quoted, cells)) + "\n" for cells in table)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if not cell or any(sign in cell for sign in ',"\r\n') else cell


def _cell(value: Any, where: str, separator: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | bool | int | float):
        raise DataError(f"{where}: found a {type(value).__name__}, which no cell can hold; write .jsonl instead")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if separator == "\t" and any(sign in text for sign in "\t\n\r"):
        raise DataError(f"{where}: found a tab or a line break, which a .tsv cell cannot hold; write .csv or .jsonl instead")
    return text


def _show(cells: Sequence[str]) -> str:
    return ", ".join(repr(cell if len(cell) <= 40 else cell[:37] + "...") for cell in cells)


def _read_plain(content: str) -> Iterator[Cells]:
    for number, line in enumerate(content.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _read_quoted(content: str, file: str) -> Iterator[Cells]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a text may be longer than the default of 128 KiB
    try:
        while True:
            begin = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num and (opened := _open_quote(content, begin)):
                    raise DataError(f"{file}:{opened}: the quote that opens here is never closed; double a quote inside a quoted cell") from None
                raise DataError(f"{file}:{reader.line_num}: {error}; double a quote inside a quoted cell, and quote the whole cell") from None
            if cells:
                yield begin, cells
    finally:
        csv.field_size_limit(limit)


def _open_quote(content: str, begin: int) -> int | None:
    """The line of the quote that is still open at the end of the file, from the row that begins in line `begin`; None if none is."""
    opened: int | None = None
    before, closed, at_start = 0, False, True
    for number, part in enumerate(io.StringIO(content, newline=""), start=1):
        for sign in part if number >= begin else "":
            if opened is not None:
                if sign == '"':
                    before, opened, closed = opened, None, True
            elif sign == '"' and closed:  # doubled: the cell goes on
                opened, closed = before, False
            elif sign == '"' and at_start:
                opened, at_start = number, False
            else:
                at_start, closed = sign in ",\r\n", False
    return opened
