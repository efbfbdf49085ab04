"""The dialect of a delimited file: its separator, and whether quotes enclose its cells.

It is told from the first lines where the options do not say.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Sequence

from jaxsft.data.formats.row import Bad, has_column
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError

NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
TOLD = 10_000, 2**20  # lines and characters that are looked at
FEW = 200  # lines in which a separator must fit
QUOTES = ("auto", "true", "false")

# A column name: begins with a letter, is short, and has none of the signs that end or part
# sentences.
NAME = re.compile(r"[^\W\d][\w .:/#%()\[\]-]{0,39}")
_excel = re.compile(r"sep=(.)\r?\n?")  # a first line by which Excel is told the separator


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a delimited file.

    `begin`: lines before the table; `others`: separators that fit the file too, for messages;
    `sure`: the options say whether there are quotes; `spaced`: a space behind each separator
    belongs to it.
    """

    separator: str
    quoted: bool
    begin: int = 0
    others: tuple[str, ...] = ()
    sure: bool = False
    spaced: bool = False

    @property
    def hint(self) -> str:
        """Returns the hint of a message about missing cells: another separator; "" without one."""
        if not self.others:
            return ""
        return (
            f"; the cells seem to be parted by {self.others[0]!r}: set"
            f" data.options.separator={spelled(self.others[0])}"
        )


def spelled(separator: str) -> str:
    """Returns a separator as its option takes it."""
    return next((name for name, sign in NAMES.items() if sign == separator), separator)


def tell(
    source: Source,
    encoding: str,
    default: str,
    separator: str,
    quotes: str,
    columns: Sequence[str],
    header: str,
) -> Dialect:
    """Returns the dialect of a file: by the options, or with auto by its first lines.

    Args:
      default: what parts the cells of such files; another sign does where the first row has none of
        the default and is a header by the other alone.
      separator, quotes: the options.
      columns: that the caller wants; header: `data.header`.

    Raises:
      ConfigError: an option has a value that does not exist.
    """
    if quotes not in QUOTES:
        raise ConfigError(
            f"data.options.quotes={quotes!r} is unknown; expected one of {', '.join(QUOTES)}"
        )
    asked = NAMES.get(separator, separator)
    if separator != "auto" and (len(asked) != 1 or asked in '"\r\n'):
        raise ConfigError(
            f"data.options.separator={separator!r}: expected auto, {', '.join(NAMES)}, or a single"
            " sign"
        )
    lines, cut = _beginning(source, encoding)
    excel = _excel.fullmatch(lines[0]) if lines else None
    lines = lines[bool(excel) :]
    others: tuple[str, ...] = ()
    if separator == "auto":
        asked = excel[1] if excel else default
        if not excel and lines:
            others = tuple(
                sign for sign in NAMES.values() if sign != default and _fits(lines, sign)
            )
            asked = (
                others[0]
                if len(others) == 1 and _needed(lines, default, others[0], columns, header)
                else default
            )
    others = tuple(sign for sign in others if sign != asked)
    quoted = (
        quotes == "true"
        if quotes != "auto"
        else asked != "\t" or _written_with_quotes("".join(lines), cut)
    )
    return Dialect(
        asked, quoted, bool(excel), others, quotes != "auto", quoted and _spaced(lines, asked)
    )


def _beginning(source: Source, encoding: str) -> tuple[list[str], bool]:
    """Returns the first lines, and whether there are more."""
    lines: list[str] = []
    size = 0
    for number, found in enumerate(source.lines(encoding, ends=True)):
        if size > TOLD[1] or number == TOLD[0]:
            return lines, True
        # a line in another encoding has its separators too
        line = found.text if isinstance(found, Bad) else found[1]
        lines.append(line)
        size += len(line)
    return lines, False


def cells(lines: Iterable[str], separator: str) -> list[list[str]]:
    """Returns the rows of some lines, up to the first that is badly quoted."""
    rows = []
    try:
        for row in csv.reader(lines, delimiter=separator, strict=True):
            if row:
                rows.append(row)
    except csv.Error:
        pass
    return rows


def _fits(lines: Sequence[str], sign: str) -> bool:
    """Returns whether a separator cuts the first row into several cells, and most others alike."""
    rows = cells(lines[:FEW], sign)
    return (
        len(rows) > 1
        and len(rows[0]) > 1
        and sum(len(row) == len(rows[0]) for row in rows) > 0.9 * len(rows)
    )


def _spaced(lines: Sequence[str], sign: str) -> bool:
    """Returns whether the header has a space after each separator, and so have all other lines."""
    rows = cells(lines[:FEW], sign)
    named = (
        len(rows) > 1 and len(rows[0]) > 1 and all(NAME.fullmatch(cell.strip()) for cell in rows[0])
    )
    return named and all(cell.startswith(" ") for row in rows for cell in row[1:])


def _needed(
    lines: Sequence[str], default: str, sign: str, columns: Sequence[str], header: str
) -> bool:
    """Returns whether the default separator fails where the other one gives a header.

    The first row is one cell by the default, and by the other a header, or has the columns that
    are wanted by number.
    """
    first = (cells(lines[:FEW], sign) or [[]])[0]
    if len((cells(lines[:FEW], default) or [[]])[0]) > 1:
        return False
    names = [name for name in columns if not name.isdecimal()]
    if header == "false" or (columns and not names):
        return any(name.isdecimal() and 0 < int(name) < len(first) for name in columns)
    named = len(set(first)) == len(first) and all(map(NAME.fullmatch, first[not first[0] :]))
    return all(has_column(first, name) for name in names) and named


def escaped(cell: str) -> bool:
    """Returns whether a program quoted the cell: enclosed in quotes, with inner ones doubled."""
    inner = cell[1:-1]
    return (
        len(cell) > 3
        and cell[0] == cell[-1] == '"'
        and '"' in inner
        and '"' not in inner.replace('""', "")
    )


_cell = re.compile(r'(?:("(?:[^"]++|"")*+")|[^"\t\r\n]*+)(\t|\r?\n|\Z)')
CUT = 2**16  # characters that a cell may have which the end of what is looked at cuts off


def _written_with_quotes(text: str, cut: bool) -> bool:
    """Returns whether a program quoted the cells between tabs.

    Every quote stands in a cell that is enclosed and has its inner ones doubled; and one such
    cell has inner ones, or all names of the header are enclosed, or the lines have as many
    cells only so. `cut`: the file goes on behind it.
    """
    if '"' not in text:
        return False
    at, doubled = 0, False
    rows: list[list[bool]] = [[]]
    while at < len(text):
        if not (found := _cell.match(text, at)):
            if not cut or len(text) - at > CUT or text[at] != '"':
                return False
            break
        rows[-1].append(found[1] is not None)
        doubled = doubled or (found[1] is not None and "\n" not in found[1] and escaped(found[1]))
        at = found.end()
        if found[2] != "\t":
            rows.append([])
    rows = [row for row in rows[:-1] if row]
    widths = {len(row) for row in rows if len(row) > 1}
    plain = {line.count("\t") for line in text.split("\n") if line.strip("\r")}
    return (
        doubled
        or (len(rows) > 0 and len(rows[0]) > 1 and all(rows[0]))
        or (len(plain) > 1 and len(widths) == 1)
    )
