"""Column files: a token a line, its tags in columns, an empty line between sentences.

CoNLL-2002 and -2003 and what grew out of them.

What real files do differently is told from their beginning (`ColumnLayout`): the separator, a
header, ids before the tokens, which column holds tags, and their scheme.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

from jaxsft.data import schemes
from jaxsft.data.formats import ontonotes
from jaxsft.data.formats.column_layout import (
    BLANK,
    CHOICES,
    DOCUMENT_LINE,
    LOOKED_AT,
    POSITION,
    RANGE,
    TOKEN_NAME,
    ColumnLayout,
    ConllOptions,
    layout_of,
    looks_like,
    scheme_of,
)
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

DOCUMENT = "-DOCSTART-"
RESERVED = ("tokens", "tags", "document", "multiword")


def read(source: Source, encoding: str, options: ConllOptions) -> Numbered:
    """Reads one row per sentence: `tokens`, `tags`, other columns as lists, and comments.

    The other columns have their names (`column_2` without a header), each comment its key;
    `document` stands from the first -DOCSTART- on, `multiword` where a sentence has lines of
    multiword tokens. A broken line makes its sentence Bad. Of CoNLL-2012 (OntoNotes) the named
    entities are the tags, as IOB2, and the columns of arguments are left out.

    Raises:
      ConfigError: an option has a value that does not exist, or names a column that does not.
    """
    for name, known in CHOICES.items():
        if (value := getattr(options, name)) not in known:
            raise ConfigError(
                f"data.options.{name}={value!r} is unknown; expected one of {', '.join(known)}"
            )
    for name, value in (("scheme", options.scheme), ("to", options.to)):
        if value not in ("auto", "raw", "same"):
            schemes.named(value, f"data.options.{name}")
    lines = source.lines(encoding)
    begin = list(itertools.islice(lines, LOOKED_AT))
    layout = layout_of(
        [found[1] for found in begin if not isinstance(found, Bad)], options, source.name
    )
    yield from _sentences(itertools.chain(begin, lines), layout, options)


# --- sentences
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(slots=True)
class _OpenSentence:
    """The sentence that is being read."""

    line: int = 0
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    comments: dict[str, str] = dataclasses.field(default_factory=dict)
    multiword: list[list[str]] = dataclasses.field(default_factory=list)
    broken: Bad | None = None


def _sentences(
    lines: Iterable[tuple[int, str] | Bad], layout: ColumnLayout, options: ConllOptions
) -> Numbered:
    now, document, documents, header = _OpenSentence(), None, 0, layout.header
    for found in lines:
        if isinstance(found, Bad):
            now.broken, now.line = now.broken or found, now.line or found.line
            continue
        number, line = found
        if not line.strip(BLANK):
            if now.rows or now.broken:
                yield _finished(now, layout, options, document)
                now = _OpenSentence()
        elif DOCUMENT_LINE.fullmatch(line):
            if now.rows or now.broken:
                yield _finished(now, layout, options, document)
                now = _OpenSentence()
            if not line.startswith("#end"):
                documents += 1
                document = _document_name(line) or str(documents)
        else:
            now.line = now.line or number
            if (comment := layout.comment(line, not now.rows)) is not None:
                if comment[0] != "global.columns":
                    _note(now, layout, *comment)
            elif header:
                header, now.line = False, now.line * bool(now.comments)
            else:
                _add(now, layout, number, line, options)
    if now.rows or now.broken:
        yield _finished(now, layout, options, document)
    elif now.comments:
        yield Bad(
            now.line, "found comments at the end of the file, and no sentence that they belong to"
        )


def _document_name(line: str) -> str:
    """Returns the name of a document line.

    `-DOCSTART- (12 Spain)` -> `12 Spain`, as in AIDA-CoNLL; `#begin document (bc/cctv); part
    000` -> `bc/cctv; part 000`.
    """
    name, close, part = line.partition("(")[2].rpartition(")")
    return name + part.rstrip() if close and line.startswith("#") else name


def _note(now: _OpenSentence, layout: ColumnLayout, key: str, value: str) -> None:
    if key in RESERVED or key in layout.names:
        key = f"comment:{key}"
    now.comments[key] = f"{now.comments[key]}\n{value}" if key in now.comments else value


def _add(
    now: _OpenSentence, layout: ColumnLayout, number: int, line: str, options: ConllOptions
) -> None:
    cells = layout.cells(line)
    if now.broken is not None:
        return
    if len(cells) != len(layout.names):
        between = "tabs" if layout.tab else "spaces"
        now.broken = Bad(
            number,
            f"found {len(cells)} columns between {between}, expected {len(layout.names)} as in the"
            " other lines",
        )
    elif options.empty_token == "error" and not cells[layout.tokens].strip(BLANK):
        now.broken = Bad(
            number, "found an empty token; data.options.empty_token=keep takes it as it is"
        )
    elif layout.ids and RANGE.fullmatch(cells[0]):
        now.multiword.append(cells)
    elif layout.ids and cells[0] not in (
        expected := (str(int(now.rows[-1][0]) + 1),) if now.rows else ("1", "0")
    ):
        now.broken = Bad(
            number,
            f"found the id {cells[0][:40]!r}, expected {expected[0]}; an empty line parts"
            " sentences",
        )
    else:
        now.rows.append(cells)
        now.numbers.append(number)


def _finished(
    now: _OpenSentence, layout: ColumnLayout, options: ConllOptions, document: str | None
) -> tuple[int, dict[str, Any]] | Bad:
    if now.broken is not None:
        return now.broken
    columns = {
        name: list(cells)
        for name, cells in zip(layout.names, zip(*now.rows, strict=True), strict=True)
    }
    tokens, tags = columns.pop(layout.names[layout.tokens]), None
    fields: dict[str, Any] = {"tokens": tokens}
    if layout.positions:
        if (
            wrong := next(
                (i for i, token in enumerate(tokens) if not POSITION.fullmatch(token)), None
            )
        ) is not None:
            reason = (
                f"found the token {tokens[wrong][:40]!r}, expected a character and its place in the"
                " word; set data.options.position_digit=keep"
            )
            return Bad(now.numbers[wrong], reason)
        fields["tokens"], columns["position"] = (
            [token[0] for token in tokens],
            [token[1:] for token in tokens],
        )
    if layout.tags is not None:
        tags = [tag.strip(BLANK) for tag in columns.pop(layout.names[layout.tags])]
        if layout.brackets and layout.tags == ontonotes.ENTITIES and options.scheme != "raw":
            try:
                tags = ontonotes.iob2(tags)
            except ValueError as error:
                return Bad(now.numbers[error.args[0]], error.args[1])
        if (empty := next((i for i, tag in enumerate(tags) if not tag), None)) is not None:
            return Bad(now.numbers[empty], "found an empty tag")
        checked = _checked(tags, now.numbers, layout, options)
        if isinstance(checked, Bad):
            return checked
        fields["tags"] = checked
    fields |= {
        name if name not in RESERVED else f"column_{layout.names.index(name)}": cells
        for name, cells in columns.items()
    }
    if now.multiword:
        fields["multiword"] = now.multiword
    if document is not None:
        fields["document"] = document
    return now.line, fields | {
        key if key not in fields else f"comment:{key}": value for key, value in now.comments.items()
    }


def _checked(
    tags: list[str], numbers: Sequence[int], layout: ColumnLayout, options: ConllOptions
) -> list[str] | Bad:
    """Returns the tags, repaired or converted if asked; `Bad` where they break the scheme."""
    if layout.scheme is None:
        layout.scheme = scheme_of([tags])
    if layout.scheme == "raw":
        if options.to == "same":
            return tags
        return Bad(
            numbers[0],
            f"the tags are of no known scheme and cannot become {options.to}; set"
            " data.options.scheme, or data.options.to=same",
        )
    scheme = layout.scheme or "iob2"  # only O so far
    if options.invalid != "keep" and (wrong := schemes.problems(tags, scheme)):
        position, reason = wrong[0]
        unknown = next((i for i, tag in enumerate(tags) if schemes.split(tag) is None), None)
        if options.invalid == "error" or unknown is not None:
            at = position if unknown is None else unknown
            hint = (
                "set data.options.invalid=repair or keep, or data.options.scheme to what the file"
                " is in"
            )
            return Bad(numbers[at], f"token {at + 1} of the sentence: {reason}; {hint}")
        tags = schemes.repaired(tags, scheme)[0]
    try:
        return tags if options.to == "same" else schemes.convert(tags, scheme, options.to)
    except DataError as error:
        return Bad(numbers[0], str(error))


# --- writing
# --------------------------------------------------------------------------------------------------
def write(rows: Iterable[dict[str, Any]], file: IO[bytes], name: str) -> None:
    """Writes tabs between columns, comments as `# key = value`, an empty line after each sentence.

    Lists are columns, texts are comments; `column_2` stands at its place. Where there are more
    columns than tokens and tags, the first line names them: `# global.columns`, as in CoNLL-U
    Plus.

    Raises:
      DataError: a row would not be read back as it is: no tokens, columns of different lengths or
        others than the first row has, a tab or a line break in a cell, a token that looks like a
        comment.
    """
    layout: ColumnLayout | None = None
    document, documents = None, 0
    for number, row in enumerate(rows, start=1):
        where = f"{name}: row {number}"
        columns = {
            key: value
            for key, value in row.items()
            if isinstance(value, list) and key != "multiword"
        }
        if layout is None:
            layout = ColumnLayout(True, _placed(columns, where), 0, None, False, False, False, None)
            first = str(next(iter(columns.get("tokens", [])), ""))
            if (
                layout.names not in (["tokens"], ["tokens", "tags"])
                or TOKEN_NAME.fullmatch(first)
                or first.startswith("\ufeff")
            ):
                file.write(f"# global.columns = {' '.join(layout.names)}\n".encode())
        if row.get("document") != document:
            document, documents = row.get("document"), documents + 1
            line = DOCUMENT if document == str(documents) else f"{DOCUMENT} ({document})"
            if (
                "\n" in line
                or line.endswith("\r")
                or (_document_name(line) or str(documents)) != document
            ):
                raise DataError(
                    f"{where}: the document {str(document)[:40]!r} cannot be the name of one; write"
                    " .jsonl instead"
                )
            file.write(f"{line}\n\n".encode())
        out = [
            line
            for key, value in row.items()
            if key not in ("document", "multiword", *columns)
            for line in _comments(key, value, layout, where)
        ]
        out += _token_lines(columns, row.get("multiword") or [], layout, where)
        file.write("".join(f"{line}\n" for line in [*out, ""]).encode("utf-8", "backslashreplace"))


def _placed(columns: dict[str, list[str]], where: str) -> list[str]:
    """Returns the columns in order: `column_2` at 2, the others around, tokens and tags first."""
    if "tokens" not in columns or any(key.split() != [key] for key in columns):
        raise DataError(
            f"{where}: found the columns {', '.join(columns) or 'none'}, expected tokens, and names"
            " without spaces; write .jsonl instead"
        )
    places: list[str | None] = [None] * len(columns)
    for key in columns:
        if (found := re.fullmatch(r"column_(\d{1,3})", key)) and int(found[1]) < len(places):
            places[int(found[1])] = key
    others = iter(
        sorted(
            (key for key in columns if key not in places),
            key=lambda key: (key != "tokens", key != "tags"),
        )
    )
    return [key if key is not None else next(others) for key in places]


def _comments(key: str, value: Any, layout: ColumnLayout, where: str) -> list[str]:
    if not isinstance(value, str):
        raise DataError(
            f"{where}: {key!r} is a {type(value).__name__}, expected a list of cells or the text of"
            " a comment; write .jsonl instead"
        )
    bare = key.removeprefix("comment:")
    lines = [
        f"# {part}" if bare == "comment" else f"# {bare} = {part}" for part in value.split("\n")
    ]
    for line, part in zip(lines, value.split("\n"), strict=True):
        taken = bare in RESERVED or bare in layout.names
        if (
            layout.comment(line, True) != (bare, part)
            or taken != (bare != key)
            or line.endswith("\r")
        ):
            raise DataError(
                f"{where}: the comment {key!r} would not be read back from {line[:60]!r}; write"
                " .jsonl instead"
            )
    return lines


def _token_lines(
    columns: dict[str, list[str]], multiword: list[list[str]], layout: ColumnLayout, where: str
) -> list[str]:
    if (
        sorted(columns) != sorted(layout.names)
        or len({len(cells) for cells in columns.values()}) != 1
    ):
        sizes = ", ".join(f"{key}: {len(cells)}" for key, cells in columns.items())
        raise DataError(
            f"{where}: found columns of {sizes} cells, expected as many in each of"
            f" {', '.join(layout.names)}, as in the first row"
        )
    table = [list(cells) for cells in zip(*(columns[key] for key in layout.names), strict=True)]
    if multiword:
        table = sorted([*table, *multiword], key=lambda cells: id_order(cells[0]))
    if not table:
        raise DataError(f"{where}: there are no tokens; write .jsonl instead")
    lines, spaces = [], " \t" if len(layout.names) == 1 else "\t"
    for cells in table:
        wrong = next(
            (
                c
                for c in cells
                if not isinstance(c, str) or any(sign in c for sign in spaces + "\n\r")
            ),
            None,
        )
        line = "\t".join(map(str, cells))
        bad = len(cells) != len(layout.names) or not line.strip(BLANK) if wrong is None else True
        if bad or DOCUMENT_LINE.fullmatch(line) or layout.comment(line, True) is not None:
            raise DataError(
                f"{where}: the line {line[:60]!r} would not be read back as a token; write .jsonl"
                " instead"
            )
        lines.append(line)
    return lines


def id_order(identifier: str) -> tuple[int, int, int]:
    """Returns the sort key of an id.

    A range `1-2` stands before its first word, an empty node `8.1` behind the word of its
    number.
    """
    if found := RANGE.fullmatch(identifier):
        return int(found[1]), 0 if found[2] == "-" else 2, int(found[3])
    return (int(identifier), 1, 0) if re.fullmatch(r"[0-9]{1,9}", identifier) else (0, 1, 0)


FORMAT = Format(
    "conll",
    (".conll", ".iob", ".iob1", ".iob2", ".bio", ".bioes", ".iobes", ".bilou", ".bmes"),
    read,
    "one per sentence: `tokens`, `tags`, the other columns as lists under their names (`column_2`"
    " without a header), comments under their keys",
    ConllOptions,
    looks_like=looks_like,
    write=write,
    order=80,
)
