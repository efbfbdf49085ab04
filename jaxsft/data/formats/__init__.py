"""Rows in and out: one file per format.

A reader gives every row of the file with its line, or an error; it never drops one silently.

The format is told by its name (`data.format`), by the beginning of the file, or by the suffix.
`FORMATS` has all of them: a file of this folder that has a `Format` is found by that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import itertools
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import plugins, rundir
from jaxsft.data.formats import brat, folders, tfds, unsupported
from jaxsft.data.formats.row import Bad, Format, Row, listed, require_column
from jaxsft.data.formats.source import Source, Tree, sources, tree
from jaxsft.errors import ConfigError, DataError

# Of every file here, in the order in which the beginning of a file is compared with them.
_ALL = sorted(plugins.parts("jaxsft.data.formats", Format), key=lambda format: format.order)
FORMATS = plugins.Registry("formats", {format.name: format for format in _ALL})
# in options, what stands at such a name is of the files of that split
SPLITS = ("train", "validation", "test")
LONGEST = 900  # characters of the reason why a row is bad
# a suffix names these; content alone decides only where there is no known suffix
GENERIC = ("jsonl", "json", "csv", "tsv", "txt")


def stream(
    path: str | Path,
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    header: str = "auto",
    unit: str = "line",
    columns: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    quarantine: Callable[[Bad], None] | None = None,
) -> Iterator[Row]:
    """Yields all rows of a file, as they are read.

    A pattern, a folder or an archive means several files (see `source.sources`), read in order.

    Args:
      path: a local file (.gz is unpacked), a pattern, a folder, an archive or a part of one, a file
        of the hub, or `tfds:name/config:split`.
      format: a name of `FORMATS`, or auto.
      encoding: of the bytes; a byte-order mark of UTF-8 is accepted.
      header: of csv and tsv: true, false, or auto (see `delimited.has_header`). Without a header
        the columns are named "0", "1", ...
      unit: of txt: what is one row: line (empty ones are skipped), paragraph (separated by empty
        lines) or file.
      columns: the names of the columns that the caller wants; they decide `header=auto`.
      options: further options of the format, by name.
      quarantine: is given the rows that cannot be read; None: the first of them is an error.

    Raises:
      DataError: a file is missing, empty, damaged, or a row of it is broken (named by file and
        line).
      ConfigError: an option has a value that does not exist.
    """
    if str(path).startswith("tfds:"):
        folder, split = tfds.located(str(path))
        path, format, options = (
            folder,
            "tfds",
            {**({"split": split} if split else {}), **(options or {})},
        )
    asked = {"header": header, "unit": unit, "columns": tuple(columns), **(options or {})}
    for source, kind in _openings(path, format):
        plugins.note("formats", kind.name)
        empty = True
        for found in kind.read(source, encoding, _options(kind, asked, options or {})):
            empty = False
            if not isinstance(found, Bad):
                yield found if isinstance(found, Row) else Row(found[1], source.name, found[0])
                continue
            bad = dataclasses.replace(
                found, file=found.file or source.name, reason=_one_line(found.reason)
            )
            if quarantine is None:
                raise DataError(
                    f"{bad.where}: {bad.reason}; data.on_bad_row=quarantine puts such rows aside"
                )
            quarantine(bad)
        if empty:
            blank = isinstance(source, Source) and not source.head().strip()
            raise DataError(f"{source.name}:1: the file {'is empty' if blank else 'has no rows'}")


def _one_line(reason: str) -> str:
    """Returns a reason as one line; a quotation from a file is shortened."""
    reason = (
        reason
        if len(reason) <= LONGEST
        else f"{reason[: LONGEST * 2 // 3]} ... {reason[-LONGEST // 3 :]}"
    )
    return " ".join(reason.splitlines())


def options_of(options: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Returns the options that the file of a split is read with.

    They are those of all files, overridden by those at the split's name, `{"split": "trainval",
    "test": {"split": "test"}}`. Raises ConfigError where that is no mapping.
    """
    own = options.get(split, {}) if split in SPLITS else {}
    if not isinstance(own, Mapping):
        raise ConfigError(
            f"data.options.{split}={str(own)[:60]}: expected options of that split, such as"
            f" data.options.{split}.<name>=<value>"
        )
    return {name: value for name, value in options.items() if name not in SPLITS} | dict(own)


def files(path: str | Path) -> list[Source]:
    """Returns every file that a path means, for their hashes.

    Those of `sources`, all of a folder, or all of a data set of TFDS. Raises DataError.
    """
    if str(path).startswith("tfds:"):
        path = tfds.located(str(path))[0]
    return list(tree(path).files.values()) if os.path.isdir(path) else sources(path)


def read(path: str | Path, **how: Any) -> list[Row]:
    """Returns all rows of a file at once; see `stream`."""
    return list(stream(path, **how))


def write(rows: Iterable[dict[str, Any]], path: str | Path, format: str = "auto") -> None:
    """Writes dicts to a file (optionally .gz), all or nothing; the same rows give the same bytes.

    Raises:
      DataError: a row does not fit the format (a list in a CSV cell, a tab in a TSV cell, columns
        that differ from those of the first row).
      ConfigError: the format cannot be written, or the suffix names none.
    """
    kind = named(format) if format != "auto" else _by_suffix(path)
    if kind is None or kind.write is None:
        can = ", ".join(suffix for f in FORMATS.values() if f.write for suffix in f.suffixes)
        raise ConfigError(
            f"cannot write rows to {path}; expected a name that ends in {can}, each optionally"
            " with .gz"
        )
    with rundir.atomic_file(path) as file, contextlib.ExitStack() as opened:
        packed = (
            opened.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
            if str(path).endswith(".gz")
            else file
        )
        kind.write(rows, packed, str(path))


