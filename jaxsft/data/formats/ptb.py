"""The Penn Treebank's two layouts: bracketed trees (.mrg) and tagged text (.pos).

Source: Marcus et al. 1993, and the treebank's README files.

Trees nest as deep as they like: nothing here calls itself.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from jaxsft.config.option import option
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError

ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
# what follows the bracket that begins a sentence, and stands nowhere else
TOPS = ("(", "TOP", "ROOT", "S1", "VROOT")
# tags that may still belong to a sentence behind its full stop
CLOSING = ("''", '"', "-RRB-", ")", "-RCB-", "-RSB-")
_sign = re.compile(r"[()]|[^\s()]+")
_function = re.compile(r"(?<=[^-=|])[-=|].*", re.DOTALL)  # NP-SBJ-1, NP=2, ADVP|PRT


@dataclasses.dataclass(frozen=True, slots=True)
class TreeOptions:
    functions: str = option("keep", "keep | strip: NP-SBJ-1 as NP")
    traces: str = option(
        "keep", "keep | drop: leaves tagged -NONE-, and constituents that hold nothing else"
    )
    escapes: str = option(
        "keep", "keep | unescape: the tokens -LRB- as (, \\/ as / and \\* as *; the tree keeps them"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedOptions:
    sentence: str = option(
        "stop",
        "stop | paragraph: a sentence ends behind a token tagged `.` too, or only at ==== and empty"
        " lines",
    )
    escapes: str = option(
        "keep", "keep | unescape: the tokens -LRB- as (, \\* as *; \\/ is / in any case"
    )


@dataclasses.dataclass(slots=True)
class Node:
    """A constituent with `children`, or a leaf with a `word`."""

    label: str
    line: int
    children: list[Node] = dataclasses.field(default_factory=list)
    word: str | None = None


def read(source: Source, encoding: str, options: TreeOptions) -> Numbered:
    """Reads one row per tree: `tree` in one line, `tokens` and `pos` of its leaves, and `spans`.

    `spans` are [start, end, label] of its constituents, a parent before its children; the
    nameless bracket around a sentence is none. A tree whose brackets do not close, or that
    holds text outside of leaves, is Bad.

    Raises:
      ConfigError: an option has a value that does not exist.
    """
    _known(
        options,
        {
            "functions": ("keep", "strip"),
            "traces": ("keep", "drop"),
            "escapes": ("keep", "unescape"),
        },
    )
    for begin, signs in _trees(source, encoding):
        if isinstance(signs, Bad):
            yield signs
            continue
        root = _parsed(signs)
        if isinstance(root, Bad):
            yield root
            continue
        if options.traces == "drop" and not _without_traces(root):
            yield Bad(
                begin, "the tree holds traces only; data.options.traces=keep takes it as it is"
            )
            continue
        yield begin, _fields(root, options)


def _known(options: Any, choices: dict[str, tuple[str, ...]]) -> None:
    for name, known in choices.items():
        if (value := getattr(options, name)) not in known:
            raise ConfigError(
                f"data.options.{name}={value!r} is unknown; expected one of {', '.join(known)}"
            )


def _trees(source: Source, encoding: str) -> Iterator[tuple[int, list[tuple[str, int]] | Bad]]:
    """Yields the signs of each tree with their lines.

    A tree that is never closed ends where a line begins another one.
    """
    signs: list[tuple[str, int]] = []
    depth, broken, blank = 0, None, False
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            if signs:
                broken = broken or found
            else:
                yield found.line, found
            continue
        number, line = found
        if not line.strip() or line.startswith("*x*"):  # the banner of the treebank's files
            blank = True
            continue
        here = _sign.findall(line)
        if depth and line.startswith("(") and (blank or (len(here) > 1 and here[1] in TOPS)):
            begin = signs[0][1]
            yield (
                begin,
                broken
                or Bad(
                    begin,
                    f"{depth} brackets of the tree are not closed before line {number}, where"
                    " another begins",
                ),
            )
            signs, depth, broken = [], 0, None
        blank = False
        outside = False
        for sign in here:
            if not depth and sign != "(":
                outside = True
                continue
            signs.append((sign, number))
            depth += (sign == "(") - (sign == ")")
            if not depth:
                yield signs[0][1], broken or signs
                signs, broken = [], None
        if outside:
            yield (
                number,
                Bad(
                    number,
                    f"found {line.strip()[:40]!r}, of which a part is in no bracket; expected trees"
                    " such as ( (S (NP (NN x))))",
                ),
            )
    if signs:
        yield (
            signs[0][1],
            broken
            or Bad(
                signs[0][1], f"{depth} brackets of the tree are not closed at the end of the file"
            ),
        )


def _parsed(signs: list[tuple[str, int]]) -> Node | Bad:
    stack: list[Node] = []
    for i, (sign, line) in enumerate(signs):
        if sign == "(":
            after = signs[i + 1][0]
            node = Node(after if after not in "()" else "", line)
            if stack:
                if stack[-1].word is not None:
                    return Bad(
                        line,
                        f"found a bracket behind the word {stack[-1].word[:40]!r}, expected the end"
                        " of its leaf",
                    )
                stack[-1].children.append(node)
            stack.append(node)
        elif sign == ")":
            node = stack.pop()
            if node.word is None and not node.children:
                return Bad(
                    line,
                    f"found ({node.label[:40]}), a bracket without a word, expected a leaf such as"
                    " (NN word)",
                )
            if not stack:
                return (
                    node
                    if node.children
                    else Bad(
                        line,
                        f"found the leaf ({node.label[:40]} {node.word[:40]}) by itself, expected a"
                        " tree",
                    )
                )
        elif signs[i - 1][0] != "(":
            node = stack[-1]
            if node.children or node.word is not None:
                return Bad(
                    line,
                    f"found the word {sign[:40]!r} in ({node.label[:40]}, expected one word in a"
                    " leaf of its own such as (NN word)",
                )
            node.word = sign
    raise AssertionError("the signs of a tree are balanced")


def _without_traces(root: Node) -> bool:
    """Removes leaves tagged -NONE- and what is empty then; returns whether anything is left."""
    order = list(_nodes(root))
    for node in reversed(order):
        node.children = [
            child
            for child in node.children
            if child.children or (child.word is not None and child.label != "-NONE-")
        ]
    return bool(root.children)


def _nodes(root: Node) -> Iterator[Node]:
    """Yields all nodes, a parent before its children, from left to right."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _fields(root: Node, options: TreeOptions) -> dict[str, Any]:
    tokens: list[str] = []
    pos: list[str] = []
    spans: list[list[Any]] = []
    text: list[str] = []
    stack: list[tuple[Node, list[Any]] | list[Any] | Node] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, list):  # the span of a constituent whose children are done
            node[1] = len(tokens)
            text.append(")")
        elif node.word is not None:
            text.append(f" ({node.label} {node.word})")
            tokens.append(_unescaped(node.word) if options.escapes == "unescape" else node.word)
            pos.append(node.label)
        else:
            label = _function.sub("", node.label) if options.functions == "strip" else node.label
            span = [len(tokens), 0, label]
            if label:
                spans.append(span)
            text.append(f" ({label}")
            stack += [span, *reversed(node.children)]
    return {"tree": "".join(text)[1:], "tokens": tokens, "pos": pos, "spans": spans}


