"""JSON and JSON lines. Every object keeps the line where it begins, in a list over many lines too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from jaxsft.errors import DataError

Numbered = Iterator[tuple[int, dict[str, Any]]]

_space = re.compile(r"[ \t\r\n]*")
_half_emoji = re.compile("[\ud800-\udfff]")
_decoder = json.JSONDecoder()


def parse(content: str, file: str, lines: bool) -> Numbered:
    """Yield (line, object) of JSON text: a list, `{"data": [...]}`, or one object per line.

    Args:
      content: the whole file.
      file: its name, for errors.
      lines: the name promises one object per line; a file that begins with `[` is a list all the same.

    Raises:
      DataError: broken JSON, a row that is no object, or text with half a surrogate pair, each with its line.
    """
    begin = _space.match(content).end()
    if content.startswith("[", begin):
        yield from _check(_list(content, begin, file), file)
    elif not lines and content.startswith("{", begin) and not _is_lines(content, begin):
        yield from _check(_document(content, begin, file), file)
    else:
        yield from _check(_lines(content, file), file)


def dump(rows: Iterable[dict[str, Any]], as_list: bool = False) -> str:
    """One compact object per line; between brackets and commas if `as_list`."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if as_list else "".join(line + "\n" for line in lines)


def _check(rows: Iterable[tuple[int, Any]], file: str) -> Numbered:
    for line, row in rows:
        if not isinstance(row, dict):
            raise DataError(f'{file}:{line}: found a JSON {_kind(row)}, expected an object with named fields such as {{"text": ...}}')
        if (found := _surrogate(row)) is not None:
            raise DataError(f"{file}:{line}: a text holds {found}, half of a surrogate pair, which is no character; mend or remove it")
        yield line, row


def _surrogate(value: Any) -> str | None:
    if isinstance(value, str):
        found = None if value.isascii() else _half_emoji.search(value)
        return f"\\u{ord(found.group()):04x}" if found else None
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for part in parts if (found := _surrogate(part))), None)


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), "object")


def _is_lines(content: str, begin: int) -> bool:
    """Whether the first line is an object by itself and more follows: a .json file that holds JSON lines."""
    end = content.find("\n", begin)
    if end < 0 or not content[end:].strip():
        return False
    try:
        return isinstance(json.loads(content[begin:end]), dict)
    except json.JSONDecodeError:
        return False


def _lines(content: str, file: str) -> Iterator[tuple[int, Any]]:
    # Not splitlines: JSON strings may hold Unicode line separators.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{file}:{number}: broken JSON ({error}); expected one object per line") from None


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
        """Step over white space and then over one of `characters`, if it is there."""
        self.move(_space.match(self.content, self.position).end())
        if self.position < len(self.content) and self.content[self.position] in characters:
            self.move(self.position + 1)
            return True
        return False

    def expect(self, character: str) -> None:
        if not self.skip(character):
            raise self.error(f"found {self.content[self.position : self.position + 1] or 'the end of the file'!r}, expected {character!r}")

    def value(self) -> Any:
        self.skip()
        try:
            value, end = _decoder.raw_decode(self.content, self.position)
        except json.JSONDecodeError as error:
            self.move(error.pos)
            raise self.error(error.msg) from None
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


def _document(content: str, begin: int, file: str) -> Iterator[tuple[int, Any]]:
    """One object over the whole file: its list `data`, or else the object itself is the only row."""
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
        raise at.error(f"found {at.content[at.position : at.position + 20]!r} after the end of the value")
