"""Rows on the disk between two stages: they can be gone through again and again, and never lie in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxsft import rundir
from jaxsft.data.formats import Row
from jaxsft.errors import DataError


class Spool:
    """Rows in a file of one JSON list `[file, line, fields]` each."""

    def __init__(self, path: Path, length: int):
        self.path, self.length = path, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Row]:
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                name, number, fields = json.loads(line)
                yield Row(fields, name, number)


def write(path: Path, rows: Iterable[Row]) -> Spool:
    """Writes rows aside, renames the file, and gives them back. Raises DataError where a field is not plain JSON."""
    count = 0
    with rundir.atomic_lines(path) as file:
        for row in rows:
            count += 1
            try:
                file.write(json.dumps([row.file, row.line, row.fields], ensure_ascii=False) + "\n")
            except (TypeError, ValueError) as error:
                raise DataError(f"{row.where}: a field is not plain text, number, list or object ({error})") from None
    return Spool(path, count)