def _unescaped(word: str) -> str:
    return ESCAPES.get(word) or word.replace("\\/", "/").replace("\\*", "*")


# --- tagged text
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(slots=True)
class _OpenTagged:
    """The sentence that is being read."""

    line: int = 0
    tokens: list[str] = dataclasses.field(default_factory=list)
    pos: list[str] = dataclasses.field(default_factory=list)
    spans: list[list[Any]] = dataclasses.field(default_factory=list)
    bracket: int | None = None  # the token that the open bracket begins with
    broken: Bad | None = None

    def done(self) -> tuple[int, dict[str, Any]] | Bad | None:
        if self.broken is None and self.bracket is not None:
            self.broken = Bad(
                self.line,
                f"the bracket [ before token {self.bracket + 1} of the sentence is not closed",
            )
        fields = {"tokens": self.tokens, "pos": self.pos, "spans": self.spans}
        return self.broken or ((self.line, fields) if self.tokens else None)


def read_tagged(source: Source, encoding: str, options: TaggedOptions) -> Numbered:
    """Reads one row per sentence: `tokens`, `pos`, and `spans` of the bracketed noun phrases.

    A span is [start, end, "NP"]. A word without a tag, or a bracket that does not close, makes
    its sentence Bad.

    Raises:
      ConfigError: an option has a value that does not exist.
    """
    _known(options, {"sentence": ("stop", "paragraph"), "escapes": ("keep", "unescape")})
    now = _OpenTagged()
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            now.broken, now.line = now.broken or found, now.line or found.line
            continue
        number, line = found
        if line.startswith("*x*"):
            continue
        if not line.strip() or not line.strip().strip("="):
            if (row := now.done()) is not None:
                yield row
            now = _OpenTagged()
            continue
        for part in line.split():
            stopped = (
                options.sentence == "stop"
                and now.bracket is None
                and "." in now.pos[-4:]
                and now.broken is None
            )
            if stopped and part != "]" and not _closes(now.pos, part):
                yield now.done()
                now = _OpenTagged()
            now.line = now.line or number
            _add(now, part, number, options)
    if (row := now.done()) is not None:
        yield row


