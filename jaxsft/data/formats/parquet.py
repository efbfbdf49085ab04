"""Parquet, and Arrow's own files (IPC file, IPC stream, Feather), through pyarrow.

They are read batch by batch, every value as plain JSON has it.

Nothing is rounded: integers are exact; a decimal is the text of its digits; dates, times and
instants are ISO 8601 text (an instant with a time zone in UTC), a duration is `PT<seconds>S`. A
struct becomes a dict, a map with text keys too; a list a list; null None; a dictionary-encoded
value itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats.arrow_schema import schema_of
from jaxsft.data.formats.row import Bad, Format, Numbered, Struct, repeated
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

BATCH = 1024  # rows that are held at once
GROUP = 10_000  # rows per row group that is written


@dataclasses.dataclass(frozen=True, slots=True)
class ParquetOptions:
    class_names: bool = option(
        False,
        "true: the ids of a Hugging Face ClassLabel become its names (-1, no label, becomes null)",
    )
    columns: Sequence[str] = option(
        (),
        "that the caller wants; others are left out where they hold what no text is, such as bytes",
    )


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("Parquet and Arrow files need pyarrow; install jaxsft[parquet]") from None
    return pyarrow


# --- read
# --------------------------------------------------------------------------------------------------
def read(source: Source, encoding: str, options: ParquetOptions) -> Numbered:
    """Reads the rows of a Parquet file, numbered from 1, by batches of its row groups.

    A row with bytes in a wanted column is `Bad`; so is one whose text is not UTF-8, or whose id has
    no name.

    Raises:
      DataError: not a Parquet file, a damaged one, a column name that occurs twice.
      ConfigError: pyarrow is not installed; class_names where the file has no class names.
    """
    pa = _pyarrow()
    with source.open() as file, _told(pa, source.name, "Parquet"):
        table = pa.parquet.ParquetFile(_seekable(file), page_checksum_verification=True)
        yield from _rows(table.schema_arrow, table.iter_batches(BATCH), source.name, options)


def read_arrow(source: Source, encoding: str, options: ParquetOptions) -> Numbered:
    """Reads the rows of an Arrow IPC file or stream.

    An IPC file is also Feather, version 2; an IPC stream is what Hugging Face datasets keep.
    Raises as `read`.
    """
    pa = _pyarrow()
    with source.open() as file, _told(pa, source.name, "Arrow"):
        if source.head().startswith(b"ARROW1"):
            opened = pa.ipc.open_file(_seekable(file))
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        else:
            opened = pa.ipc.open_stream(file)
            batches = iter(opened)
        parts = (
            batch.slice(at, BATCH) for batch in batches for at in range(0, batch.num_rows, BATCH)
        )
        yield from _rows(opened.schema, parts, source.name, options)


def _seekable(file: IO[bytes]) -> IO[bytes]:
    return file if file.seekable() else io.BytesIO(file.read())


@contextlib.contextmanager
def _told(pa: Any, name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:500]
        raise DataError(
            f"{name}: the {kind} file is damaged, or not one at all ({reason}); copy it again"
        ) from None


def _rows(schema: Any, batches: Iterable[Any], name: str, options: ParquetOptions) -> Numbered:
    if (twice := repeated(schema.names)) is not None:
        raise DataError(f"{name}: the column name {twice[:80]!r} occurs twice; rename one")
    barred = {field.name: kind for field in schema if (kind := _no_text(field.type))}
    names = [
        column
        for column in schema.names
        if not (options.columns and column in barred and column not in options.columns)
    ]
    labels = _class_names(schema, name) if options.class_names else {}
    line = 0
    for batch in batches:
        yield from _batch(batch.select(names), line, barred, labels)
        line += batch.num_rows


def _batch(batch: Any, before: int, barred: dict[str, str], labels: dict[str, Any]) -> Numbered:
    """Yields the rows of a batch; one by one where it is damaged, to find the bad ones."""
    try:
        batch.validate(full=True)  # without this, what points outside of the file ends the process
        columns = {
            column: _plain(array)
            for column, array in zip(batch.schema.names, batch.columns, strict=True)
            if column not in barred
        }
    except (_pyarrow().ArrowInvalid, UnicodeDecodeError, _NoValue) as error:
        if batch.num_rows == 1:
            yield Bad(
                before + 1,
                (
                    str(error)
                    if isinstance(error, _NoValue)
                    else f"the row is damaged, or not UTF-8 ({' '.join(str(error).split())[:500]})"
                ),
            )
            return
        for i in range(batch.num_rows):
            yield from _batch(batch.slice(i, 1), before + i, barred, labels)
        return
    present = {
        column: batch.column(column).is_valid().to_pylist()
        for column in batch.schema.names
        if column in barred
    }
    for i in range(batch.num_rows):
        if held := next((column for column, valid in present.items() if valid[i]), None):
            yield Bad(
                before + i + 1,
                f"column {held!r} holds {barred[held]}, which is no text; set"
                " data.options.columns=[<column>, ...] to the columns that you want",
            )
            continue
        row = {
            column: columns[column][i] if column in columns else None
            for column in batch.schema.names
        }
        try:
            yield (
                before + i + 1,
                {
                    column: _named(value, labels[column], column) if column in labels else value
                    for column, value in row.items()
                },
            )
        except _NoValue as error:
            yield Bad(before + i + 1, str(error))


class _NoValue(Exception):
    """The error that a value has no place in plain JSON, and why."""


def _no_text(kind: Any) -> str | None:
    """Returns why a column of this type cannot be read: bytes, or an unknown type; else None.

    The type may be nested anywhere in it.
    """
    types = _pyarrow().types
    if isinstance(kind, _pyarrow().BaseExtensionType):
        return _no_text(kind.storage_type)
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    ):
        return f"bytes ({kind})"
    if types.is_union(kind) or types.is_interval(kind):
        return f"values of the type {kind}"
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _no_text(kind.value_type)
    return next(
        (found for i in range(kind.num_fields) if (found := _no_text(kind.field(i).type))), None
    )


def _plain(array: Any) -> list[Any]:
    """Returns the values of an Arrow array as JSON has them."""
    pa, types, kind = _pyarrow(), _pyarrow().types, array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return _plain(pa.compute.run_end_decode(array))
    if types.is_struct(kind):
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        rows = (
            zip(*map(_plain, array.flatten()), strict=True) if fields else iter([()] * len(array))
        )
        return [
            Struct(zip(fields, row, strict=True)) if ok else None
            for row, ok in zip(rows, array.is_valid().to_pylist(), strict=True)
        ]
    if types.is_map(kind):
        return _maps(pa, array)
    if types.is_nested(kind):
        return _lists(pa, array)
    if types.is_decimal(kind):
        return [None if value is None else str(value) for value in array.to_pylist()]
    if types.is_floating(kind):
        return [None if value is None else float(value) for value in array.to_pylist()]
    if (
        types.is_date(kind)
        or types.is_time(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
    ):
        return _times(pa, array)
    return array.to_pylist()


def _lists(pa: Any, array: Any) -> list[Any]:
    inside = iter(_plain(array.flatten()))
    lengths = pa.compute.list_value_length(array).to_pylist()
    return [None if length is None else [next(inside) for _ in range(length)] for length in lengths]


def _maps(pa: Any, array: Any) -> list[Any]:
    """Returns a dict where the keys are texts and unique; otherwise a list of pairs."""
    # a slice of a map keeps the keys of all
    array = array.take(pa.array(range(len(array)), pa.int64()))
    keys, items, offsets = _plain(array.keys), _plain(array.items), array.offsets.to_pylist()
    out: list[Any] = []
    for begin, end, ok in zip(offsets, offsets[1:], array.is_valid().to_pylist(), strict=False):
        pairs = list(zip(keys[begin:end], items[begin:end], strict=True))
        as_dict = all(isinstance(key, str) for key, _ in pairs) and len(
            {key for key, _ in pairs}
        ) == len(pairs)
        out.append((dict(pairs) if as_dict else [list(pair) for pair in pairs]) if ok else None)
    return out


def _times(pa: Any, array: Any) -> list[str | None]:
    types, kind = pa.types, array.type
    if types.is_date(kind):
        per_day = 1 if types.is_date32(kind) else 86_400_000
        integers, spell = (
            array.view(pa.int32() if types.is_date32(kind) else pa.int64()),
            lambda v: _day(v // per_day).date().isoformat(),
        )
    else:
        digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[kind.unit]
        integers = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
        if types.is_duration(kind):
            spell = lambda v: (
                ("-" if v < 0 else "") + f"PT{abs(v) // 10**digits}{_fraction(abs(v), digits)}S"
            )
        elif types.is_time(kind):
            spell = lambda v: _moment(v, digits).time().isoformat() + _fraction(v, digits)
        else:
            zone = "+00:00" if kind.tz else ""
            spell = lambda v: _moment(v, digits).isoformat() + _fraction(v, digits) + zone
    return [None if value is None else spell(value) for value in integers.to_pylist()]


def _day(days: int) -> datetime.datetime:
    try:
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(days=days)
    except OverflowError:
        raise _NoValue(
            f"a date lies {days} days from 1970-01-01, outside the years 1 to 9999"
        ) from None


def _moment(value: int, digits: int) -> datetime.datetime:
    days, seconds = divmod(value // 10**digits, 86_400)
    return _day(days) + datetime.timedelta(seconds=seconds)


def _fraction(value: int, digits: int) -> str:
    part = value % 10**digits if digits else 0
    return f".{part:0{digits}d}" if part else ""


# --- class names of Hugging Face
# --------------------------------------------------------------------------------------------------
def _class_names(schema: Any, name: str) -> dict[str, Any]:
    """Returns the names of a ClassLabel by column, as the schema's metadata has them.

    Nested ones stand in `{"feature": ...}` and `{field: ...}`.
    """
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"][
            "features"
        ]
    except (ValueError, KeyError, TypeError):
        features = {}
    labels = {
        column: known
        for column, feature in features.items()
        if column in schema.names and (known := _label_tree(feature))
    }
    if not labels:
        raise ConfigError(
            f"data.options.class_names=true: {name} has no class names in its metadata; leave it"
            " false, and name the classes in the task"
        )
    return labels


def _label_tree(feature: Any) -> Any:
    if isinstance(feature, list):
        return {"feature": known} if feature and (known := _label_tree(feature[0])) else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return list(feature.get("names") or []) or None
    return {key: known for key, part in feature.items() if (known := _label_tree(part))} or None


def _named(value: Any, labels: Any, column: str) -> Any:
    if value is None:
        return None
    if isinstance(labels, list):
        if value == -1:
            return None
        if not isinstance(value, int) or not 0 <= value < len(labels):
            raise _NoValue(
                f"column {column!r} holds the id {value!r}, expected one of the {len(labels)}"
                f" classes 0 to {len(labels) - 1}"
            )
        return labels[value]
    if isinstance(value, list):
        return [_named(part, labels.get("feature", labels), column) for part in value]
    return {
        key: _named(part, labels[key], column) if key in labels else part
        for key, part in value.items()
    }


# --- write
# --------------------------------------------------------------------------------------------------
def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes rows as Parquet, in row groups of 10,000.

    The rows are held in memory: the type of a column is known from all of them.

    Raises:
      DataError: no rows; a row without a column of the first, or with another; values of different
        types in a column (also 1 and 1.0), an integer beyond 64 bits, a dict without keys.
    """
    pa, schema, rows = _pyarrow(), None, list(rows)
    schema = schema_of(pa, rows, name)
    with pa.parquet.ParquetWriter(file, schema, write_page_checksum=True) as writer:
        for at in range(0, len(rows), GROUP):
            writer.write_table(pa.Table.from_pylist(rows[at : at + GROUP], schema=schema))


def write_arrow(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes rows as an Arrow IPC file, as `write` does."""
    pa, rows = _pyarrow(), list(rows)
    schema = schema_of(pa, rows, name)
    with pa.ipc.new_file(file, schema) as writer:
        for at in range(0, len(rows), GROUP):
            writer.write_table(pa.Table.from_pylist(rows[at : at + GROUP], schema=schema))


def _is_parquet(head: bytes) -> bool:
    return head.startswith((b"PAR1", b"PARE"))


def _is_arrow(head: bytes) -> bool:
    return head.startswith((b"ARROW1\0\0", b"\xff\xff\xff\xff"))


PARQUET = Format(
    "parquet",
    (".parquet", ".pq"),
    read,
    "the columns of the table, as plain JSON values",
    ParquetOptions,
    _is_parquet,
    write,
    order=50,
)
ARROW = Format(
    "arrow",
    (".arrow", ".feather", ".ipc"),
    read_arrow,
    "the columns of the table, as plain JSON values",
    ParquetOptions,
    _is_arrow,
    write_arrow,
    order=60,
)
