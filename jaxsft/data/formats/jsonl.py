"""JSON and JSON lines.

Every object keeps the line where it begins, in a list over many lines too.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered, repeated
from jaxsft.data.formats.source import Source
from jaxsft.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class DocumentOptions:
    records: str = option(
        "",
        "where the rows lie: keys and `*` (any key, any element) between dots; a list there stands"
        " for its elements",
    )
    key: str = option("key", "the column that takes the keys that `*` met, between dots")
    value: str = option("value", "the column that takes what lies there and is no object")


_space = re.compile(r"[ \t\r\n]*")
_half_emoji = re.compile("[\ud800-\udfff]")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object whose keys are unique. Raises ValueError for a key that occurs twice.

    The standard decoder would silently drop the first of two equal keys.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(
            f"the key {repeated(name for name, _ in pairs)!r} occurs twice in an object"
        )
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def read_lines(source: Source, encoding: str, options: NoOptions) -> Numbered:
    """Reads one object per line, as they are read; a list over several lines is one too."""
    head = source.head()
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and not _is_lines(head, list):
        yield from _whole(source.text(encoding), source.name)
    else:
        yield from _check(_lines(source, encoding))


def read_document(source: Source, encoding: str, options: DocumentOptions) -> Numbered:
    """Reads a list of objects, `{"data": [...]}`, or one object per line.

    A list is read as a whole: JSON lines are for what memory does not hold.

    With `records` the rows of a nested document: `*` gives those of `{"sst2": [...], "qqp":
    [...]}`, each with its `key`, sst2 or qqp, and those of a list of texts as `{"value": text}`;
    `*.paragraphs` those of the list `paragraphs` in every element.

    Raises:
      DataError: broken JSON; nothing lies where `records` looks (the keys that are there are
        listed); a row has a column called `key`'s name.
    """
    if options.records:
        yield from _check(_records(source.text(encoding), source.name, options))
    elif _is_lines(source.head()):
        yield from read_lines(source, encoding, options)
    else:
        yield from _whole(source.text(encoding), source.name)


def _whole(content: str, file: str) -> Numbered:
    begin = _space.match(content).end()
    if content.startswith("[", begin):
        yield from _check(_list(content, begin, file))
    elif content.startswith("{", begin):
        yield from _check(_document(content, begin, file))
    elif begin < len(content):
        yield Bad(
            1 + content.count("\n", 0, begin),
            f"found {content[begin : begin + 20]!r}, expected a JSON list or object",
        )


def write_lines(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes one compact object per line. Raises DataError as `dumped`."""
    for number, row in enumerate(rows, start=1):
        file.write(dumped(row, name, number) + b"\n")


def write_list(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes one compact object per line, between brackets and commas.

    Raises DataError as `dumped`.
    """
    before = b"[\n"
    for number, row in enumerate(rows, start=1):
        file.write(before + dumped(row, name, number))
        before = b",\n"
    file.write(b"\n]\n" if before == b",\n" else b"[]\n")


def dumped(row: dict[str, Any], name: str, number: int) -> bytes:
    """Returns a row as strict JSON (RFC 8259).

    Raises DataError where a number is not finite: the readers here take `NaN`, but other
    programs do not.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        for column, value in row.items():
            if (found := _not_finite(value)) is not None:
                raise DataError(
                    f"{name}: row {number}, column {column!r}: found {found}, which JSON does not"
                    " have; write .csv, or drop it"
                ) from None
        raise DataError(f"{name}: row {number} is no JSON ({error})") from None
    # half of a broken emoji stays the escape that it is in JSON
    return text.encode("utf-8", "backslashreplace")


def _not_finite(value: Any) -> float | None:
    """Returns the first number in a value that is not finite; None without one."""
    if isinstance(value, dict | list | tuple):
        return next(
            (
                found
                for part in (value.values() if isinstance(value, dict) else value)
                if (found := _not_finite(part)) is not None
            ),
            None,
        )
    return value if isinstance(value, float) and not math.isfinite(value) else None


def _check(rows: Iterable[tuple[int, Any] | Bad]) -> Numbered:
    for found in rows:
        if isinstance(found, Bad):
            yield found
            continue
        line, row = found
        if not isinstance(row, dict):
            yield Bad(
                line,
                f'found a JSON {_kind(row)}, expected an object with named fields such as {{"text":'
                " ...}",
            )
        elif (half := surrogate(row)) is not None:
            yield Bad(line, f"a text holds {half}, {NO_CHARACTER}")
        else:
            yield line, row


NO_CHARACTER = "half of a surrogate pair, which is no character; mend or remove it"


def surrogate(value: Any) -> str | None:
    """Returns the first lone surrogate in the texts of a value, escaped; None without one.

    It comes from a broken emoji, or a byte that was no UTF-8.
    """
    left = [value]  # not by calling itself: JSON nests nearly as deep as Python may call
    while left:
        value = left.pop()
        if isinstance(value, str):
            if not value.isascii() and (found := _half_emoji.search(value)):
                return f"\\u{ord(found.group()):04x}"
        elif isinstance(value, dict):
            left += [*reversed(value.values()), *reversed(value)]
        elif isinstance(value, list):
            left += reversed(value)
    return None


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), "object")


