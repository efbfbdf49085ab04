"""CoNLL-U: dependency trees of Universal Dependencies, ten columns a word.

See https://universaldependencies.org/format.html.

Read by hand: a library that makes an object of every feature takes many times longer. What is read
is written back byte for byte.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

from jaxsft.data.formats.conll import id_order
from jaxsft.data.formats.row import Bad, Format, NoOptions, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import DataError

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_range = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")
_empty = re.compile(r"[0-9]+\.[0-9]+")
_number = re.compile(r"0|[1-9][0-9]{0,8}")
_numbers = {str(i): i for i in range(1000)}
_named = re.compile(r"#\s*(sent_id|text)\s*=\s?(.*)", re.DOTALL)


def read(source: Source, encoding: str, options: NoOptions) -> Numbered:
    """Reads one row per sentence: the ten columns as lists over its words.

    `head` are numbers, 0 for the root; None where nothing is annotated. `multiword` and `empty`
    have the ten cells of each range `1-2` and node `8.1`, `comments` stand as they are, with
    `sent_id` and `text` out of them.

    A sentence is Bad where a line has not ten cells, or ids do not count up from 1. Whether the
    heads are a tree is asked where they are used (task=parse): tags are read of sentences with two
    roots too.
    """
    begin, lines, broken = 0, [], None
    for found in source.lines(encoding):
        if isinstance(found, Bad):
            begin, broken = begin or found.line, broken or found
            lines.append("")  # so that what follows keeps its line
            continue
        number, line = found
        if line and not line.isspace():
            begin = begin or number
            lines.append(line)
        elif begin:
            yield broken or _sentence(begin, lines)
            begin, lines, broken = 0, [], None
    if begin:
        yield broken or _sentence(begin, lines)


def _sentence(begin: int, lines: list[str]) -> tuple[int, dict[str, Any]] | Bad:
    first = 0
    while first < len(lines) and lines[first].startswith("#"):
        first += 1
    if not (rows := lines[first:]):
        return Bad(begin, "found comments and no word; an empty line parts sentences")
    # One split for the whole sentence is several times faster than one a line; the marks between
    # lines tell whether each has ten cells.
    cells = "\t\n\t".join(rows).split("\t")
    if len(cells) != 11 * len(rows) - 1 or cells[10::11] != ["\n"] * (len(rows) - 1):
        wrong, line = next((i, line) for i, line in enumerate(rows) if line.count("\t") != 9)
        return Bad(
            begin + first + wrong,
            f"found {line.count(chr(9)) + 1} cells between tabs, expected the 10 of CoNLL-U",
        )
    multiword, empty = [], []
    columns = [cells[i::11] for i in range(10)]
    if columns[0] != _ids(len(rows)):
        wrong, reason = _misplaced(columns[0])
        if reason:
            return Bad(begin + first + wrong, reason)
        multiword = [
            line.split("\t")
            for line, identifier in zip(rows, columns[0], strict=True)
            if "-" in identifier
        ]
        empty = [
            line.split("\t")
            for line, identifier in zip(rows, columns[0], strict=True)
            if "." in identifier
        ]
        numbers = [i for i, identifier in enumerate(columns[0]) if identifier.isdecimal()]
        columns = [[column[i] for i in numbers] for column in columns]
    columns[6] = _heads(columns[6])
    fields: dict[str, Any] = {"sent_id": None, "text": None}
    for line in lines[:first]:
        if found := _named.fullmatch(line):
            fields[found[1]] = found[2]
    fields.update(
        zip(COLUMNS, columns, strict=True), multiword=multiword, empty=empty, comments=lines[:first]
    )
    return begin, fields


@functools.lru_cache(maxsize=512)
def _ids(length: int) -> list[str]:
    return [str(i) for i in range(1, length + 1)]


def _misplaced(ids: Sequence[str]) -> tuple[int, str]:
    """Returns the first misplaced id by its index, and why; "" where there is none."""
    word, empty, end, opened = 0, 0, 0, None
    last = sum(map(str.isdecimal, ids))
    for i, identifier in enumerate(ids):
        if identifier == str(word + 1):
            word, empty, opened = word + 1, 0, None
        elif found := _empty.fullmatch(identifier):
            if opened is not None or identifier != f"{word}.{empty + 1}":
                return (
                    i,
                    (
                        f"found the empty node {identifier[:40]}, expected {word}.{empty + 1},"
                        f" behind word {word}"
                    ),
                )
            empty += 1
        elif found := _range.fullmatch(identifier):
            first, until = int(found[1]), int(found[2])
            if (
                opened is not None
                or first != word + 1
                or first <= end
                or not first <= until <= last
            ):
                return (
                    i,
                    (
                        f"found the range {identifier[:40]}, expected one that begins with the next"
                        f" word, {word + 1}, and ends inside the sentence"
                    ),
                )
            end, opened = until, i
        else:
            return (
                i,
                (
                    f"found the id {identifier[:40]!r}, expected {word + 1}; an empty line parts"
                    " sentences"
                ),
            )
    return (0, "") if word else (0, "found no word, only ranges or empty nodes")


def _heads(cells: Sequence[str]) -> list[int | str | None]:
    """Returns the heads as numbers; None where nothing is annotated.

    What is no number stays text: whoever needs a tree looks whether it is one.
    """
    try:
        return list(map(_numbers.__getitem__, cells))
    except KeyError:
        return [
            None if cell == "_" else int(cell) if _number.fullmatch(cell) else cell
            for cell in cells
        ]


def features(cell: str) -> dict[str, list[str]]:
    """Parses features: `Case=Acc,Dat|Number=Sing` as {"Case": ["Acc", "Dat"], "Number": ["Sing"]}.

    `_` becomes {}. It reads `misc` too, where a word alone has no value.

    Raises:
      DataError: a feature without a name, or a name that occurs twice.
    """
    found: dict[str, list[str]] = {}
    for part in cell.split("|") if cell != "_" else []:
        name, sign, value = part.partition("=")
        if not name or name in found:
            raise DataError(
                f"found {part[:40]!r} in {cell[:80]!r}, expected features such as"
                " Case=Acc|Number=Sing, each name once"
            )
        found[name] = value.split(",") if sign else []
    return found


def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes sentences as they were read, byte for byte.

    Of others `sent_id` and `text` become comments, and a column that is missing becomes `_`.

    Raises:
      DataError: what is written would not be read back: columns of different lengths, a tab or a
        line break in a cell, or comments that contradict `sent_id` or `text`.
    """
    for number, row in enumerate(rows, start=1):
        where = f"{name}: row {number}"
        if unknown := [
            key
            for key in row
            if key not in (*COLUMNS, "multiword", "empty", "comments", "sent_id", "text")
        ]:
            raise DataError(
                f"{where}: found the field {unknown[0]!r}, which CoNLL-U has no place for; write"
                " .jsonl instead"
            )
        lines = [*_comments(row, where), *_token_lines(row, where)]
        if (
            wrong := next(
                (line for line in lines if "\n" in line or line.endswith("\r") or not line.strip()),
                None,
            )
        ) is not None:
            raise DataError(f"{where}: found a line break in {wrong[:60]!r}")
        kept = _sentence(1, lines)
        if isinstance(kept, Bad):
            raise DataError(f"{where}: {kept.reason}")
        file.write(
            "".join(f"{line}\n" for line in [*lines, ""]).encode("utf-8", "backslashreplace")
        )


