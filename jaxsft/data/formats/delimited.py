"""CSV, with quotes, and TSV, without.

Real TSV files hold quotes that nobody closed, and a reader that minds them swallows rows. What a
file does differently is told from its first lines, or by options (`dialect`).
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats import dialect as dialects
from jaxsft.data.formats.dialect import Dialect
from jaxsft.data.formats.row import Bad, Format, Numbered, has_column, listed, repeated
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

Cells = tuple[int, list[str]]
LOOKED_AT = 10_000, 2_000_000  # rows and cells that decide whether there is a header
HEADER = ("auto", "true", "false")


@dataclasses.dataclass(frozen=True, slots=True)
class DelimitedOptions:
    header: str = option(
        "auto", 'auto | true | false; without one the columns are named "0", "1", ...'
    )
    columns: Sequence[str] = option((), "that the caller wants; they decide header=auto")
    separator: str = option(
        "auto",
        "auto | comma | semicolon | tab | pipe, or another sign; auto: that of the format, or of a"
        " header that has no such sign",
    )
    quotes: str = option(
        "auto",
        "auto | true | false: whether quotes enclose cells; auto: yes, but between tabs only where"
        " all cells are written so",
    )


def _read(source: Source, encoding: str, options: DelimitedOptions, separator: str) -> Numbered:
    """Yields (line, {column: cell}); cells are strings, as in the file.

    Lines without any character are skipped, and so is a first line `sep=;`.

    Raises:
      DataError: a quote that is never closed, a column name that occurs twice, a header that cannot
        be told from data, or a cell that is written with quotes in a file that seemed to have none.
    """
    if options.header not in HEADER:
        raise ConfigError(
            f"data.header={options.header!r} is unknown; expected one of {', '.join(HEADER)}"
        )
    dialect = dialects.tell(
        source,
        encoding,
        separator,
        options.separator,
        options.quotes,
        options.columns,
        options.header,
    )
    table = (
        _read_quoted(source, encoding, dialect)
        if dialect.quoted
        else _read_plain(source, encoding, dialect)
    )
    begin = _beginning(table)
    known = [found for found in begin if not isinstance(found, Bad)]
    if not known:
        yield from begin
        return
    line, first = known[0]
    names = [str(index) for index in range(len(first))]
    headed = options.header == "true" or (
        options.header == "auto" and has_header(begin, source.name, options.columns, dialect.hint)
    )
    if headed:
        # pandas leaves the name of its index column empty.
        names = [cell or str(index) for index, cell in enumerate(first)]
        if (twice := repeated(names)) is not None:
            raise DataError(
                f"{source.name}:{line}: the column name {twice[:80]!r} occurs twice; rename one, or"
                " set data.header=false if this is no header"
            )
        begin.remove(known[0])
    for found in itertools.chain(begin, table):
        yield (
            _legible(found, names, dialect)
            if isinstance(found, Bad)
            else _row(found, names, dialect)
        )


def _legible(bad: Bad, names: Sequence[str], dialect: Dialect) -> Bad:
    """Returns a line that cannot be decoded with those of its cells that can be read."""
    line = bad.text.rstrip("\r\n")
    rows = (
        []
        if not line
        else (
            dialects.cells([line], dialect.separator)
            if dialect.quoted
            else [line.split(dialect.separator)]
        )
    )
    return (
        dataclasses.replace(bad, fields=dict(zip(names, rows[0], strict=True)))
        if len(rows) == 1 and len(rows[0]) == len(names)
        else bad
    )


def _row(found: Cells, names: Sequence[str], dialect: Dialect) -> tuple[int, dict[str, str]] | Bad:
    line, cells = found
    if len(cells) == len(names):
        return line, dict(zip(names, cells, strict=True))
    hint = dialect.hint
    if not hint and dialect.quoted and len(cells) > len(names):
        hint = (
            "; quote cells that hold"
            f" {'a comma' if dialect.separator == ',' else repr(dialect.separator)}"
        )
    return Bad(line, f"found {len(cells)} cells, expected {len(names)} as in the first row{hint}")


def _beginning(table: Iterator[Cells | Bad]) -> list[Cells | Bad]:
    begin, size = [], 0
    for found in table:
        begin.append(found)
        size += 0 if isinstance(found, Bad) else len(found[1])
        if len(begin) >= LOOKED_AT[0] or size >= LOOKED_AT[1]:
            break
    return begin


def has_header(
    table: Sequence[Cells | Bad], file: str, columns: Sequence[str], hint: str = ""
) -> bool:
    """Returns whether the first row names the columns.

    With wanted `columns`: numbers only: no; all wanted names in the first row: yes; otherwise that
    is an error. Without: no, if a cell of the first row is empty (but for the first), a number, a
    sentence, or occurs again in its own column or in the first row; yes, if all look like names and
    other rows follow.

    Raises:
      DataError: it cannot be known; the message asks for data.header=true or false.
    """
    (line, first), *others = (row for row in table if not isinstance(row, Bad))
    if len(first) > 1 and first == [str(index) for index in range(len(first))]:
        raise DataError(
            f"{file}:{line}: the first row, {_show(first)}, may be a header or data; set"
            " data.header=true or data.header=false"
        )
    if columns:
        named = [name for name in columns if not name.isdecimal()]
        if not named:
            return False
        if missing := [name for name in named if not has_column(first, name)]:
            cure = (
                hint
                or "; name a column by data.columns.<field>=<column>, or by its number with"
                " data.header=false if the file has no header"
            )
            raise DataError(
                f"{file}:{line}: missing column {missing[0]!r}: the first row is"
                f" {_show(first)}{cure}"
            )
        return True
    cells = first[1:] if not first[0] and len(first) > 1 else first
    if len(set(first)) < len(first) or not all(dialects.NAME.fullmatch(cell) for cell in cells):
        return False
    if len(table) == 1:
        raise DataError(
            f"{file}:{line}: the only row, {_show(first)}, may be a header or data; set"
            " data.header=true or data.header=false"
        )
    again = any(
        cell == other for _, row in others for cell, other in zip(first, row, strict=False) if cell
    )
    return not again


def _write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str, separator: str) -> None:
    """Writes a header and one line per row.

    Null becomes an empty cell, numbers and booleans their JSON spelling.

    Raises:
      DataError: no rows, a column that the first row lacks or misses, a list or dict in a cell, a
        tab or a line break in a TSV cell, an empty cell that is the only one of its line in TSV.
    """
    names: list[str] = []
    for number, row in enumerate(rows, start=1):
        if number == 1:
            names = list(row)
            file.write(
                _joined(
                    [_cell(column, f"{name}: the header", separator) for column in names], separator
                )
            )
        if set(row) != set(names):
            raise DataError(
                f"{name}: row {number} has the columns {sorted(row)}, expected {sorted(names)} as"
                " in the first; write .jsonl instead"
            )
        cells = [
            _cell(row[column], f"{name}: row {number}, column {column!r}", separator)
            for column in names
        ]
        if separator == "\t" and cells == [""]:
            raise DataError(
                f"{name}: row {number} is an empty line, which a reader skips; write .csv or .jsonl"
                " instead"
            )
        file.write(_joined(cells, separator))
    if not names:
        raise DataError(
            f"{name}: there are no rows to write, and so no columns; write .jsonl instead"
        )


def _joined(cells: Sequence[str], separator: str) -> bytes:
    # Not csv.writer: it leaves a carriage return inside a cell unquoted.
    return (separator.join(cells if separator == "\t" else map(_quoted, cells)) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def _quoted(cell: str) -> str:
    return (
        '"' + cell.replace('"', '""') + '"'
        if not cell or any(sign in cell for sign in ',"\r\n')
        else cell
    )


def _cell(value: Any, where: str, separator: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | bool | int | float):
        raise DataError(
            f"{where}: found a {type(value).__name__}, which no cell can hold; write .jsonl instead"
        )
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if separator == "\t" and any(sign in text for sign in "\t\n\r"):
        raise DataError(
            f"{where}: found a tab or a line break, which a .tsv cell cannot hold; write .csv or"
            " .jsonl instead"
        )
    if separator == "\t" and dialects.escaped(text):
        raise DataError(
            f"{where}: found {text[:40]!r}, which would be read without its quotes; write .csv or"
            " .jsonl instead"
        )
    return text


def _show(cells: Sequence[str]) -> str:
    return listed([repr(cell if len(cell) <= 40 else cell[:37] + "...") for cell in cells])


def _read_plain(source: Source, encoding: str, dialect: Dialect) -> Iterator[Cells | Bad]:
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            yield found
            continue
        number, line = found
        if line and not (number == 1 and dialect.begin):
            cells = line.split(dialect.separator)
            if (
                not dialect.sure
                and '"' in line
                and (cell := next((cell for cell in cells if dialects.escaped(cell)), None))
            ):
                raise DataError(
                    f"{source.name}:{number}: the cell {cell[:60]!r} is written with quotes, as"
                    " spreadsheets and pandas do; set data.options.quotes=true if all such cells"
                    " are, or data.options.quotes=false to take quotes as they stand"
                )
            yield number, cells


class _Lines:
    """The lines of a file for `csv.reader`; those that cannot be decoded end their row."""

    def __init__(self, source: Source, encoding: str):
        self.found, self.undecodable, self.number, self.ended = (
            source.lines(encoding, ends=True),
            [],
            0,
            False,
        )

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            found = next(self.found)
        except StopIteration:
            self.ended = True
            raise
        if isinstance(found, Bad):
            self.undecodable.append(found)
            self.number = found.line
            return "\n"
        self.number = found[0]
        return found[1]


def _read_quoted(source: Source, encoding: str, dialect: Dialect) -> Iterator[Cells | Bad]:
    lines = _Lines(source, encoding)
    if dialect.begin:
        next(lines, None)
    reader = csv.reader(
        lines, delimiter=dialect.separator, strict=True, skipinitialspace=dialect.spaced
    )
    # a text may be longer than the default of 128 KiB
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        while True:
            begin = lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # The file is read once more only here, where it is at its end.
                if lines.ended and (
                    opened := _open_quote(source, encoding, begin, dialect.separator)
                ):
                    unsure = (
                        ""
                        if dialect.sure or dialect.separator != "\t"
                        else ", or set data.options.quotes=false"
                    )
                    raise DataError(
                        f"{source.name}:{opened}: the quote that opens here is never closed; double"
                        f" a quote inside a quoted cell{unsure}"
                    ) from None
                where = f" (the row begins in line {begin})" if begin < lines.number else ""
                yield Bad(
                    lines.number,
                    f"{error}{where}; double a quote inside a quoted cell, and quote the whole"
                    " cell",
                )
                continue
            if lines.undecodable:
                yield from lines.undecodable
                if begin < lines.undecodable[0].line or lines.number > lines.undecodable[0].line:
                    yield Bad(begin, "the row goes over a line that cannot be decoded")
                lines.undecodable = []
            elif cells:
                yield begin, cells
    finally:
        csv.field_size_limit(limit)


def _open_quote(source: Source, encoding: str, begin: int, separator: str) -> int | None:
    """Returns the line of a quote that is never closed; None if there is none.

    It reads from the row that begins in line `begin`.
    """
    opened: int | None = None
    before, closed, at_start = 0, False, True
    for found in source.lines(encoding, ends=True):
        number, part = (found.line, "") if isinstance(found, Bad) else found
        for sign in part if number >= begin else "":
            if opened is not None:
                if sign == '"':
                    before, opened, closed = opened, None, True
            elif sign == '"' and closed:  # doubled: the cell goes on
                opened, closed = before, False
            elif sign == '"' and at_start:
                opened, at_start = number, False
            else:
                at_start, closed = sign in (separator, "\r", "\n"), False
    return opened


def _looks_quoted(head: bytes) -> bool:
    """Returns whether a file begins as CSV.

    A first line of at least two column names, and as many commas in the lines behind it, where
    no quote joins lines.
    """
    return _looks_delimited(head, ",")


def _looks_tabbed(head: bytes) -> bool:
    return _looks_delimited(head, "\t")


def _looks_delimited(head: bytes, separator: str) -> bool:
    try:
        lines = [
            line
            for line in head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[:20]
            if line.strip()
        ]
        rows = (
            list(csv.reader(lines, strict=True))
            if separator == ","
            else [line.split(separator) for line in lines]
        )
    except csv.Error:
        return False
    return len(rows) > 2 and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows[:-1])


def _of(separator: str) -> dict[str, Any]:
    return {
        "read": lambda source, encoding, options: _read(source, encoding, options, separator),
        "write": lambda rows, file, name: _write(rows, file, name, separator),
        "options": DelimitedOptions,
    }


CSV = Format(
    "csv",
    (".csv",),
    rows='cells, quoted with `"` where they hold a comma, a quote or a line break',
    looks_like=_looks_quoted,
    **_of(","),
    order=220,
)
TSV = Format(
    "tsv",
    (".tsv", ".tab"),
    rows=(
        "cells between tabs; quotes are ordinary characters, so a cell holds neither a tab nor a"
        " line break"
    ),
    looks_like=_looks_tabbed,
    **_of("\t"),
    order=230,
)