def _closes(pos: list[str], part: str) -> bool:
    """Returns whether a part still belongs to the sentence that has had its full stop.

    Since the stop there were only closing quotes and brackets.
    """
    behind = pos[len(pos) - 1 - pos[::-1].index(".") + 1 :]
    return any(tag not in CLOSING for tag in behind) or part.rpartition("/")[2] in (*CLOSING, ".")


def _add(now: _OpenTagged, part: str, number: int, options: TaggedOptions) -> None:
    if now.broken is not None:
        return
    if part in ("[", "]"):
        if (part == "[") == (now.bracket is not None):
            now.broken = Bad(
                number,
                f"found {part!r} {'inside' if part == '[' else 'outside'} a bracket; noun phrases"
                " do not nest",
            )
        elif part == "[":
            now.bracket = len(now.tokens)
        else:
            now.spans += (
                [[now.bracket, len(now.tokens), "NP"]] if now.bracket < len(now.tokens) else []
            )
            now.bracket = None
        return
    word, slash, tag = part.rpartition("/")
    if not slash or not word or not tag or (word.endswith("\\") and word != "\\"):
        now.broken = Bad(
            number, f"found {part[:40]!r}, expected a word and its tag such as house/NN"
        )
        return
    word = word.replace("\\/", "/")
    now.tokens.append(_unescaped(word) if options.escapes == "unescape" else word)
    now.pos.append(tag)


def _looks_like_trees(head: bytes) -> bool:
    """Returns whether a file begins with trees, `( (S (NP ...`.

    It has two brackets, labels in capitals, and a leaf among the first lines.
    """
    text = head[:2000].decode("utf-8", "replace").removeprefix("\ufeff")
    text = "\n".join(line for line in text.split("\n") if not line.startswith("*x*"))
    begins = re.match(r"\s*\((?:[A-Z][A-Z0-9|=+-]*)?\s*\([A-Z][A-Z0-9|=+-]*[\s(]", text)
    return begins is not None and re.search(r"\([^\s()]+ [^\s()]+\)", text) is not None


def _looks_tagged(head: bytes) -> bool:
    """Returns whether a file begins as tagged text.

    The first lines hold only brackets and words with tags in capitals or signs, and a line of
    ==== or a bracketed noun phrase is among them.
    """
    text = head[:4000].decode("utf-8", "replace").removeprefix("\ufeff")
    lines = [
        line.split()
        for line in text.split("\n")[:-1] or text.split("\n")
        if line.strip() and not line.startswith("*x*")
    ]
    marked = [
        parts
        for parts in lines
        if not "".join(parts).strip("=") or (parts[0] == "[" and parts[-1] == "]")
    ]
    words = [
        part
        for parts in lines
        if "".join(parts).strip("=")
        for part in parts
        if part not in ("[", "]")
    ]
    return bool(marked and words) and all(
        re.fullmatch(r"\S+/(?:[A-Z|$-]+|[.,:#$()`'\"]+)", word) for word in words
    )


TREES = Format(
    "ptb",
    (".mrg", ".ptb"),
    read,
    "one per bracketed tree: `tree` in one line, `tokens`, `pos`, `spans` [start, end, label]",
    TreeOptions,
    looks_like=_looks_like_trees,
    order=90,
)
TAGGED = Format(
    "pos",
    (".pos",),
    read_tagged,
    'one per sentence of `word/TAG` text: `tokens`, `pos`, `spans` [start, end, "NP"] of the'
    " brackets",
    TaggedOptions,
    looks_like=_looks_tagged,
    order=100,
)