def _comments(row: dict[str, Any], where: str) -> list[str]:
    comments = row.get("comments")
    named = {key: row[key] for key in ("sent_id", "text") if row.get(key) is not None}
    if comments is None:
        return [f"# {key} = {value}" for key, value in named.items()]
    found = {m[1]: m[2] for line in comments if (m := _named.fullmatch(line))}
    if wrong := next((key for key, value in named.items() if found.get(key) != value), None):
        raise DataError(
            f"{where}: {wrong} is {str(named[wrong])[:80]!r}, but the comments have"
            f" {str(found.get(wrong))[:80]!r}; change both, or remove the field comments"
        )
    if bad := next((line for line in comments if not line.startswith("#")), None):
        raise DataError(f"{where}: found the comment {bad[:80]!r}, expected one that begins with #")
    return comments


def _token_lines(row: dict[str, Any], where: str) -> list[str]:
    length = len(row.get("form") or [])
    columns = []
    for key in COLUMNS:
        cells = row.get(key) or (_ids(length) if key == "id" else ["_"] * length)
        if len(cells) != length or not length:
            raise DataError(
                f"{where}: found {len(cells)} cells of {key!r} and {length} forms, expected as"
                " many, and at least one"
            )
        columns.append(["_" if cell is None else str(cell) for cell in cells])
    table = [list(cells) for cells in zip(*columns, strict=True)]
    if extra := [*(row.get("multiword") or []), *(row.get("empty") or [])]:
        table = sorted([*table, *extra], key=lambda cells: id_order(cells[0]))
    return ["\t".join(cells) for cells in table]


def _looks_like(head: bytes) -> bool:
    """Returns whether a file begins as CoNLL-U.

    After comments a line of ten cells begins with 1, a range or an empty node, and the lines
    that follow have ten cells.
    """
    lines = head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")[:200]
    rows = [
        line.split("\t")
        for line in lines[:-1] or lines
        if line.strip() and not line.startswith("#")
    ]
    return (
        bool(rows)
        and re.fullmatch(r"1|1-\d+|0\.1", rows[0][0]) is not None
        and all(len(cells) == 10 for cells in rows)
    )


FORMAT = Format(
    "conllu",
    (".conllu",),
    read,
    "one per sentence: the ten columns as lists over its words (`head` as numbers), `multiword`,"
    " `empty`, `comments`, `sent_id`, `text`",
    looks_like=_looks_like,
    write=write,
    order=70,
)
