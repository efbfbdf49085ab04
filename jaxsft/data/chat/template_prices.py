"""What the operations of a template cost: filters, operators, methods, and the template itself.

Each is charged to the budget of its render (`template_budget`) before it runs.
"""

from __future__ import annotations

import math
import operator
import re
import string
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Macro, Undefined
from jinja2.sandbox import SecurityError

from jaxsft.data.chat.template_budget import (
    BITS,
    ITEM,
    LARGEST,
    STEP,
    Spent,
    check_numbers,
    length_of,
    number_of,
    size_of,
    width_of,
)

NODES = 20_000  # of its syntax tree
COMPARE = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}
_LINES = ("\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
Cost = Callable[..., None]


# --- filters: from their arguments
# --------------------------------------------------------------------------------------------------
def _shallow(spent: Spent, *args: Any, **options: Any) -> None:
    spent.pay(1)


def _text(times: float = 1) -> Cost:
    """Returns the cost of writing the arguments as text, times a number."""

    def cost(spent: Spent, *args: Any, **options: Any) -> None:
        for value in (*args, *options.values()):
            size = size_of(value)
            spent.make(size.chars * times, size.width)

    return cost


def _items(spent: Spent, value: Any = (), *args: Any, **options: Any) -> None:
    count = length_of(value)
    spent.make(count if issubclass(type(value), str) else 0, 4, count)


def _sorted(spent: Spent, value: Any = (), *args: Any, **options: Any) -> None:
    size = size_of(value)
    spent.pay(1 + size.steps * (1 + int(math.log2(1 + length_of(value)))), length_of(value) * ITEM)


def _replace(spent: Spent, text: Any, old: Any = "", new: Any = "", count: Any = None) -> None:
    if not all(issubclass(type(part), str) for part in (text, old, new)):
        return _text(2)(spent, text, old, new)
    spent.touch(text)
    times = str.count(text, old)
    spent.make(len(text) + times * len(new), max(width_of(text), width_of(new)), times)
    spent.pay(4 * times)  # as of a split


def _join(spent: Spent, values: Any, d: Any = "", attribute: Any = None) -> None:
    size, between = size_of(values), size_of(d)
    spent.make(
        size.chars + between.chars * length_of(values), max(size.width, between.width), size.items
    )


def _padded(spent: Spent, text: Any, width: Any = 80, *args: Any) -> None:
    size = size_of(text)
    spent.make(size.chars + number_of(width), size.width)


def _indent(spent: Spent, text: Any, width: Any = 4, *args: Any, **options: Any) -> None:
    size, width = size_of(text), options.get("width", width)
    lines = sum(str.count(text, mark) for mark in _LINES) if issubclass(type(text), str) else 1
    spent.make(
        size.chars
        + (lines + 1) * (len(width) if issubclass(type(width), str) else number_of(width)),
        size.width,
        lines,
    )


def _tojson(
    spent: Spent,
    value: Any,
    ensure_ascii: Any = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: Any = False,
) -> None:
    size = size_of(value)
    space = len(indent) if issubclass(type(indent), str) else number_of(indent)
    between = (
        sum(length_of(part) for part in separators)
        if issubclass(type(separators), list | tuple)
        else 2
    )
    chars = size.chars * (6 if ensure_ascii else 2) + size.items * (
        1 + between + space * size.depth
    )
    spent.pay(size.items + chars // 10)  # a writer of JSON is slower than a copy
    spent.make(chars, size.width)


def _parts(spent: Spent, value: Any, count: Any = 1, *args: Any, **options: Any) -> None:
    check_numbers(count)
    spent.make(0, 1, length_of(value) + number_of(count))


def _wrapped(
    spent: Spent,
    text: Any,
    width: Any = 79,
    break_long_words: Any = True,
    wrapstring: Any = None,
    break_on_hyphens: Any = True,
) -> None:
    size = size_of(text)
    lines = (
        size.chars // max(1, number_of(width)) + sum(str.count(text, mark) for mark in _LINES) + 1
        if issubclass(type(text), str)
        else 1
    )
    # textwrap goes through a text many times, and copies the rest of a long word for each line
    spent.pay(size.chars + size.chars * lines // 1000)
    spent.make(
        size.chars + lines * (1 + length_of(wrapstring or "")) * (2 if width else 1),
        4,
        size.chars / 2,
    )


def _format(spent: Spent, form: Any, *args: Any, **options: Any) -> None:
    """Charges for `%`: each directive writes at most the largest argument, or its field width."""
    text = str.__str__(form) if issubclass(type(form), str) else ""
    sizes = [size_of(value) for value in (*args, *options.values())]
    numbers = [int(digits) for digits in re.findall(r"\d{1,9}", text)] if "%" in text else []
    widest = max(
        [*numbers, *(number_of(value) for value in args), *(size.chars for size in sizes), 0]
    )
    if widest > 10 * LARGEST and numbers and max(numbers) > LARGEST:
        raise SecurityError("a format string asks for too wide a field")
    spent.make(len(text) + (text.count("%") + 1) * (widest + 30), 4)


def _summed(spent: Spent, value: Any = (), attribute: Any = None, start: Any = 0) -> None:
    size = size_of(value)
    spent.pay(1 + size.steps)
    if not issubclass(type(start), int | float):
        raise SecurityError("the template sums what is no number")


def _rounded(spent: Spent, value: Any, precision: Any = 0, *args: Any) -> None:
    spent.pay(1)
    if number_of(precision) > 100:
        raise SecurityError("the template rounds to more than 100 digits")


FILTERS: dict[str, Cost] = {
    **dict.fromkeys(
        ("default", "d", "first", "last", "length", "count", "abs", "attr", "items", "safe"),
        _shallow,
    ),
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr"), _shallow),
    **dict.fromkeys(("trim", "string", "int", "float"), _text()),
    **dict.fromkeys(("upper", "lower", "title", "capitalize"), _text(3)),
    **dict.fromkeys(("escape", "e", "forceescape"), _text(6)),
    **dict.fromkeys(("list", "reverse"), _items),
    **dict.fromkeys(("sort", "dictsort", "unique", "groupby", "min", "max"), _sorted),
    "truncate": _text(),
    "wordcount": _text(10),
    "replace": _replace,
    "join": _join,
    "center": _padded,
    "indent": _indent,
    "tojson": _tojson,
    "batch": _parts,
    "slice": _parts,
    "wordwrap": _wrapped,
    "format": _format,
    "sum": _summed,
    "round": _rounded,
}
# each item is paid for when it is asked for
LAZY = frozenset(("map", "select", "reject", "selectattr", "rejectattr"))
DEEP_TESTS = frozenset(
    (
        "eq",
        "equalto",
        "==",
        "ne",
        "!=",
        "lt",
        "lessthan",
        "<",
        "le",
        "<=",
        "gt",
        "greaterthan",
        ">",
        "ge",
        ">=",
        "in",
    )
)


def guarded_test(spent: Spent, name: str, test: Callable) -> Callable:
    """Wraps a test of Jinja so that it is charged for what it compares."""

    def tested(value: Any, *args: Any) -> Any:
        pay_comparison(spent, "in" if name == "in" else "eq", value, args[0] if args else None)
        return test(value, *args)

    return tested if name in DEEP_TESTS else test


# --- operators
# --------------------------------------------------------------------------------------------------
def pay_comparison(spent: Spent, name: str, left: Any, right: Any) -> None:
    """Charges for a comparison.

    A text in a text, or a value among others, looks at all of the right one; of two texts that
    are compared the shorter one counts.
    """
    if issubclass(type(left), str) and issubclass(type(right), str):
        spent.pay(1 + (len(right) if "in" in name else min(len(left), len(right))) // STEP)
    elif "in" in name and issubclass(type(right), Mapping | range):
        spent.touch(left)
    elif "in" in name:
        spent.touch(left, right)
    else:
        spent.pay(1 + min(size_of(left).steps, size_of(right).steps))


def pay_operator(spent: Spent, name: str, left: Any, right: Any) -> None:
    """Charges for operators that can grow something without bound, and `%`.

    Raises SecurityError for too large a result.
    """
    kinds = (type(left), type(right))
    if all(issubclass(kind, int) for kind in kinds):
        bits = left.bit_length(), right.bit_length()
        most = max(bits) + 1 if name in ("+", "-") else sum(bits) if name == "*" else max(bits)
        if most > BITS or (name == "**" and bits[0] * min(abs(right), BITS + 1) > BITS):
            raise SecurityError(f"the operator {name} is given too large an operand")
        spent.pay(1)
    elif name == "%" and issubclass(kinds[0], str):
        args = right if issubclass(kinds[1], tuple) else (right,)
        check_numbers(*args)
        _format(spent, left, *args)
    elif name == "*":
        value, times = (left, right) if not issubclass(kinds[0], int | float) else (right, left)
        count = abs(int(times)) if issubclass(type(times), int) else 1
        if length_of(value) * count > 10 * LARGEST:
            raise SecurityError("the operator * is given too large an operand")
        if issubclass(type(value), str):
            spent.make(len(value) * count, width_of(value))
        else:
            spent.make(0, 1, length_of(value) * count)
    elif all(issubclass(kind, str) for kind in kinds):
        spent.make(len(left) + len(right), max(width_of(left), width_of(right)))
    else:
        spent.make(0, 1, length_of(left) + length_of(right))


def pay_slice(spent: Spent, value: Any, key: slice) -> None:
    """Charges for a slice of a text or list."""
    try:
        count = len(range(*key.indices(length_of(value))))
    except (TypeError, ValueError):
        count = length_of(value)
    if issubclass(type(value), str):
        return spent.make(count, width_of(value))
    return spent.make(0, 1, count)


# --- methods
# --------------------------------------------------------------------------------------------------
def _split(spent: Spent, text: str, sep: Any = None, maxsplit: Any = -1) -> None:
    spent.touch(text)
    count = str.count(text, sep) + 1 if issubclass(type(sep), str) and sep else len(text) // 2 + 1
    count = min(count, maxsplit + 1) if issubclass(type(maxsplit), int) and maxsplit >= 0 else count
    spent.make(len(text), width_of(text), count)
    spent.pay(4 * count)  # each part is found again, with its marks


def _split_lines(spent: Spent, text: str, *args: Any, **options: Any) -> None:
    spent.touch(text)
    spent.make(2 * len(text), width_of(text), 1 + sum(str.count(text, mark) for mark in _LINES))


def _expand(spent: Spent, text: str, tabsize: Any = 8) -> None:
    spent.touch(text)
    spent.make(len(text) + str.count(text, "\t") * number_of(tabsize), width_of(text))


def _formatted(spent: Spent, text: str, *args: Any, **options: Any) -> None:
    """Charges for `str.format`: each field writes at most the largest argument, or its width."""
    widest, fields = (
        max((size_of(value).chars for value in (*args, *options.values())), default=0),
        0,
    )
    try:
        for _, field, form, _ in string.Formatter().parse(text):
            fields += field is not None
            if form and "{" in form:
                raise SecurityError(
                    "the width of a format string stands in another field; write it as a number"
                )
            if form and (digits := re.findall(r"\d+", form)):
                if max(map(len, digits)) > 5:
                    raise SecurityError("a format string asks for too wide a field")
                widest = max(widest, *map(int, digits))
    except ValueError:
        pass  # Python says what is wrong with it
    spent.make(len(text) + fields * (widest + 30), 4)


def _touched(spent: Spent, value: Any, *args: Any, **options: Any) -> None:
    spent.touch(value, *args)


_COPY = ("strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "partition", "rpartition")
_ASK = (
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
)
STRING: dict[str, Cost] = {
    **dict.fromkeys(_COPY, _text()),
    **dict.fromkeys(("upper", "lower", "title", "capitalize", "casefold", "swapcase"), _text(3)),
    **dict.fromkeys((*_ASK, "isprintable", "isspace", "istitle", "isupper"), _touched),
    **dict.fromkeys(("startswith", "endswith"), lambda spent, text, *args: spent.touch(*args)),
    **dict.fromkeys(("split", "rsplit"), _split),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padded),
    **dict.fromkeys(("format", "format_map"), _formatted),
    "splitlines": _split_lines,
    "expandtabs": _expand,
    "replace": _replace,
    "join": lambda spent, text, values=(): _join(spent, values, text),
}
METHODS: dict[type, dict[str, Cost]] = {
    str: STRING,
    list: {"index": _touched, "count": _touched, "copy": _items},
    tuple: {"index": _touched, "count": _touched},
    dict: {
        "get": lambda spent, value, *args: spent.touch(*args[:1]),
        "items": _shallow,
        "keys": _shallow,
        "values": _shallow,
        "copy": _items,
    },
    float: {"is_integer": _shallow},
}
_FREE = (Macro, Undefined)  # what they are given, their bodies pay for


def pay_call(
    spent: Spent, function: Any, owner: Any, args: tuple, options: Mapping[str, Any]
) -> None:
    """Charges for a call.

    A method of a text, list or dict must be one of those above. Raises SecurityError.
    """
    check_numbers(*args, *options.values())
    for base in (str, list, tuple, dict, int, float, range, set, frozenset, bytes):
        if issubclass(type(owner), base) or owner is base:
            name = getattr(function, "__name__", "")
            cost = METHODS.get(base, {}).get(name) if owner is not base else None
            if cost is None:
                raise SecurityError(
                    f"the template calls the method {name!r} of a {base.__name__}, which is not"
                    " offered"
                )
            return cost(spent, owner, *args, **options)
    if type(function) is BuiltinFunctionType:  # a static method of Python's own types
        raise SecurityError(f"the template calls {function.__name__!r}, which is not offered")
    if type(function) in _FREE:
        return spent.pay(20)  # slower than an iteration
    return spent.touch(*args, *options.values())


# --- the template
# --------------------------------------------------------------------------------------------------
def instrument(tree: nodes.Template) -> None:
    """Makes comparisons, slices, loops and macros of a template charge for what they do.

    Raises SecurityError for what is not offered.
    """
    for count, node in enumerate(tree.find_all(nodes.Node)):
        if count > NODES:
            raise SecurityError(f"it has more than {NODES:,} parts")
        if (
            isinstance(node, nodes.Filter)
            and node.name not in FILTERS
            and not node.name.startswith("_")
        ):
            raise SecurityError(
                f"the filter {node.name!r} is not offered; write it with others, of which there are"
                f" {', '.join(sorted(FILTERS))}"
            )
    for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock))):
        weight = 1 + sum(1 for child in node.body for _ in child.find_all(nodes.Node)) // 4
        node.body.insert(
            0,
            nodes.ExprStmt(
                _filter(nodes.Const(None), "_pay", [nodes.Const(weight)], node.lineno),
                lineno=node.lineno,
            ),
        )
        if isinstance(node, nodes.For):
            node.iter = _filter(node.iter, "_counted", [], node.lineno)
    _rewrite(tree)


def _filter(value: nodes.Expr, name: str, args: list[nodes.Expr], line: int) -> nodes.Filter:
    return nodes.Filter(value, name, args, [], None, None, lineno=line)


def _rewrite(node: nodes.Node) -> None:
    """Rewrites each `a ~ b`, comparison and slice as a filter.

    Of `~` Jinja's own operator makes plain strings.
    """
    for field, value in node.iter_fields():
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _rewrite(child)
            child = _rewritten(child)
            if isinstance(value, list):
                value[index] = child
            else:
                setattr(node, field, child)


def _rewritten(node: nodes.Node) -> nodes.Node:
    line = node.lineno
    if isinstance(node, nodes.Concat):
        first, *rest = node.nodes
        return _filter(first, "_concat", rest, line)
    if isinstance(node, nodes.Compare):
        left, parts = node.expr, []
        for operand in node.ops:
            parts.append(_filter(left, "_compared", [nodes.Const(operand.op), operand.expr], line))
            left = operand.expr
        whole = parts[0]
        for part in parts[1:]:
            whole = nodes.And(whole, part, lineno=line)
        return whole
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        nothing = nodes.Const(None, lineno=line)
        key = [
            part if part is not None else nothing
            for part in (node.arg.start, node.arg.stop, node.arg.step)
        ]
        return _filter(node.node, "_sliced", key, line)
    return node
