"""Plain text: a line, a paragraph or a file is a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

UNITS = ("file", "line", "paragraph")


@dataclasses.dataclass(frozen=True, slots=True)
class TextOptions:
    unit: str = option("line", "file | line | paragraph")


def read(source: Source, encoding: str, options: TextOptions) -> Numbered:
    """Reads the field `text`; of whole files also `folder`.

    It is the name of the folder that the file lies in (a label, in many data sets).

    Empty lines are no rows; line ends are no part of a text, except inside a whole file. A
    paragraph with a line that cannot be decoded is Bad.
    """
    if options.unit not in UNITS:
        raise ConfigError(
            f"data.unit={options.unit!r} is unknown; expected one of {', '.join(UNITS)}"
        )
    if options.unit == "file":
        if (content := source.text(encoding)).strip():
            yield 1, {"text": content, "folder": PurePath(source.name).parent.name}
        return
    paragraph: list[str] = []
    begin, broken = 0, None
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            if options.unit == "line":
                yield found
            begin, broken = begin or found.line, broken or found
            continue
        number, line = found
        if options.unit == "line":
            if line.strip():
                yield number, {"text": line}
        elif line.strip():
            begin = begin or number
            paragraph.append(line)
        elif begin:
            yield broken or (begin, {"text": "\n".join(paragraph)})
            paragraph, begin, broken = [], 0, None
    if begin and options.unit == "paragraph":
        yield broken or (begin, {"text": "\n".join(paragraph)})


def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes the field `text` of each row as a line.

    Raises DataError where a row has other fields, or its text would not be read back as one
    line.
    """
    for number, row in enumerate(rows, start=1):
        text = row.get("text")
        if (
            set(row) != {"text"}
            or not isinstance(text, str)
            or not text.strip()
            or "\n" in text
            or text.endswith("\r")
        ):
            raise DataError(
                f"{name}: row {number} is not one line of text in the field 'text' alone; write"
                " .jsonl instead"
            )
        file.write(text.encode() + b"\n")


FORMAT = Format(
    "txt",
    (".txt", ".text"),
    read,
    "the field `text`: a line, a paragraph, or the whole file",
    TextOptions,
    write=write,
    order=240,
)
