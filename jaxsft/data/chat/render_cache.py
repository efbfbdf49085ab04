"""Cache of renders: a template runs once per kind of conversation, on symbolic values.

A render is slow, and most templates only put contents in their places. So a template runs on holes
in place of the strings of the data. A hole is no string and holds no characters: whatever would
look into it raises, but for three things that are written down as they happen,

    derived    what gives a part of it, such as strip, split or a slice: another hole
    asked      what is answered by yes, no or a number, such as its truth, `in`, `==` or startswith:
      the answer is that of the row at hand
    tojson     of holes and of what they stand in: another hole

Two rows of which all that was asked has the same answers therefore give the same text, but for what
is put into the holes. The questions form a tree; a row that finds its way to a leaf is never
rendered. Where a template does anything else, the row is rendered as it ever was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Undefined
from jinja2.runtime import Macro
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace

from jaxsft.data.chat import symbolic_values
from jaxsft.data.chat.provenance import DATA, Tracked, join, sources, track, trained
from jaxsft.data.chat.symbolic_values import (
    ASKED,
    DERIVED,
    OPAQUE,
    PARTS,
    STRIPS,
    WRITABLE,
    Looked,
    Method,
    Opened,
    Sealed,
    SymbolicOutput,
    SymbolicParts,
    SymbolicRun,
    SymbolicString,
    SymbolicText,
)
from jaxsft.data.chat.template_environment import Environment, given_options
from jaxsft.data.records import Chat, Message

PATHS = 64  # of one kind of conversation; what goes another way is rendered
KINDS = 1000  # of conversations
# Jinja's tests of what a value is, by the kind of hole: string, mapping, number.
_TESTS = {
    "defined": (True, True, True),
    "undefined": (False, False, False),
    "none": (False, False, False),
    "string": (True, False, False),
    "mapping": (False, True, False),
    "number": (False, False, True),
    "iterable": (True, True, False),
    "sequence": (True, True, False),
    "boolean": (False, False, False),
    "callable": (False, False, False),
}
_OF_TWO = ("eq", "equalto", "==", "ne", "!=", "in")


class Symbolic(Environment):
    """The same Jinja environment, on symbolic values."""

    def __init__(self, special: Any) -> None:
        super().__init__(special)
        filters, self.tests = (
            dict(self.filters),
            {name: self._tested(name, test) for name, test in self.tests.items()},
        )
        self.filters |= {
            "trim": lambda value, chars=None: (
                self._stripped(value, chars)
                if type(value) in WRITABLE
                else filters["trim"](value, chars)
            ),
            "string": lambda value: value if type(value) in WRITABLE else filters["string"](value),
            "default": self._default,
            "d": self._default,
        }

    def given(self, value: Any) -> Any:
        return value

    def run(self, template: Any, variables: dict[str, Any], where: str) -> Tracked:
        return self.state.session.written(super().run(template, variables, where))

    def trained(self, text: Any, flag: int) -> Any:
        if type(text) not in WRITABLE:
            return trained(text, flag)
        return SymbolicText(
            self.state.session,
            [
                (part, flag) if type(part) is SymbolicString else (trained(part, flag), 0)
                for part, _ in symbolic_values.parts(text)
            ],
        )

    # --- what Jinja calls
    # ----------------------------------------------------------------------------------------------
    def concat(self, pieces: Any) -> Any:
        """Joins strings as usual; with a symbolic string among them, returns a `SymbolicText`."""
        items = [piece.value if type(piece) is SymbolicOutput else piece for piece in pieces]
        if not any(type(item) in OPAQUE for item in items):
            return super().concat(items)
        self.spent.pay(1)
        parts = [part for item in items for part in symbolic_values.parts(item)]
        return (
            parts[0][0]
            if len(parts) == 1 and not parts[0][1]
            else SymbolicText(self.state.session, parts)
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) not in OPAQUE:
            return super().getattr(obj, attribute)
        if type(obj) is Sealed:
            obj._open()
        known = (
            STRIPS
            if type(obj) is SymbolicText
            else (*DERIVED, *PARTS, *ASKED)
            if type(obj) is SymbolicString
            else ()
        )
        if attribute not in known:
            raise Looked
        return Method(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if type(argument) in OPAQUE:
            raise Looked
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Any:
        return None if type(value) in OPAQUE else super().wrap_str_format(value)

    def call(self, context: Any, function: Any, /, *args: Any, **options: Any) -> Any:
        if type(function) is Method:
            self.spent.pay(1)
            return function.owner.called(function.name, args, given_options(options))
        if type(function) is Macro or function is Namespace:
            self.spent.pay(1)
            return SandboxedEnvironment.call(self, context, function, *args, **options)
        return super().call(context, function, *args, **options)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if type(left) not in OPAQUE and type(right) not in OPAQUE:
            return super().call_binop(context, operator, left, right)
        if operator != "+" or not all(
            type(value) in WRITABLE or (type(value) not in OPAQUE and isinstance(value, str))
            for value in (left, right)
        ):
            raise Looked
        return self.concat((left, right))

    # --- what the template's own functions become
    # -------------------------------------------------------------------------------------------
    def _kept(self, result: Any, given: Any) -> Any:
        return (
            result
            if type(result) in OPAQUE or type(result) is Method
            else super()._kept(result, given)
        )

    def _finalize(self, value: Any) -> Any:
        if type(value) not in WRITABLE:
            return super()._finalize(value)
        output = SymbolicOutput()
        output.value = value
        return output

    def _rebuilt(self, value: Any) -> Tracked:
        if type(value) in OPAQUE:
            raise Looked
        return super()._rebuilt(value)

    def _join(self, values: Any, d: Any = "", attribute: str | int | None = None) -> Any:
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        between, out = self._finalize(d), []
        for value in values:
            out += [between, self._finalize(value)] if out else [self._finalize(value)]
        return self.concat(out)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> Any:
        form = (
            bool(ensure_ascii),
            indent,
            tuple(separators) if separators else None,
            bool(sort_keys),
        )
        if not symbolic_values.bases(frozen := symbolic_values.frozen(value)):
            return super()._tojson(value, *form)
        if any(
            self.special.search(leaf) and set(sources(join((leaf,)), 0, len(leaf))) != {DATA}
            for leaf in symbolic_values.strings(value)
        ):
            raise Looked
        return SymbolicString(self.state.session, ("json", frozen, form))

    def _default(self, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
        missing = type(value) not in OPAQUE and isinstance(value, Undefined)
        return default_value if missing or (boolean and not value) else value

    @staticmethod
    def _stripped(value: SymbolicString | SymbolicText, chars: Any) -> Any:
        return value.called("strip", (chars,), {})

    @staticmethod
    def _tested(name: str, test: Callable) -> Callable:
        @functools.wraps(test)
        def tested(value: Any, *args: Any) -> bool:
            if type(value) not in OPAQUE or name in _OF_TWO:
                return test(value, *args)
            if name not in _TESTS or type(value) is SymbolicParts:
                raise Looked
            return _TESTS[name][value.kind]

        return tested


# --- conversations
# --------------------------------------------------------------------------------------------------
def _taken(value: Any, data: list[Any], sealed: bool, seal: bool = False) -> Any:
    """Returns the shape of nested data; appends its strings and numbers to `data`.

    Sealed objects are appended as a whole.
    """
    if isinstance(value, str):
        data.append(value)
        return "string"
    if isinstance(value, int | float) and not isinstance(value, bool) and sealed:
        data.append(value)
        return "number"
    if isinstance(value, int | float | None):
        return "value", (type(value).__name__, value)  # 1 and True are equal
    if isinstance(value, Mapping):
        if seal:
            data.append(value)
            return "sealed"
        return "mapping", tuple(
            (key, _taken(part, data, sealed, sealed and key == "arguments"))
            for key, part in value.items()
        )
    if isinstance(value, list | tuple):
        return "list", tuple(_taken(part, data, sealed, seal) for part in value)
    raise Looked


def kind_of(chat: Chat, sealed: bool) -> tuple[tuple, list[Any]]:
    """Returns the kind of a conversation and its data.

    Conversations of one kind may differ in symbolic values only.
    """
    data: list[Any] = [m.content for m in chat.messages]
    turns = tuple([(m.role, m.weight > 0) for m in chat.messages])
    if not chat.tools and not sum([len(m.extra) for m in chat.messages]):
        return turns, data
    extra = tuple(_taken(m.extra, data, sealed) for m in chat.messages)
    return (turns, extra, _taken(chat.tools, data, sealed, sealed)), data


def _holes(shape: Any, session: SymbolicRun, numbers: Iterator[int]) -> Any:
    """Builds nested data of a shape, with symbolic values."""
    if shape == "string":
        return SymbolicString(session, ("data", next(numbers)))
    if shape in ("number", "sealed"):
        return Sealed(
            session,
            ("data", next(numbers)),
            symbolic_values.NUMBER if shape == "number" else symbolic_values.MAPPING,
        )
    kind, inner = shape
    if kind == "value":
        return inner[1]
    if kind == "list":
        return [_holes(part, session, numbers) for part in inner]
    return {track(key): _holes(part, session, numbers) for key, part in inner}


def on_holes(chat: Chat, kind: tuple, session: SymbolicRun) -> Chat:
    """Returns the conversation with a symbolic value for each string of its data."""
    numbers = iter(range(len(session.data)))
    contents = [SymbolicString(session, ("data", next(numbers))) for _ in chat.messages]
    extras: list[Any] = [{}] * len(contents)
    tools: Any = ()
    if len(session.data) > len(contents) or chat.tools or any(m.extra for m in chat.messages):
        extras = [_holes(shape, session, numbers) for shape in kind[1]]
        tools = _holes(kind[2], session, numbers)
    messages = [
        Message(m.role, content, m.weight, extra)
        for m, content, extra in zip(chat.messages, contents, extras, strict=True)
    ]
    return Chat(tuple(messages), tuple(tools))


class _Question:
    """A node of the decision tree: the next question, and where each answer leads."""

    __slots__ = ("answers", "read")

    def __init__(self, question: tuple) -> None:
        self.read, self.answers = symbolic_values.reader(question), {}


class LayoutCache:
    """The layouts of one template, by kind of conversation and by the answers to its questions."""

    def __init__(
        self,
        special: Any,
        source: str,
        learn: Callable[[Chat, SymbolicRun], Any],
        given: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Compiles the template for symbolic values.

        `learn` makes the layout of a symbolic conversation; what it raises says that there
        is none. `given`: functions for the template.
        """
        self.environment = Symbolic(special)
        self.environment.globals |= given
        self.template = self.environment.compiled(source)
        self._learn, self._sealed = learn, True
        self._kinds: dict[tuple, Any] = {}
        self._paths: dict[tuple, int] = {}

    def find(self, chat: Chat) -> tuple[Any, list[Any]] | None:
        """Returns the layout of a conversation and its data; None where it must be rendered."""
        try:
            kind, data = kind_of(chat, self._sealed)
        except Looked:
            return None
        node = self._kinds.get(kind)
        while type(node) is _Question:
            node = node.answers.get(node.read(data))
        if node is None:
            if self._paths.get(kind, 0) >= PATHS or len(self._kinds) >= KINDS:
                return None
            try:
                node = self._learnt(chat, kind, data)
            except Opened:  # this template looks into objects: from now on they are given open
                self._sealed, self._kinds, self._paths = False, {}, {}
                return self.find(chat)
        return (node, data) if node else None

    def _learnt(self, chat: Chat, kind: tuple, data: list[Any]) -> Any:
        session = self.environment.state.session = SymbolicRun(data)
        try:
            layout = self._learn(on_holes(chat, kind, session), session)
        except Opened:
            raise
        except (Looked, Exception):
            layout = False
        holder, key = self._kinds, kind
        for question, answer in session.asked.items():
            node = holder.setdefault(key, _Question(question))
            holder, key = node.answers, answer
        holder[key] = layout
        self._paths[kind] = self._paths.get(kind, 0) + 1
        return layout
