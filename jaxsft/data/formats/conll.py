"""Column files: a token a line, its tags in columns, an empty line between sentences.

CoNLL-2002 and -2003 and what grew out of them.

What real files do differently is told from their beginning (`ColumnLayout`): the separator, a
header, ids before the tokens, which column holds tags, and their scheme.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

from jaxsft.config.option import option
from jaxsft.data import schemes
from jaxsft.data.formats import ontonotes
from jaxsft.data.formats.row import Bad, Format, Numbered
from jaxsft.data.formats.source import Source
from jaxsft.errors import ConfigError, DataError

LOOKED_AT = 3000  # lines that decide the layout
BLANK = " \t\r"  # what a line that parts sentences may hold: WNUT17 has a lone tab there
DOCUMENT = "-DOCSTART-"
RESERVED = ("tokens", "tags", "document", "multiword")
CHOICES = {"header": ("auto", "true", "false"), "position_digit": ("auto", "strip", "keep")}
CHOICES |= {"invalid": ("error", "repair", "keep"), "empty_token": ("error", "keep")}

_runs = re.compile(r"[ \t]+")
_keyed = re.compile(
    r"#\s*([\w.-]+):\s+(.*)|#\s*([^\s=:][^=\t]*)=\s?(.*)|#\s*(id|sent_id|newdoc|newpar)(?:\s+(.*))?",
    re.DOTALL,
)
_assigned = re.compile(r"# +\S+(?: \S+)? = ")  # a comment whatever follows
_columns = re.compile(r"#\s*global\.columns\s*=\s*(.*)")  # of CoNLL-U Plus
_range = re.compile(r"([0-9]{1,9})([-.])([0-9]{1,9})")
# the latter in CoNLL-2012
_document = re.compile(r"-DOCSTART-(?:[ \t].*)?|#(?:begin|end) document.*", re.DOTALL)
_position = re.compile(r"(.)(\d+)", re.DOTALL)
_token_name = re.compile(r"(?i)(tokens?|words?|form|chars?|characters?)")
_tag_name = re.compile(
    r"(?i)(.*[_\W])?(ner?|tags?|labels?|pos|upos|xpos|chunks?|entity|entities|lemma|slots?|iob\d?|bio|bioes)([_\W].*)?"
)


@dataclasses.dataclass(frozen=True, slots=True)
class ConllOptions:
    tokens: str = option(
        "auto",
        "the column of the tokens, by its name in the header or its number from 0; auto: the first"
        " that holds no ids",
    )
    tags: str = option(
        "auto",
        "that of the tags; auto: the last with chunk tags (with a header the first), or else the"
        " last; none: there are no tags",
    )
    header: str = option("auto", "auto | true | false: whether the first row names the columns")
    scheme: str = option(
        "auto",
        "auto | raw | iob1 | iob2 | iobes | bilou | bmes | bmeso: what the tags are checked"
        " against; raw: nothing",
    )
    invalid: str = option(
        "error",
        "error | repair | keep: of a sentence whose tags break the scheme; repair reads them as"
        " conlleval does",
    )
    to: str = option("same", "same, or the scheme that the tags are converted to")
    empty_token: str = option("error", "error | keep: a line with tags and no token")
    position_digit: str = option(
        "auto",
        "auto | strip | keep: the digit behind each character in Weibo's files, its place in the"
        " word",
    )


@dataclasses.dataclass(slots=True)
class ColumnLayout:
    """The layout of a file's lines.

    `names` are the columns; `scheme` is None as long as only O has been seen.
    """

    tab: bool
    names: list[str]
    tokens: int
    tags: int | None
    header: bool
    ids: bool
    positions: bool
    scheme: str | None
    known: frozenset[str] = frozenset()  # the tags of lines that are no comments
    brackets: bool = False  # the columns of CoNLL-2012, with tags in brackets

    def cells(self, line: str) -> list[str]:
        return ontonotes.cells(line) if self.brackets else _cells(line, self.tab)

    def comment(self, line: str, at_head: bool) -> tuple[str, str] | None:
        """Returns key and value of a comment; None for a token, such as `#FF` or `#` itself."""
        if not line.startswith("#"):
            return None
        found = _keyed.fullmatch(line)
        sure = (
            found and at_head and not self.tab and (_assigned.match(line) or not self._tagged(line))
        )
        if not sure and (
            len(self.cells(line)) == len(self.names) > 1 or not (found or line.startswith("# "))
        ):
            return None
        if not found and self._tagged(line):  # `# a O`: a token with a column too many
            return None
        key, value = (
            next(((k, v) for k, v in zip(*[iter(found.groups())] * 2, strict=True) if k), ("", ""))
            if found
            else ("comment", line[1:].strip())
        )
        return key.rstrip(), value or ""

    def _tagged(self, line: str) -> bool:
        """Returns whether the line ends in a tag or has one in its column: `#win=5 O` is a word."""
        if self.tags is None or not (cells := self.cells(line)):
            return False
        tag = cells[self.tags if len(cells) == len(self.names) else -1].strip()
        return tag in self.known or (
            self.scheme != "raw" and (tag == "O" or ("-" in tag and schemes.split(tag) is not None))
        )


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
    layout = _layout(
        [found[1] for found in begin if not isinstance(found, Bad)], options, source.name
    )
    yield from _sentences(itertools.chain(begin, lines), layout, options)


# --- the layout
# --------------------------------------------------------------------------------------------------
def _layout(lines: Sequence[str], options: ConllOptions, file: str) -> ColumnLayout:
    if options.header != "true" and ontonotes.is_layout(lines):
        tokens, tags = (
            _chosen(what, getattr(options, what), ontonotes.NAMES, file)
            for what in ("tokens", "tags")
        )
        tags = ontonotes.ENTITIES if tags is None and options.tags == "auto" else tags
        tokens, scheme = (
            ontonotes.TOKENS if tokens is None else tokens,
            ("iob2" if tags == ontonotes.ENTITIES else "raw"),
        )
        scheme = "raw" if options.scheme == "raw" else scheme
        return ColumnLayout(
            False, list(ontonotes.NAMES), tokens, tags, False, False, False, scheme, brackets=True
        )
    named = next((found[1].split() for line in lines if (found := _columns.fullmatch(line))), None)
    blocks = _blocks(lines)
    kept = [line for block in blocks for line in block] or ["-"]
    tab = sum("\t" in line.strip(BLANK) for line in kept) * 2 > len(kept)
    widths = collections.Counter(len(_cells(line, tab)) for line in kept)
    width = len(named) if named else widths.most_common(1)[0][0]
    first = _cells(kept[0], tab)
    sentences = [
        [cells for line in block if len(cells := _cells(line, tab)) == width] for block in blocks
    ]
    rows = [cells for sentence in sentences for cells in sentence]
    header = not named and len(first) == width and _is_header(rows, options.header)
    if header:
        sentences[0].pop(0)
    names = list(first) if header else named or [f"column_{i}" for i in range(width)]
    ids = width > 2 and _counts_ids([[cells[0] for cells in sentence] for sentence in sentences])
    if ids:
        sentences = [
            [cells for cells in sentence if not _range.fullmatch(cells[0])]
            for sentence in sentences
        ]
    rows = [cells for sentence in sentences for cells in sentence]
    tokens = _chosen("tokens", options.tokens, names, file)
    if tokens is None:
        tokens = (
            names.index("tokens")
            if "tokens" in names
            else next((i for i, name in enumerate(names) if _token_name.fullmatch(name)), int(ids))
        )
        if (
            options.tags == "auto"
            and not header
            and not named
            and width == tokens + 2
            and _tags_first(rows, tokens)
        ):
            tokens += 1
    tags = _chosen("tags", options.tags, names, file)
    if tags is None and options.tags == "auto" and width > 1:
        tags = _tags_column(rows, names, tokens)
    positions = options.position_digit == "strip"
    if options.position_digit == "auto":
        positions = _counts_positions(
            [cells[tokens] for cells in sentence] for sentence in sentences
        )
    scheme: str | None = "raw"
    if options.scheme not in ("auto", "raw"):
        scheme = schemes.named(options.scheme)
    elif (
        options.scheme == "auto"
        and tags is not None
        and _chunky([cells[tags].strip() for cells in rows])
    ):
        scheme = _scheme([cells[tags].strip() for cells in sentence] for sentence in sentences)
    known = frozenset() if tags is None else frozenset(cells[tags].strip() for cells in rows)
    return ColumnLayout(
        tab, names, tokens, tags, header, ids and tokens > 0, positions, scheme, known
    )


def _cells(line: str, tab: bool) -> list[str]:
    return line.split("\t") if tab else _runs.split(line.strip(BLANK))


def _blocks(lines: Iterable[str]) -> list[list[str]]:
    """Groups the lines of tokens by sentence.

    Possible comments are left out, unless nothing else is there: `#FF` is a token of tweets.
    """
    blocks: list[list[str]] = [[]]
    for line in lines:
        if not line.strip(BLANK) or _document.fullmatch(line):
            blocks.append([])
        else:
            blocks[-1].append(line)
    bare = [[line for line in block if not line.startswith("#")] for block in blocks]
    if not any(bare):
        bare = [
            [line for line in block if not (_keyed.fullmatch(line) or line.startswith("# "))]
            for block in blocks
        ]
    return [block for block in bare if block]


def _is_header(rows: Sequence[Sequence[str]], option: str) -> bool:
    """Returns whether the first row names the columns.

    One names the tokens and one the tags, and none of its cells occurs again in its column.
    """
    if option != "auto" or not rows:
        return option == "true"
    first, *others = rows
    named = (
        any(map(_token_name.fullmatch, first))
        and any(map(_tag_name.fullmatch, first))
        and len(set(first)) == len(first)
    )
    return (
        named
        and not any(map(schemes.split, first))
        and not any(cell == again for row in others for cell, again in zip(first, row, strict=True))
    )


def _chosen(what: str, option: str, names: Sequence[str], file: str) -> int | None:
    if option in ("auto", "none"):
        return None
    if option in names:
        return list(names).index(option)
    if option.isdecimal() and int(option) < len(names):
        return int(option)
    raise ConfigError(
        f"data.options.{what}={option!r}: {file} has the columns {', '.join(names)}; name one, or"
        " give its number from 0"
    )


def _chunky(cells: Sequence[str]) -> bool:
    """Returns whether a column holds chunk tags, but for a few mistakes."""
    fitting = sum(schemes.split(cell) is not None for cell in cells)
    return fitting == len(cells) > 0 or (fitting > 0.9 * len(cells) and "O" in cells)


def _tags_first(rows: Sequence[Sequence[str]], first: int) -> bool:
    """Returns whether tags stand before their tokens.

    A column holds chunk tags, O and others, and the one behind it does not.
    """
    tags, behind = ([row[i].strip() for row in rows] for i in (first, first + 1))
    return _chunky(tags) and "O" in tags and len(set(tags)) > 1 and not _chunky(behind)


def _scheme(sentences: Iterable[Sequence[str]]) -> str | None:
    """Returns the scheme of the tags that are chunk tags; None where all of these are O."""
    return schemes.detect(
        [tag if schemes.split(tag) else "O" for tag in tags] for tags in sentences
    )


def _tags_column(rows: Sequence[Sequence[str]], names: Sequence[str], tokens: int) -> int:
    if "tags" in names:
        return names.index("tags")
    others, headed = (
        [i for i in range(len(names)) if i != tokens],
        names[tokens] != f"column_{tokens}",
    )
    if chunks := [i for i in others if _chunky([row[i].strip() for row in rows])]:
        return chunks[0 if headed else -1]
    return next((i for i in others if headed and _tag_name.fullmatch(names[i])), others[-1])


def _counts_ids(sentences: Sequence[Sequence[str]]) -> bool:
    """Returns whether a column holds token ids.

    Nearly every sentence begins with 0 or 1, and nearly all cells are numbers or ranges.
    """
    sentences = [sentence for sentence in sentences if sentence]
    cells = [cell for sentence in sentences for cell in sentence]
    numbers = sum(cell.isdecimal() or _range.fullmatch(cell) is not None for cell in cells)
    starts = sum(
        re.fullmatch(r"[01](?:[-.]\d+)?", sentence[0]) is not None for sentence in sentences
    )
    return starts > 0.9 * len(sentences) and numbers > 0.9 * len(cells)


def _counts_positions(sentences: Iterable[Sequence[str]]) -> bool:
    """Returns whether tokens are characters with their place in a word, from 0: `科0 技1 全0`."""
    seen, foreign = 0, False
    for tokens in sentences:
        before = None
        for token in tokens:
            found = _position.fullmatch(token)
            if found is None or found[2] not in (
                ("0",) if before is None else ("0", str(before + 1))
            ):
                return False
            before, seen, foreign = int(found[2]), seen + 1, foreign or not token.isascii()
    return seen > 1 and foreign


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
        elif _document.fullmatch(line):
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
    elif layout.ids and _range.fullmatch(cells[0]):
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
                (i for i, token in enumerate(tokens) if not _position.fullmatch(token)), None
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
        layout.scheme = _scheme([tags])
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
                or _token_name.fullmatch(first)
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
        if bad or _document.fullmatch(line) or layout.comment(line, True) is not None:
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
    if found := _range.fullmatch(identifier):
        return int(found[1]), 0 if found[2] == "-" else 2, int(found[3])
    return (int(identifier), 1, 0) if re.fullmatch(r"[0-9]{1,9}", identifier) else (0, 1, 0)


# --- telling the format
# --------------------------------------------------------------------------------------------------
def _looks_like(head: bytes) -> bool:
    """Returns whether a file begins as column files do.

    It has sentences of at least two columns, all of as many cells, one of them with O and other
    chunk tags, and more than one sentence or a comment.
    """
    lines = head.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    lines = [line.removesuffix("\r") for line in lines[:-1] or lines]
    if ontonotes.is_layout(lines):
        return True
    blocks = _blocks(lines)
    if not blocks or (
        len(blocks) < 2
        and not any(_keyed.fullmatch(line) or _document.fullmatch(line) for line in lines)
    ):
        return False
    rows = [line for block in blocks for line in block]
    tab = sum("\t" in line for line in rows) * 2 > len(rows)
    table = [_cells(line, tab) for line in rows]
    table = table[_is_header(table, "auto") if len({len(cells) for cells in table}) == 1 else 0 :]
    if len({len(cells) for cells in table}) != 1 or len(table[0]) < 2:
        return False
    columns = [[cell.strip() for cell in column] for column in zip(*table, strict=True)]
    return any(
        _chunky(column)
        and len(set(column)) > 1
        and ("O" in column or schemes.detect([column]) == "bmes")
        for column in columns[1:]
    )


FORMAT = Format(
    "conll",
    (".conll", ".iob", ".iob1", ".iob2", ".bio", ".bioes", ".iobes", ".bilou", ".bmes"),
    read,
    "one per sentence: `tokens`, `tags`, the other columns as lists under their names (`column_2`"
    " without a header), comments under their keys",
    ConllOptions,
    looks_like=_looks_like,
    write=write,
    order=80,
)
