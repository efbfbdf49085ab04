"""Rows on the disk between two stages, to be read again and again, and dropped rows.

Neither lies in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
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
    """Writes rows aside, renames the file, and gives them back. Raises DataError where a field is
    not plain JSON.
    """
    count = 0
    with rundir.atomic_lines(path) as file:
        for row in rows:
            count += 1
            try:
                file.write(json.dumps([row.file, row.line, row.fields], ensure_ascii=False) + "\n")
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{row.where}: a field is not plain text, number, list or object ({error})"
                ) from None
    return Spool(path, count)


class Log:
    """The `(file:line, reason)` of dropped rows, in a file.

    In memory is only how many there are of each kind of reason (what stands before its ": ").
    """

    def __init__(self, path: Path, counts: Counter[str] | None = None):
        self.path, self.counts, self._file = (
            path,
            Counter() if counts is None else Counter(counts),
            None,
        )

    def append(self, dropped: tuple[str, str]) -> None:
        with self._told():
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self.path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - rows come one by one
            self._file.write(json.dumps(dropped, ensure_ascii=False) + "\n")
        self.counts[dropped[1].partition(": ")[0]] += 1

    def extend(self, many: Iterable[tuple[str, str]]) -> None:
        for dropped in many:
            self.append(dropped)

    def close(self) -> None:
        """Syncs to the disk: what is counted as dropped must survive a power cut too."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._told(), file:
                file.flush()
                os.fsync(file.fileno())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raises a full disk as one sentence, a DataError."""
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.path}: cannot write ({error.strerror or error})") from None

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self.close()
        if self.counts:
            with open(self.path, encoding="utf-8") as file:
                for line in file:
                    where, reason = json.loads(line)
                    yield where, reason
