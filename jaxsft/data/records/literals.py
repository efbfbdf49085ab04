"""Lists as Python prints them, `['joy', "don't"]`: what pandas writes into a cell of CSV. Read by
hand: nothing of a file is ever evaluated.
"""

from __future__ import annotations

import re
from typing import Any

DEEPEST = 20
CONSTANTS = {"None": None, "True": True, "False": False, "nan": None}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "'": "'", '"': '"', "\\": "\\"}
_space = re.compile(r"\s*")
_text = re.compile(r"'((?:[^'\\\n]++|\\.)*+)'|\"((?:[^\"\\\n]++|\\.)*+)\"", re.DOTALL)
_escape = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_number = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_word = re.compile(r"[A-Za-z]+")
ENDS = {"[": "]", "(": ")", "{": "}"}


def read(content: str) -> Any:
    """Reads the value that a text spells in Python's syntax.

    Lists, tuples (as lists), dicts with texts as keys, texts, numbers, None, True and False are
    read.

    Raises:
      ValueError: it spells something else; the message says where.
    """
    value, at = _value(content, _skip(content, 0), 0)
    if (at := _skip(content, at)) < len(content):
        raise ValueError(f"found {content[at : at + 20]!r} behind the value")
    return value


def _skip(content: str, at: int) -> int:
    return _space.match(content, at).end()


def _value(content: str, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    sign = content[at : at + 1]
    if sign in ("[", "("):
        return _items(content, at, depth)
    if sign == "{":
        return _dict(content, at, depth)
    if found := _text.match(content, at):
        if _text.match(content, _skip(content, found.end())):
            raise ValueError(
                f"found two texts without a comma between them at {content[at : at + 20]!r}; write"
                " the list as JSON"
            )
        return _escape.sub(_unescaped, found[1] if found[1] is not None else found[2]), found.end()
    if found := _number.match(content, at):
        return (
            int(found[0]) if re.fullmatch(r"[+-]?[0-9]{1,18}", found[0]) else float(found[0])
        ), found.end()
    if (found := _word.match(content, at)) and found[0] in CONSTANTS:
        return CONSTANTS[found[0]], found.end()
    raise ValueError(
        f"found {sign or 'its end'!r} at place {at + 1}, expected a list of texts or numbers"
    )


def _items(content: str, at: int, depth: int) -> tuple[list[Any], int]:
    end, items = ENDS[content[at]], []
    at = _skip(content, at + 1)
    while not content.startswith(end, at):
        value, at = _value(content, at, depth + 1)
        items.append(value)
        at = _comma(content, at, end)
    return items, at + 1


def _dict(content: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    out: dict[str, Any] = {}
    at = _skip(content, at + 1)
    while not content.startswith("}", at):
        key, at = _value(content, at, depth + 1)
        if (
            not isinstance(key, str)
            or key in out
            or not content.startswith(":", at := _skip(content, at))
        ):
            raise ValueError(
                f"found the key {str(key)[:20]!r}, expected a text that occurs once, and a colon"
            )
        out[key], at = _value(content, _skip(content, at + 1), depth + 1)
        at = _comma(content, at, "}")
    return out, at + 1


def _comma(content: str, at: int, end: str) -> int:
    """Returns the place behind a comma, or that of the end of the list. Raises ValueError."""
    at = _skip(content, at)
    if content.startswith(",", at):
        return _skip(content, at + 1)
    if not content.startswith(end, at):
        raise ValueError(
            f"found {content[at : at + 1] or 'its end'!r} at place {at + 1}, expected a comma or"
            f" {end!r}"
        )
    return at


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    if len(sign) > 1:
        return chr(int(sign[1:], 16)) if int(sign[1:], 16) < 0x110000 else found[0]
    return ESCAPES.get(sign, found[0])
