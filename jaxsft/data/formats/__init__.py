"""Rows in and out: one file per format. A reader returns every row of the file with its line, or raises; it never drops one silently.

| suffix (each also with .gz) | format | rows |
|---|---|---|
| .json .jsonl .ndjson | `json`, `jsonl` | a list of objects, `{"data": [...]}`, or one object per line |
| .csv | `csv` | cells, quoted with `"` where they hold a comma, a quote or a line break |
| .tsv | `tsv` | cells between tabs; quotes are ordinary characters, so a cell holds neither a tab nor a line break |
| .txt | `txt` | the field `text`: a line, a paragraph, or the whole file |
"""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxsft.data.formats import delimited, jsonl, text
from jaxsft.errors import ConfigError, DataError
from jaxsft.rundir import write_bytes

FORMATS = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt"}
SEPARATORS = {"csv": ",", "tsv": "\t"}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row as read: its fields, the file (spelled as the user gave it) and the 1-based physical line where the row begins."""

    fields: dict[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        """`train.csv:17`: what an error message about this row begins with."""
        return f"{self.file}:{self.line}"


def read(
    path: str | Path,
    *,
    format: str = "auto",
    header: str = "auto",
    encoding: str = "utf-8",
    unit: str = "line",
    columns: Sequence[str] = (),
) -> list[Row]:
    """Read all rows of a file.

    Args:
      path: a local file; a name that ends in .gz is unpacked.
      format: json, jsonl, csv, tsv, txt, or auto (from the suffix).
      header: of csv and tsv: true, false, or auto (see `delimited.has_header`). Without a header the columns are named "0", "1", ...
      encoding: of the bytes; a byte-order mark of UTF-8 is accepted.
      unit: of txt: what is one row: line (empty ones are skipped), paragraph (separated by empty lines) or file.
      columns: the names of the columns that the caller wants; they decide `header=auto`.

    Raises:
      DataError: the file is missing, empty, not in the encoding, has no rows, or a row of it is broken (named by file and line).
      ConfigError: an option has a value that does not exist.
    """
    kind = _format(path, format)
    for option, value, known in (("header", header, ("auto", "true", "false")), ("unit", unit, ("file", "line", "paragraph"))):
        if value not in known:
            raise ConfigError(f"data.{option}={value!r} is unknown; expected one of {', '.join(known)}")
    content = text.load(path, encoding)
    if kind == "txt":
        numbered = text.parse(content, unit)
    elif kind in SEPARATORS:
        numbered = delimited.parse(content, str(path), SEPARATORS[kind], header, columns)
    else:
        numbered = jsonl.parse(content, str(path), lines=kind == "jsonl")
    rows = [Row(fields, str(path), line) for line, fields in numbered]
    if not rows:
        raise DataError(f"{path}:1: the file has no rows")
    return rows


def write(rows: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Write dicts to a .json(l), .csv or .tsv file (optionally .gz), aside and then renamed: a crash leaves the old file or the new one.

    Raises:
      DataError: a row does not fit the format (a list in a CSV cell, a tab in a TSV cell, columns that differ from those of the first row).
      ConfigError: the suffix names no format that can be written.
    """
    kind = _format(path, "auto")
    if kind == "txt":
        raise ConfigError(f"cannot write rows to {path}; expected a name that ends in .jsonl, .csv or .tsv, each optionally with .gz")
    content = jsonl.dump(rows, as_list=kind == "json") if kind not in SEPARATORS else delimited.dump(rows, str(path), SEPARATORS[kind])
    packed = content.encode("utf-8", "backslashreplace")  # half of a broken emoji stays the escape that it is in JSON
    # No time stamp inside: the same rows give the same bytes.
    write_bytes(path, gzip.compress(packed, mtime=0) if str(path).endswith(".gz") else packed)


def require_column(row: Row, name: str, option: str) -> Any:
    """Return `row.fields[name]`; a missing column is a DataError that lists those found and names `option` (such as data.columns.text)."""
    if name not in row.fields:
        found = ", ".join(repr(column) for column in row.fields) or "none"
        raise DataError(f"{row.where}: missing column {name!r}: found columns {found}; set {option}=<column>")
    return row.fields[name]


def _format(path: str | Path, format: str) -> str:
    if format != "auto":
        if format not in FORMATS.values():
            raise ConfigError(f"data.format={format!r} is unknown; expected auto, {', '.join(dict.fromkeys(FORMATS.values()))}")
        return format
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"cannot tell the format of {path} from its suffix {suffix!r}; expected {', '.join(FORMATS)}, or set data.format=<format>")
    return FORMATS[suffix]
