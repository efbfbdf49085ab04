"""Symbolic values: a template can place them but not look into them; each use is recorded.

The proof that `layouts.py` stands on: a hole is no string and holds no characters. What comes out
of it is another hole, or the answer to a question that is written down; anything else raises.
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxsft.data.chat.provenance import DATA, Tracked, join, plain

_FIRST = 0xF0000  # a hole is written as one character of a private plane
PARTS = ("split", "rsplit", "splitlines", "partition", "rpartition")
STRIPS = ("strip", "lstrip", "rstrip")
DERIVED = (*STRIPS, "removeprefix", "removesuffix")
ASKED = (
    "startswith",
    "endswith",
    "isspace",
    "isdigit",
    "isnumeric",
    "isdecimal",
    "isalpha",
    "isalnum",
    "isupper",
    "islower",
    "isascii",
)
STRING, MAPPING, NUMBER = range(3)  # the kinds of hole

# ("data", i), ("call", expression, method, arguments, options), ("item", expression, i), ("slice",
# expression, start, stop, step), ("json", ...)
Expression = tuple


class Looked(BaseException):
    """The signal that a template looks into a symbolic value.

    It is no Exception, for Jinja turns some of those into answers.
    """


class Opened(Looked):
    """The signal that a template looks into an object that was given as one value."""


class Opaque:
    """The base of symbolic values, which cannot be looked into, not even by isinstance."""

    __slots__ = ()
    kind = STRING

    def _look(self, *args: Any) -> Any:
        raise Looked

    __class__ = property(_look)  # where the type itself does not answer, isinstance asks this


for _name in (
    *(
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "hash",
        "bool",
        "len",
        "iter",
        "contains",
        "getitem",
        "reversed",
        "str",
        "repr",
        "format",
        "bytes",
    ),
    *(
        "add",
        "radd",
        "mul",
        "rmul",
        "mod",
        "rmod",
        "sub",
        "rsub",
        "truediv",
        "rtruediv",
        "floordiv",
        "rfloordiv",
        "pow",
        "rpow",
        "index",
        "int",
    ),
    *(
        "float",
        "complex",
        "round",
        "trunc",
        "floor",
        "ceil",
        "neg",
        "pos",
        "abs",
        "and",
        "rand",
        "or",
        "ror",
        "xor",
        "rxor",
        "invert",
    ),
):
    setattr(Opaque, f"__{_name}__", Opaque._look)


class Hole(Opaque):
    """A symbolic string of the data, or a part of one."""

    __slots__ = ("expression", "session")

    def __init__(self, session: SymbolicRun, expression: Expression) -> None:
        self.session, self.expression = session, expression

    def __bool__(self) -> bool:
        return self.session.ask(("bool", self.expression))

    def __eq__(self, other: Any) -> bool:
        if type(other) in OPAQUE:
            raise Looked
        return isinstance(other, str) and self.session.ask(("==", self.expression, plain(other)))

    def __ne__(self, other: Any) -> bool:
        return not self == other

    __hash__ = Opaque._look

    def __contains__(self, part: str) -> bool:
        if type(part) in OPAQUE or not isinstance(part, str):
            raise Looked
        return self.session.ask(("in", self.expression, plain(part)))

    def __getitem__(self, key: Any) -> Hole:
        if type(key) is not slice:
            raise Looked
        return Hole(
            self.session, ("slice", self.expression, *_simple((key.start, key.stop, key.step)))
        )

    def called(self, name: str, args: tuple, options: dict) -> Any:
        """Returns the symbolic result of a string method of this name."""
        call = (
            "call",
            self.expression,
            name,
            _simple(args),
            tuple(zip(options, _simple(options.values()), strict=True)),
        )
        if name in ASKED:
            return self.session.ask(call)
        return Hole(self.session, call) if name in DERIVED else Parts(self.session, call)


class Parts(Opaque):
    """The symbolic result of a split."""

    __slots__ = ("expression", "session")

    def __init__(self, session: SymbolicRun, expression: Expression) -> None:
        self.session, self.expression = session, expression

    def __len__(self) -> int:
        return self.session.ask(("count", self.expression))

    def __getitem__(self, index: Any) -> Hole:
        if type(index) is not int:
            raise Looked
        # A split at a separator gives one part at least.
        if not (index in (0, -1) and self.expression[3]) and not -len(self) <= index < len(self):
            raise IndexError
        return Hole(self.session, ("item", self.expression, index))

    def __iter__(self) -> Iterator[Hole]:
        return (self[index] for index in range(len(self)))


class Sealed(Opaque):
    """A symbolic number or object, such as the schema of a tool or the arguments of a call."""

    __slots__ = ("expression", "kind", "session")

    def __init__(self, session: SymbolicRun, expression: Expression, kind: int) -> None:
        self.session, self.expression, self.kind = session, expression, kind

    def _open(self, *args: Any) -> Any:
        raise Opened if self.kind == MAPPING else Looked

    def __bool__(self) -> bool:
        return self.session.ask(("bool", self.expression))

    __iter__ = __getitem__ = __contains__ = __len__ = _open


class Text(Opaque):
    """A sequence of strings and symbolic strings.

    A symbolic string carries the mark of a trained region beside it; a string has it in itself.
    """

    __slots__ = ("parts", "session")

    def __init__(self, session: SymbolicRun, parts: list[tuple[Any, int]]) -> None:
        self.session, self.parts = session, parts

    def __bool__(self) -> bool:
        return any(bool(part) for part, _ in self.parts)

    def called(self, name: str, args: tuple, options: dict) -> Any:
        if name not in STRIPS or options:
            raise Looked
        parts = list(self.parts)
        for end, method in ((0, "lstrip"), (-1, "rstrip")):
            while parts and method in (name, "l" + name, "r" + name):
                part, flag = parts[end]
                part = (
                    part.called(method, args, {})
                    if type(part) is Hole
                    else getattr(part, method)(*_simple(args))
                )
                parts[end] = (part, flag)
                if part:
                    break
                del parts[end]
        return Text(self.session, parts)


class Method:
    """A method of a symbolic string, to be called."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: Hole | Text, name: str) -> None:
        self.owner, self.name = owner, name


