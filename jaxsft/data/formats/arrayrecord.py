"""ArrayRecord files whose records are JSON objects.

The shards of a TFDS data set hold tf.train.Example: their folder is the format `tfds`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import DataError

BATCH = 256  # records that are fetched at once: far faster than one by one
MAGIC = bytes.fromhex("83af70d10d884a3f")  # of Riegeli's files, which ArrayRecord's are


def read(source: Source, encoding: str, options: NoOptions) -> Numbered:
    """Reads one JSON object per record, numbered from 1.

    Raises:
      DataError: packed, damaged, or its records are no JSON.
    """
    from array_record.python import array_record_module

    if source.member is not None or source.name.endswith(".gz"):
        raise DataError(f"{source.name}: ArrayRecord files are read in place; unpack it first")
    reader = array_record_module.ArrayRecordReader(str(source.path))
    try:
        count = reader.num_records()
        if not reader.ok():
            raise DataError(
                f"{source.name}: the ArrayRecord file is damaged, or not one at all; copy it again"
            )
        for begin in range(0, count, BATCH):
            try:
                records = reader.read(begin, min(begin + BATCH, count))
            except (IndexError, RuntimeError, ValueError) as error:
                raise DataError(
                    f"{source.name}: the ArrayRecord file is damaged"
                    f" ({' '.join(str(error).split())[:200]}); copy it again"
                ) from None
            for number, record in enumerate(records, start=begin + 1):
                yield _row(record, number)
    finally:
        with contextlib.suppress(RuntimeError):  # what is wrong with the file, once more
            reader.close()


def _row(record: bytes, number: int) -> tuple[int, dict[str, Any]] | Bad:
    try:
        row = json.loads(record)
    except (ValueError, RecursionError):
        hint = (
            "; the folder of a TFDS data set is read as a whole" if record.startswith(b"\n") else ""
        )
        return Bad(number, f"the record {record[:40]!r} is no JSON{hint}")
    return (
        (number, row)
        if isinstance(row, dict)
        else Bad(number, f"found the record {record[:40]!r}, expected a JSON object")
    )


def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes a record per row, each in its own group, so that any of them is read by itself.

    The same rows give the same bytes.
    """
    from array_record.python import array_record_module

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.array_record"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for row in rows:
            writer.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        writer.close()
        file.write(path.read_bytes())


def _looks_like(head: bytes) -> bool:
    return head.startswith(MAGIC)


FORMAT = Format(
    "array_record",
    (".array_record", ".arrayrecord"),
    read,
    "one JSON object per record",
    looks_like=_looks_like,
    write=write,
    order=40,
)
