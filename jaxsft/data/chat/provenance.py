"""Strings that record, per character, whether the template or the data wrote it.

`template_environment.py` writes templates with them.

Data goes into a template as `Tracked` strings, which carry their marks through +, ~, slices, strip,
split, replace, join, filters, macros and `{% set %}` blocks. What no method can follow (`%`,
`format`, `escape`) comes out as UNKNOWN, never as written by the template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

DATA, UNKNOWN = 1, 2  # who wrote a character; 0 is the template
# inside {% generation %}; odd and even regions differ, so that two that touch stay two
TRAINED, ODD = 4, 8

ONLY_SOURCE = bytes(mark & (DATA | UNKNOWN) for mark in range(256))
_only_trained = bytes(mark & (TRAINED | ODD) for mark in range(256))
_trained = {
    flag: bytes(mark & (DATA | UNKNOWN) | flag for mark in range(256))
    for flag in (TRAINED, TRAINED | ODD)
}


class Tracked(str):
    """A string with one mark per character.

    Without marks given, its source is UNKNOWN.
    """

    __slots__ = ("_marks",)
    _marks: bytes

    def __new__(cls, text: str = "", marks: bytes | None = None) -> Tracked:
        self = super().__new__(cls, text)
        self._marks = bytes([UNKNOWN]) * len(self) if marks is None else marks
        assert len(self._marks) == len(self)
        return self

    def __str__(self) -> str:
        return self  # the output of a template is str(expression): the marks must survive it

    def __add__(self, other: str) -> Tracked:
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Tracked:
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: int) -> Tracked:
        return Tracked(plain(self) * times, self._marks * times)

    __rmul__ = __mul__

    def __getitem__(self, key: Any) -> Tracked:
        return Tracked(
            str.__getitem__(self, key),
            self._marks[key] if isinstance(key, slice) else bytes((self._marks[key],)),
        )

    def __iter__(self) -> Iterator[Tracked]:
        return (self[index : index + 1] for index in range(len(self)))

    def lstrip(self, chars: str | None = None) -> Tracked:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> Tracked:
        return self[: len(str.rstrip(self, chars))]

    def strip(self, chars: str | None = None) -> Tracked:
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> Tracked:
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str) -> Tracked:
        return self[: len(self) - len(suffix)] if suffix and self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[Tracked]:
        return self._located(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list[Tracked]:
        return self._located(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[Tracked]:
        whole = self._located(str.splitlines(self, True), "")
        return (
            whole
            if keepends
            else [
                line[: len(short)] for line, short in zip(whole, str.splitlines(self), strict=True)
            ]
        )

    def partition(self, sep: str) -> tuple[Tracked, ...]:
        return self._parted(str.partition(self, sep))

    def rpartition(self, sep: str) -> tuple[Tracked, ...]:
        return self._parted(str.rpartition(self, sep))

    def replace(self, old: str, new: str, count: int = -1) -> Tracked:
        return (
            join(self.split(old, count), new)
            if old
            else Tracked(str.replace(self, old, new, count))
        )

    def join(self, items: Iterable[str]) -> Tracked:
        return join(items, self)

    def _located(self, parts: list[str], sep: str | None) -> list[Tracked]:
        """Returns the parts of a split, in order, as slices of self.

        Without a separator a part begins at its first occurrence after white space.
        """
        found, position = [], 0
        for part in parts:
            position = self.find(part, position) if sep is None else position
            found.append(self[position : position + len(part)])
            position += len(part) + len(sep or "")
        return found

    def _parted(self, parts: tuple[str, str, str]) -> tuple[Tracked, ...]:
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self[:first], self[first:second], self[second:]


def _same_length(name: str) -> Callable:
    def method(self: Tracked) -> Tracked:
        text = getattr(str, name)(self)
        # no letter grows shorter, so equal length means letter by letter
        return Tracked(text, self._marks if len(text) == len(self) else None)

    method.__name__ = name
    return method


def _untracked(name: str) -> Callable:
    def method(self: Tracked, *args: Any, **options: Any) -> Tracked:
        return Tracked(getattr(str, name)(plain(self), *args, **options))

    method.__name__ = name
    return method


for _method in ("upper", "lower", "capitalize", "title", "casefold", "swapcase"):
    setattr(Tracked, _method, _same_length(_method))
for _method in (
    "center",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "translate",
    "__mod__",
    "__rmod__",
):
    setattr(Tracked, _method, _untracked(_method))


def plain(text: str) -> str:
    """Returns the same characters without marks."""
    return str.__str__(text)


def join(pieces: Iterable[str], separator: str = "") -> Tracked:
    """Joins strings; those that are not Tracked were written by the template."""
    items = list(pieces)
    between = marks_of(separator)
    return Tracked(plain(separator).join(items), between.join([marks_of(item) for item in items]))


def track(value: Any) -> Any:
    """Returns the same nested data with every string (keys too) marked as DATA."""
    if isinstance(value, str):
        return Tracked(value, bytes([DATA]) * len(value))
    if isinstance(value, Mapping):
        return {track(key): track(part) for key, part in value.items()}
    return [track(part) for part in value] if isinstance(value, list | tuple) else value


def sources(text: Tracked, start: int, end: int) -> bytes:
    """Returns who wrote the characters of [start, end): 0 (the template), DATA or UNKNOWN."""
    return text._marks[start:end].translate(ONLY_SOURCE)


def template_runs(text: Tracked) -> list[tuple[int, int]]:
    """Returns (start, end) of the longest runs without a character of the data."""
    return [match.span() for match in re.finditer(rb"[\x00\x02]+", sources(text, 0, len(text)))]


def trained_runs(text: Tracked) -> list[tuple[int, int]]:
    """Returns (start, end) of what stands inside {% generation %}."""
    return [
        match.span() for match in re.finditer(rb"\x04+|\x0c+", text._marks.translate(_only_trained))
    ]


def trained(text: str, flag: int) -> Tracked:
    """Returns the same text, marked as a trained region."""
    return Tracked(plain(text), marks_of(text).translate(_trained[flag]))


def marks_of(text: str) -> bytes:
    return text._marks if isinstance(text, Tracked) else bytes(len(text))


def leaves(value: Any) -> Iterator[str]:
    """Yields the strings inside an argument, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(key)
            yield from leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
