"""The layout of a column file, told from its beginning.

It says what parts the cells, whether there is a header or an id before each token, which columns
hold tokens and tags, and what scheme the tags are written in.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence

from jaxsft.config.option import option
from jaxsft.data import schemes
from jaxsft.data.formats import ontonotes
from jaxsft.errors import ConfigError

LOOKED_AT = 3000  # lines that decide the layout
BLANK = " \t\r"  # what a line that parts sentences may hold: WNUT17 has a lone tab there
CHOICES = {"header": ("auto", "true", "false"), "position_digit": ("auto", "strip", "keep")}
CHOICES |= {"invalid": ("error", "repair", "keep"), "empty_token": ("error", "keep")}
_runs = re.compile(r"[ \t]+")
_keyed = re.compile(
    r"#\s*([\w.-]+):\s+(.*)|#\s*([^\s=:][^=\t]*)=\s?(.*)|#\s*(id|sent_id|newdoc|newpar)(?:\s+(.*))?",
    re.DOTALL,
)
_assigned = re.compile(r"# +\S+(?: \S+)? = ")  # a comment whatever follows
_columns = re.compile(r"#\s*global\.columns\s*=\s*(.*)")  # of CoNLL-U Plus
RANGE = re.compile(r"([0-9]{1,9})([-.])([0-9]{1,9})")
# the latter in CoNLL-2012
DOCUMENT_LINE = re.compile(r"-DOCSTART-(?:[ \t].*)?|#(?:begin|end) document.*", re.DOTALL)
POSITION = re.compile(r"(.)(\d+)", re.DOTALL)
TOKEN_NAME = re.compile(r"(?i)(tokens?|words?|form|chars?|characters?)")
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


def layout_of(lines: Sequence[str], options: ConllOptions, file: str) -> ColumnLayout:
    """Returns the layout that these lines show, where the options do not set it.

    Raises ConfigError for a column that is not there.
    """
    if options.header != "true" and ontonotes.is_layout(lines):
        return _ontonotes(options, file)
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
            [cells for cells in sentence if not RANGE.fullmatch(cells[0])] for sentence in sentences
        ]
    rows = [cells for sentence in sentences for cells in sentence]
    tokens = _chosen("tokens", options.tokens, names, file)
    if tokens is None:
        named_tokens = (i for i, name in enumerate(names) if TOKEN_NAME.fullmatch(name))
        tokens = names.index("tokens") if "tokens" in names else next(named_tokens, int(ids))
        plain = options.tags == "auto" and not header and not named and width == tokens + 2
        tokens += plain and _tags_first(rows, tokens)
    tags = _chosen("tags", options.tags, names, file)
    if tags is None and options.tags == "auto" and width > 1:
        tags = _tags_column(rows, names, tokens)
    positions = options.position_digit == "strip"
    if options.position_digit == "auto":
        positions = _counts_positions(
            [cells[tokens] for cells in sentence] for sentence in sentences
        )
    labels = [] if tags is None else [[cells[tags].strip() for cells in s] for s in sentences]
    known = frozenset(itertools.chain.from_iterable(labels))
    scheme = _scheme(options, labels)
    return ColumnLayout(
        tab, names, tokens, tags, header, ids and tokens > 0, positions, scheme, known
    )


def _scheme(options: ConllOptions, labels: Sequence[Sequence[str]]) -> str | None:
    """Returns the scheme of the tags of sentences: what the options say, or what they look like."""
    if options.scheme not in ("auto", "raw"):
        return schemes.named(options.scheme)
    if options.scheme == "auto" and labels and _chunky(list(itertools.chain(*labels))):
        return scheme_of(labels)
    return "raw"


def _ontonotes(options: ConllOptions, file: str) -> ColumnLayout:
    """Returns the layout of CoNLL-2012, whose entities stand in brackets."""
    tokens, tags = (
        _chosen(what, getattr(options, what), ontonotes.NAMES, file) for what in ("tokens", "tags")
    )
    tags = ontonotes.ENTITIES if tags is None and options.tags == "auto" else tags
    tokens = ontonotes.TOKENS if tokens is None else tokens
    scheme = "iob2" if tags == ontonotes.ENTITIES and options.scheme != "raw" else "raw"
    return ColumnLayout(
        False, list(ontonotes.NAMES), tokens, tags, False, False, False, scheme, brackets=True
    )


def _cells(line: str, tab: bool) -> list[str]:
    return line.split("\t") if tab else _runs.split(line.strip(BLANK))


def _blocks(lines: Iterable[str]) -> list[list[str]]:
    """Groups the lines of tokens by sentence.

    Possible comments are left out, unless nothing else is there: `#FF` is a token of tweets.
    """
    blocks: list[list[str]] = [[]]
    for line in lines:
        if not line.strip(BLANK) or DOCUMENT_LINE.fullmatch(line):
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
        any(map(TOKEN_NAME.fullmatch, first))
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


def scheme_of(sentences: Iterable[Sequence[str]]) -> str | None:
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
    numbers = sum(cell.isdecimal() or RANGE.fullmatch(cell) is not None for cell in cells)
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
            found = POSITION.fullmatch(token)
            if found is None or found[2] not in (
                ("0",) if before is None else ("0", str(before + 1))
            ):
                return False
            before, seen, foreign = int(found[2]), seen + 1, foreign or not token.isascii()
    return seen > 1 and foreign


def looks_like(head: bytes) -> bool:
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
        and not any(_keyed.fullmatch(line) or DOCUMENT_LINE.fullmatch(line) for line in lines)
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