def _is_lines(head: bytes, kind: type = dict) -> bool:
    """Returns whether a .json file holds JSON lines.

    The first line is an object (or a list) by itself and more follows.
    """
    first, _, rest = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    if not rest.strip():
        return False
    try:
        return isinstance(json.loads(first), kind)
    except (ValueError, RecursionError):
        return False


def _lines(source: Source, encoding: str) -> Iterator[tuple[int, Any] | Bad]:
    # Only LF ends a line: JSON strings may hold Unicode line separators.
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            yield _legible(found)
        elif found[1].strip():
            try:
                yield found[0], _decoder.decode(found[1])
            except (ValueError, RecursionError) as error:
                yield Bad(found[0], f"broken JSON ({error}); expected one object per line")


def _legible(bad: Bad) -> Bad:
    """Returns a line that cannot be decoded with those of its fields that can be read."""
    try:
        fields = _decoder.decode(bad.text)
    except (ValueError, RecursionError):
        return bad
    return dataclasses.replace(bad, fields=fields) if isinstance(fields, dict) else bad


class _Cursor:
    """A place in JSON text that knows its line."""

    def __init__(self, content: str, position: int, file: str):
        self.content, self.file = content, file
        self.position, self.line = 0, 1
        self.move(position)

    def move(self, position: int) -> None:
        self.line += self.content.count("\n", self.position, position)
        self.position = position

    def skip(self, characters: str = "") -> bool:
        """Skips white space and then one of `characters`; returns whether there was one."""
        self.move(_space.match(self.content, self.position).end())
        if self.position < len(self.content) and self.content[self.position] in characters:
            self.move(self.position + 1)
            return True
        return False

    def expect(self, character: str) -> None:
        if not self.skip(character):
            raise self.error(
                "found"
                f" {self.content[self.position : self.position + 1] or 'the end of the file'!r},"
                f" expected {character!r}"
            )

    def value(self) -> Any:
        self.skip()
        try:
            value, end = _decoder.raw_decode(self.content, self.position)
        except json.JSONDecodeError as error:
            self.move(error.pos)
            raise self.error(error.msg) from None
        except ValueError as error:  # a number of more than 4,300 digits
            raise self.error(str(error)) from None
        except RecursionError:
            raise self.error("nested too deeply") from None
        self.move(end)
        return value

    def error(self, what: str) -> DataError:
        return DataError(f"{self.file}:{self.line}: broken JSON ({what})")


def _elements(at: _Cursor) -> Iterator[tuple[int, Any]]:
    at.expect("[")
    if at.skip("]"):
        return
    while True:
        at.skip()
        line = at.line
        yield line, at.value()
        if at.skip("]"):
            return
        at.expect(",")


def _list(content: str, begin: int, file: str) -> Iterator[tuple[int, Any]]:
    at = _Cursor(content, begin, file)
    yield from _elements(at)
    _end(at)


