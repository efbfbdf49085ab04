"""The text of a compiled program (XLA's HLO): its computations and instructions, and how often each
is run.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BYTES = {"pred": 1, "token": 0, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5}
_SHAPE = re.compile(r"([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)')


class Shape(NamedTuple):
    """An array of an instruction; `layout` names where it lies."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def bytes(self) -> float:
        """Returns its size."""
        width = re.search(r"\d+", self.dtype)
        each = BYTES.get(self.dtype, int(width[0]) / 8 if width else 0)
        return each * math.prod(self.dims)

    @property
    def hbm_bytes(self) -> float:
        """Returns its size in the main memory of the device: 0 where it lies on the chip."""
        return 0 if re.search(r"S\([12]\)", self.layout) else self.bytes


class Instruction(NamedTuple):
    """One line: `name = shapes op(operands), attributes`."""

    name: str
    shapes: tuple[Shape, ...]
    op: str
    operands: tuple[str, ...]
    text: str  # of operands and attributes

    @property
    def label(self) -> str:
        """Returns the path of named scopes that it comes from; "" where it has none."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""

    def attribute(self, pattern: str) -> str | None:
        """Returns the group of a pattern in its text, None where it does not match."""
        found = re.search(pattern, self.text)
        return found[1] if found else None


Computations = Mapping[str, list[Instruction]]


class CompiledText(NamedTuple):
    """A parsed program.

    Attributes:
      computations: by name. entry: the name of the first.
      runs: how often each computation is run, by name. fused: those inside one kernel.
      unknown: loops whose trip count the text does not tell, counted once.
    """

    computations: Computations
    entry: str
    runs: Mapping[str, int]
    fused: frozenset[str]
    unknown: int

    def instructions(self) -> Iterator[tuple[str, int, Instruction]]:
        """Yields (computation, times it is run, instruction)."""
        for name, times in self.runs.items():
            for instruction in self.computations.get(name, ()):
                yield name, times, instruction


def shapes(text: str) -> tuple[Shape, ...]:
    """Returns the arrays of a type, of which a tuple has several."""
    return tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n), layout or "")
        for dtype, dims, layout in _SHAPE.findall(text)
    )


def parse(text: str) -> CompiledText:
    """Parses the text. Raises ValueError where it has no entry."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        if line[:1] not in ("", " ", "}") and line.rstrip().endswith("{") and "->" in line:
            name = line.removeprefix("ENTRY").split()[0].lstrip("%").split("(")[0]
            current = computations.setdefault(name, [])
            entry = name if line.startswith("ENTRY") else entry
        elif line.rstrip() == "}":
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_instruction(*match.groups()))
    if not entry:
        raise ValueError("the text of the compiled program has no entry")
    runs, fused, unknown = _runs(computations, entry)
    return CompiledText(computations, entry, runs, frozenset(fused), unknown)


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].strip()
    op = re.match(r"[\w\-]+", rest)
    opening = rest.find("(")
    inside = rest[opening : opening + _closing(rest[opening:]) + 1] if opening >= 0 else ""
    names = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, shapes(kind), op[0] if op else "?", names, rest)


def _closing(text: str) -> int:
    """Returns the place of the bracket that closes the first one."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return at
    return len(text) - 1


def _runs(computations: Computations, entry: str) -> tuple[collections.Counter, set[str], int]:
    """Returns (times that each computation is run, those inside kernels, loops of unknown length).

    Both branches of a condition are counted: an upper bound.
    """
    runs: collections.Counter[str] = collections.Counter()
    fused: set[str] = set()
    unknown = 0
    waiting = [(entry, 1, False)]
    while waiting:
        name, times, inside = waiting.pop()
        runs[name] += times
        if inside:
            fused.add(name)
        for one in computations.get(name, ()):
            if one.op == "while":
                trips = _trips(computations, one)
                unknown += trips is None
                body = one.attribute(r"body=%?([\w.\-]+)") or ""
                waiting.append((body, times * (trips or 1), inside))
            elif one.op == "conditional":
                for listed, single in _BRANCHES.findall(one.text):
                    branches = re.findall(r"[\w.\-]+", listed or single)
                    waiting += [(branch, times, inside) for branch in branches]
            elif one.op == "fusion":
                waiting.append((one.attribute(r"calls=%?([\w.\-]+)") or "", times, True))
            elif one.op in ("call", "async-start"):
                called = one.attribute(r"(?:calls|to_apply)=%?([\w.\-]+)")
                waiting.append((called or "", times, inside))
    return runs, fused, unknown


def _trips(computations: Computations, loop: Instruction) -> int | None:
    """Returns how often a loop runs: as the text says, or the constant of its condition."""
    if known := loop.attribute(_TRIPS.pattern):
        return int(known)
    waiting, numbers = [loop.attribute(r"condition=%?([\w.\-]+)") or ""], []
    while waiting:
        for one in computations.get(waiting.pop(), ()):
            constant = re.match(r"constant\((\d+)\)", one.text)
            if constant and one.shapes[:1] and one.shapes[0].dtype in ("s32", "u32", "s64"):
                numbers.append(int(constant[1]))
            waiting += _CALLED.findall(one.text) if one.op in ("fusion", "call") else []
    return max(numbers, default=None)
