"""The budget of a chat template: every operation is charged before it runs.

It pays for what it touches and makes.

A step is an iteration, a call, an item of a list, or `STEP` characters. What an operation touches
is counted as it would be written: a list that stands in another one twice counts twice, for that is
how often a comparison or `tojson` walks through it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jinja2.sandbox import SecurityError
from jinja2.utils import Namespace

STEPS = 4_000_000  # of one render: some seconds at worst
STEP = 50  # characters
BYTES = 400_000_000  # that one render makes, whether it keeps them or not
LARGEST = 100_000  # the largest number that a call may be given: Jinja's own limit for range()
BITS = 10_000  # of an integer
LEVELS = 60  # of lists and objects in each other
ITEM = 120  # bytes of an item: a short string with its marks, or a number
CHARACTERS = 500_000  # of a template; the largest that are published have some 50,000

SIZED = (
    list,
    tuple,
    set,
    frozenset,
    range,
    Mapping,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


class Size(NamedTuple):
    """The size of a value as it would be written.

    Its items, its characters, the bytes of a character at most, and how deep it nests.
    """

    items: int
    chars: int
    width: int
    depth: int

    @property
    def steps(self) -> int:
        return self.items + self.chars // STEP

    @property
    def bytes(self) -> int:
        return self.chars * (self.width + 1) + self.items * ITEM  # a mark for each character


class Spent(threading.local):
    """The budget that one render has used."""

    steps = 0
    bytes = 0

    def reset(self) -> None:
        self.steps = self.bytes = 0

    def pay(self, steps: int, made: int = 0) -> None:
        """Raises SecurityError where a render spends more than it may."""
        self.steps += steps
        self.bytes += made
        if self.steps > STEPS:
            raise SecurityError(
                f"the template runs too long (more than {STEPS:,} steps for one row)"
            )
        if self.bytes > BYTES:
            raise SecurityError(
                f"the template makes too much text (more than {BYTES:,} bytes for one row)"
            )

    def touch(self, *values: Any) -> None:
        """Charges for reading all of the values."""
        self.pay(1 + sum(size_of(value).steps for value in values))

    def make(self, chars: float, width: int = 4, items: float = 0) -> None:
        """Charges for a result of at most so many characters and items."""
        self.pay(1 + int(chars // STEP + items), int(chars * (width + 1) + items * ITEM))

    def iterate(self, values: Any) -> Iterator[Any]:
        """Yields the items of an iterable, each of which costs a step."""
        for value in values:
            self.pay(1)
            yield value


def width_of(text: str) -> int:
    """Returns an upper bound of the bytes per character."""
    return 1 if str.isascii(text) else 2 if sys.getsizeof(text) < 3 * len(text) else 4


def attributes(value: Namespace) -> dict[str, Any]:
    """Returns the content of a namespace of the template."""
    return object.__getattribute__(value, "_Namespace__attrs")


def size_of(value: Any) -> Size:
    """Returns the size of a value as it would be written, repetitions included.

    Raises SecurityError for what nests too deep.
    """
    return _size(value, {}, 0)


def _size(value: Any, known: dict[int, Size], level: int) -> Size:
    kind = type(value)
    if issubclass(kind, str):
        return Size(1, str.__len__(value), width_of(value), 0)
    if issubclass(kind, int):
        return Size(1, int(value.bit_length() * 0.31) + 2, 1, 0)
    if issubclass(kind, Mapping):
        parts: Any = (part for pair in value.items() for part in pair)
    elif kind is not range and issubclass(kind, SIZED):
        parts = value
    elif kind is Namespace:
        parts = attributes(value).values()
    elif kind is range:
        return Size(1 + len(value), 8 * len(value), 1, 1)
    else:
        return Size(1, 25, 1, 0)
    if id(value) in known:
        return known[id(value)]
    if level > LEVELS:
        raise SecurityError(
            f"lists and objects of the template stand in each other more than {LEVELS} deep"
        )
    items, chars, width, depth = 1, 2, 1, 0
    for part in parts:
        one = _size(part, known, level + 1)
        items, chars, width, depth = (
            items + one.items,
            chars + one.chars + 4,
            max(width, one.width),
            max(depth, one.depth),
        )
    known[id(value)] = size = Size(items, chars, width, depth + 1)
    return size


def check_numbers(*values: Any) -> None:
    """Raises SecurityError for a number that no call needs."""
    for value in values:
        if issubclass(type(value), int | float) and abs(value) > LARGEST:
            raise SecurityError(f"the template calls something with a number larger than {LARGEST}")


def length_of(value: Any) -> int:
    """Returns the length of a value of Python's own types; 0 of others, which stay closed."""
    return (
        str.__len__(value)
        if issubclass(type(value), str)
        else len(value)
        if issubclass(type(value), SIZED)
        else 0
    )


def number_of(value: Any) -> int:
    return min(abs(int(value)), LARGEST) if issubclass(type(value), int | float) else 0