def _records(content: str, file: str, options: DocumentOptions) -> Iterator[tuple[int, Any] | Bad]:
    at = _Cursor(content, 0, file)
    for line, keys, value in _walk(at, options.records.split("."), ()):
        row = value if isinstance(value, dict) else {options.value: value}
        if keys and options.key in row:
            yield Bad(
                line,
                f"the row has a column {options.key!r} already; set data.options.key to another"
                f" name for the key {'.'.join(keys)!r}",
            )
        else:
            yield line, {options.key: ".".join(keys), **row} if keys else row
    _end(at)


def _walk(
    at: _Cursor, path: list[str], keys: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...], Any]]:
    """Yields line, keys and value of what lies below; moves the cursor behind it."""
    at.skip()
    opening = at.content[at.position : at.position + 1]
    if not path and opening == "[":
        yield from ((line, keys, value) for line, value in _elements(at))
    elif not path:
        line = at.line
        yield line, keys, at.value()
    elif opening == "{":
        yield from _walk_object(at, path, keys)
    elif opening == "[" and path[0] == "*":
        at.expect("[")
        while not at.skip("]"):
            yield from _walk(at, path[1:], keys)
            if at.skip("]"):
                break
            at.expect(",")
    else:
        what = (
            f"found {at.content[at.position : at.position + 20]!r} where it looks for {path[0]!r}"
        )
        raise DataError(
            f"{at.file}:{at.line}: data.options.records: {what}; expected an"
            f" object{' or a list' if path[0] == '*' else ''}"
        )


def _walk_object(
    at: _Cursor, path: list[str], keys: tuple[str, ...]
) -> Iterator[tuple[int, tuple[str, ...], Any]]:
    at.expect("{")
    line, names = at.line, []
    while not at.skip("}"):
        names.append(at.value())
        at.expect(":")
        if path[0] in ("*", names[-1]):
            yield from _walk(at, path[1:], (*keys, names[-1]) if path[0] == "*" else keys)
        else:
            at.value()
        if at.skip("}"):
            break
        at.expect(",")
    if path[0] != "*" and path[0] not in names:
        found = ", ".join(map(repr, names[:20])) or "none"
        raise DataError(
            f"{at.file}:{line}: data.options.records: there is no key {path[0]!r}; found {found}"
        )


def top_lists(content: str, file: str) -> Iterator[tuple[str, int, Any]]:
    """Yields (list name, line, element) of a document that is one object of lists.

    An example is `{"images": [...], "annotations": [...]}`. What is no list is skipped. Raises
    DataError where the JSON is broken.
    """
    at = _Cursor(content, 0, file)
    at.expect("{")
    while not at.skip("}"):
        name = at.value()
        at.expect(":")
        at.skip()
        if content.startswith("[", at.position):
            yield from ((name, line, value) for line, value in _elements(at))
        else:
            at.value()
        if at.skip("}"):
            break
        at.expect(",")
    _end(at)


def _document(content: str, begin: int, file: str) -> Iterator[tuple[int, Any]]:
    """Yields the rows of one object over the whole file.

    They are its list `data`, or else the object itself is the only row.
    """
    at = _Cursor(content, begin, file)
    first = at.line
    fields: dict[str, Any] = {}
    rows = None
    at.expect("{")
    if not at.skip("}"):
        while True:
            name = at.value()
            at.expect(":")
            at.skip()
            if name == "data" and content.startswith("[", at.position):
                rows = list(_elements(at))
            else:
                fields[name] = at.value()
            if at.skip("}"):
                break
            at.expect(",")
    _end(at)
    yield from rows if rows is not None else [(first, fields)]


def _end(at: _Cursor) -> None:
    at.skip()
    if at.position < len(at.content):
        raise at.error(
            f"found {at.content[at.position : at.position + 20]!r} after the end of the value"
        )


def _begins_as_document(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{"))


LINES = Format(
    "jsonl",
    (".jsonl", ".ndjson"),
    read_lines,
    "one JSON object per line",
    looks_like=_is_lines,
    write=write_lines,
    order=200,
)
DOCUMENT = Format(
    "json",
    (".json",),
    read_document,
    'a list of objects, `{"data": [...]}`, or one object; with `records` what lies deeper',
    DocumentOptions,
    looks_like=_begins_as_document,
    write=write_list,
    order=210,
)