class Output(str):
    """A symbolic string inside Jinja's output, which consists of strings; `concat` unwraps it."""

    __slots__ = ("value",)

    def __str__(self) -> str:
        return self


OPAQUE = frozenset((Hole, Parts, Sealed, Text))
WRITABLE = frozenset((Hole, Text))


def _simple(values: Any) -> tuple:
    """Returns the arguments that are constants of the template; raises Looked for others.

    Constants are numbers, strings, None, and tuples of strings.
    """
    out = []
    for value in values:
        if type(value) in OPAQUE or not isinstance(value, str | int | tuple | None):
            raise Looked
        out.append(
            _simple(value)
            if isinstance(value, tuple)
            else plain(value)
            if isinstance(value, str)
            else value
        )
    return tuple(out)


def reader(expression: Expression) -> Callable[[Sequence[Any]], Any]:
    """Returns a function from the data of a row to the value of an expression or question."""
    kind = expression[0]
    if kind == "data":
        return operator.itemgetter(expression[1])
    if kind == "json":
        _, given, (ensure_ascii, indent, separators, sort_keys) = expression
        dumps = functools.partial(
            json.dumps,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
        return lambda data: dumps(_thawed(given, data))
    steps = {
        "call": lambda: operator.methodcaller(expression[2], *expression[3], **dict(expression[4])),
        "item": lambda: operator.itemgetter(expression[2]),
        "slice": lambda: operator.itemgetter(slice(*expression[2:])),
        "bool": lambda: bool,
        "count": lambda: len,
        "==": lambda: expression[2].__eq__,
        "in": lambda: lambda text: expression[2] in text,
    }
    inner, step = reader(expression[1]), steps[kind]()
    return lambda data: step(inner(data))


def frozen(value: Any) -> tuple:
    """Returns nested data with symbolic values as something comparable."""
    if type(value) in (Hole, Sealed):
        return value.expression
    if type(value) in OPAQUE:
        raise Looked
    if isinstance(value, Mapping):
        return "mapping", tuple(
            (plain(key) if isinstance(key, str) else key, frozen(part))
            for key, part in value.items()
        )
    if isinstance(value, list | tuple):
        return "list", tuple(map(frozen, value))
    if not isinstance(value, str | int | float | None):
        raise Looked
    return "value", type(value).__name__, plain(value) if isinstance(value, str) else value


def _thawed(given: tuple, data: Sequence[Any]) -> Any:
    kind = given[0]
    if kind == "mapping":
        return {key: _thawed(part, data) for key, part in given[1]}
    if kind == "list":
        return [_thawed(part, data) for part in given[1]]
    return given[2] if kind == "value" else reader(given)(data)


def bases(expression: Expression) -> set[int]:
    """Returns the data numbers that occur in an expression, or in the result of `frozen`."""
    kind, inner = expression[:2]
    if kind in ("data", "value"):
        return {inner} if kind == "data" else set()
    parts = (
        [part for _, part in inner] if kind == "mapping" else inner if kind == "list" else [inner]
    )
    return set().union(*map(bases, parts))


def stripped(expression: Expression) -> int | None:
    """Returns the data number of an expression that only strips white space from it, else None."""
    while (
        expression[0] == "call"
        and expression[2] in STRIPS
        and all(part is None or not part.strip() for part in expression[3])
    ):
        expression = expression[1]
    return expression[1] if expression[0] == "data" else None


def holes_in(value: Any) -> set[int]:
    """Returns the data numbers that occur in nested data with symbolic values."""
    return bases(frozen(value))


class SymbolicRun:
    """One run on symbolic values.

    Attributes:
      asked: the answer to each question, in the order of their asking.
      places: the number of each hole that was written.
    """

    def __init__(self, data: Sequence[Any]) -> None:
        self.data = data
        self.asked: dict[tuple, Any] = {}
        self.places: dict[Expression, int] = {}

    def ask(self, question: tuple) -> Any:
        if question not in self.asked:
            self.asked[question] = reader(question)(self.data)
        return self.asked[question]

    def written(self, text: str | Text | Hole) -> Tracked:
        """Returns a text with one character for each symbolic string that is not empty."""
        out = []
        for part, flag in parts(text):
            if type(part) is Hole:
                if part:
                    place = self.places.setdefault(part.expression, len(self.places))
                    out.append(Tracked(chr(_FIRST + place), bytes([DATA | flag])))
            elif part and ord(max(plain(part))) >= _FIRST:
                raise Looked
            else:
                out.append(part)
        return join(out)

    def pieces(self, text: Tracked) -> list[str | Expression]:
        """Splits a text of `written` into strings and the expressions of symbolic strings."""
        expressions, out = list(self.places), []
        for letter in plain(text):
            if ord(letter) >= _FIRST:
                out.append(expressions[ord(letter) - _FIRST])
            elif out and isinstance(out[-1], str):
                out[-1] += letter
            else:
                out.append(letter)
        return out

    def sure(self, text: Tracked, other: Tracked, agreed: int) -> None:
        """Raises Looked if two texts that agree so far may, with the holes filled, agree
        further."""
        if any(
            ord(letter) >= _FIRST
            for letter in plain(text)[agreed : agreed + 1] + plain(other)[agreed : agreed + 1]
        ):
            raise Looked


def parts(value: Any) -> list[tuple[Any, int]]:
    if type(value) is Text:
        return value.parts
    if type(value) in OPAQUE and type(value) is not Hole:
        raise Looked
    return [(value, 0)]


def strings(value: Any) -> Iterator[str]:
    """Yields the strings inside nested data, keys too, without symbolic ones."""
    if type(value) in OPAQUE:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from strings(pair)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)