def detect(source: Source | Tree) -> Format:
    """Detects the format of a file, from its beginning and its suffix.

    Raises ConfigError where neither tells.
    """
    is_tree = isinstance(source, Tree)
    head = source if is_tree else source.head()
    suffix = None if is_tree else _by_suffix(source.name)
    if not is_tree:
        unsupported.refuse(source.name, unsupported.of_file(source.name, head))
        unsupported.refuse(source.name, unsupported.of_markup(source.name, head))
    for kind in FORMATS.values():
        strict = kind.name not in GENERIC or suffix is None
        if (
            kind.tree == is_tree
            and strict
            and kind.looks_like is not None
            and kind.looks_like(head)
        ):
            return kind
    if suffix is not None:
        return suffix
    known = ", ".join(itertools.chain.from_iterable(f.suffixes for f in FORMATS.values()))
    raise ConfigError(
        f"cannot tell the format of {source.name} from its content or its suffix; expected {known},"
        " or set data.format=<format>"
    )


def _openings(path: str | Path, format: str) -> list[tuple[Source | Tree, Format]]:
    """Returns (source, format) of a path.

    A folder or archive that is of one format as a whole is one; otherwise its files are.
    """
    if format != "auto" and named(format).tree:
        return [(tree(path), named(format))]
    folder = os.path.isdir(path) or str(path).lower().endswith(".zip")
    if folder and format == "auto":
        whole = tree(path)
        if kind := _kind_of_tree(whole):
            return [(whole, kind)]
    if folder:
        return folders.of_one_kind(
            str(path), folders.data_files(sources(path)), lambda source: _format_of(source, format)
        )
    return [(source, _format_of(source, format)) for source in sources(path)]


def _format_of(source: Source, format: str) -> Format:
    """Returns the requested format, or the detected one.

    Raises ConfigError where it cannot be told, DataError for a file of another program.
    """
    if format == "auto":
        return detect(source)
    unsupported.refuse(source.name, unsupported.of_file(source.name, source.head()))
    return named(format)


def left_out(path: str | Path, format: str = "auto") -> list[str]:
    """Returns the names of a folder's or archive's files that are no data: README, LICENSE ...

    They are not read, and must be told.
    """
    if str(path).startswith("tfds:") or not (
        os.path.isdir(path) or str(path).lower().endswith(".zip")
    ):
        return []
    whole = tree(path)
    if kind := (
        _kind_of_tree(whole) if format == "auto" else named(format) if named(format).tree else None
    ):
        return [
            str(Path(path) / n)
            for n in folders.documents(whole.files)
            if kind is brat.FORMAT and not folders.annotated(n, whole.files)
        ]
    found = sources(path)
    read = {source.name for source in folders.data_files(found)}
    return [source.name for source in found if source.name not in read]


def left_out_note(path: str | Path, format: str = "auto") -> list[str]:
    """Returns a sentence about the files of `left_out`; empty without any.

    Also empty where the path cannot be read: whoever reads it says so.
    """
    try:
        names = left_out(path, format)
    except (DataError, ConfigError):
        return []
    verb = "is" if len(names) == 1 else "are"
    return (
        [f"{listed(names, 5)} {verb} no data and left out; a pattern takes all files of {path}"]
        if names
        else []
    )


def _kind_of_tree(whole: Tree) -> Format | None:
    return next(
        (
            kind
            for kind in FORMATS.values()
            if kind.tree and kind.looks_like is not None and kind.looks_like(whole)
        ),
        None,
    )


def _by_suffix(path: str | Path) -> Format | None:
    suffix = Path(str(path).lower().removesuffix(".gz")).suffix
    return next((kind for kind in FORMATS.values() if suffix in kind.suffixes), None)


def named(format: str) -> Format:
    """Returns the format of a name. Raises ConfigError where there is none."""
    if format not in FORMATS:
        raise ConfigError(f"data.format={format!r} is unknown; expected auto, {', '.join(FORMATS)}")
    return FORMATS[format]


def _options(kind: Format, asked: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    known = [f.name for f in dataclasses.fields(kind.options)]
    if unknown := [name for name in given if name not in known]:
        raise ConfigError(
            f"data.options.{unknown[0]}: format {kind.name} has no such option; it has"
            f" {', '.join(known) or 'none'}"
        )
    hints = typing.get_type_hints(kind.options)
    return kind.options(
        **{name: _typed(name, value, hints[name]) for name, value in asked.items() if name in known}
    )


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Converts an option to the type that its format declares.

    `tags=2` on a command line is a number, where the format expects a name.
    """
    if hint is str and isinstance(value, str | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if (
        typing.get_origin(hint) is Mapping
        and isinstance(value, Mapping)
        and all(isinstance(v, str) for pair in value.items() for v in pair)
    ):
        return dict(value)
    if typing.get_origin(hint) is Sequence and (
        isinstance(value, str)
        or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value))
    ):
        return (value,) if isinstance(value, str) else tuple(value)
    expected = {str: "text", bool: "true or false", int: "a whole number"}.get(
        hint, "a list of texts"
    )
    expected = "texts by name, {name: text}" if typing.get_origin(hint) is Mapping else expected
    raise ConfigError(f"data.options.{name}={str(value)[:60]}: expected {expected}")


__all__ = [
    "FORMATS",
    "Bad",
    "Format",
    "Row",
    "Source",
    "Tree",
    "detect",
    "files",
    "left_out",
    "left_out_note",
    "listed",
    "named",
    "options_of",
    "read",
    "require_column",
    "sources",
    "stream",
    "tree",
    "write",
]
