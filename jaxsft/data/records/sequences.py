"""Records of words with something said of each: tags, the head in a tree; and spans of characters,
which become tags of words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.data import schemes
from jaxsft.data.formats import Row, require_column
from jaxsft.data.formats.spans import same
from jaxsft.data.graphemes import words
from jaxsft.data.records.fields import first_of, label_of, list_of, listed_in, show, text_of
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError

TOKENS = ("tokens", "form")  # columns of words, in this order, where none is named
# auto takes the first that fits
SCHEMES = ("none", "iob2", "iob1", "iobes", "bilou", "bmes", "bmeso")
# ideographs, kana, Thai
_unspaced = re.compile(r"[㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f぀-ヿ\u0e00-\u0e7f]")


@dataclasses.dataclass(frozen=True, slots=True)
class Tags(Record):
    """Words and a tag for each. `scheme`: how chunks are written in the tags; none: a tag stands
    for itself (parts of speech). `glued`: the words, from 0, that no space stands before in their
    text.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    scheme: str
    glued: tuple[int, ...] = dataclasses.field(default=(), compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Slots(Tags):
    """Words with their tags, and the label of the whole text."""

    label: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Spans(Record):
    """A text and the spans that are marked in it: (start, end, label), in characters, the end
    outside, in order.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Parse(Record):
    """Words, the head of each (0 is the root, 1 the first word) and the relation to it; `more` has
    further columns (upos, xpos, feats) by name; `glued` as in `Tags`.
    """

    tokens: tuple[str, ...]
    heads: tuple[int, ...]
    deprels: tuple[str, ...]
    more: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    glued: tuple[int, ...] = dataclasses.field(default=(), compare=False)


def joined(record: Tags | Parse) -> str:
    """Joins the words of a record to its text, with spaces where it has them."""
    return joined_words(record.tokens, record.glued)


def joined_words(words: Sequence[str], glued: Sequence[int]) -> str:
    """Joins words to a text, with a space before each but the first and those in `glued`.

    `glued` holds indices of words, from 0.
    """
    close = {0, *glued}
    return "".join(word if i in close else f" {word}" for i, word in enumerate(words))


# --- tags
# --------------------------------------------------------------------------------------------------
def tag_record(row: Row, columns: Any) -> Tags:
    """Reads a row with lists of words and tags, or with a text and spans of it.

    The words of a text with spans (`data.columns.spans`) are tagged.

    Raises:
      DataError: a column is missing, the lists differ in length or are empty, a word or tag is no
        text, or the tags break their scheme.
    """
    name = columns.tokens or first_of(row, TOKENS)
    if columns.spans is not None or (
        columns.tokens is None and name not in row.fields and "spans" in row.fields
    ):
        record = span_record(row, columns)
        return tags_of(
            record,
            f"{row.where}: column {columns.spans or 'spans'!r}",
            allow="partial_words" in columns.allow,
        )
    if columns.tokens is None and name not in row.fields and (spans := _spans_column(row)):
        raise DataError(f"{row.where}: missing column {name!r}: {_use_spans(spans)}")
    tokens = _words(row, name, "data.columns.tokens")
    tags = _words(row, columns.tags or "tags", "data.columns.tags")
    _same_length(row, {name: tokens, columns.tags or "tags": tags})
    if columns.label_names is not None:
        tags = tuple(
            label_of(
                int(tag) if tag.isdecimal() else tag,
                f"{row.where}: column {columns.tags or 'tags'!r}",
                columns,
            )
            for tag in tags
        )
    if columns.scheme not in ("auto", "none"):
        tags = tuple(schemes.respelled(tag) or tag for tag in tags)
    return Tags(
        tokens,
        tags,
        _scheme(tags, columns.scheme, f"{row.where}: column {columns.tags or 'tags'!r}"),
        glued(row, tokens),
    )


def slots_record(row: Row, columns: Any) -> Slots:
    """Reads a row as `tag_record` takes it, with a label of its text.

    The label is in `data.columns.label`, or in the column label or intent. Raises DataError.
    """
    name = columns.label or first_of(row, ("label", "intent"))
    label = label_of(
        require_column(row, name, "data.columns.label"), f"{row.where}: column {name!r}", columns
    )
    # they are those of the label
    found = tag_record(row, dataclasses.replace(columns, label_names=None))
    return Slots(found.tokens, found.tags, found.scheme, found.glued, label)


def _scheme(tags: Sequence[str], asked: str, where: str) -> str:
    """Returns the scheme that is asked for, or with auto the first that fits the tags.

    It is `none` where a tag is of no chunk. Raises DataError for a tag out of place.
    """
    if asked == "none" or (asked == "auto" and any(schemes.split(tag) is None for tag in tags)):
        return "none"
    broken = {
        name: schemes.problems(tags, name)
        for name in (SCHEMES[1:] if asked == "auto" else (asked,))
    }
    if fits := next((name for name, found in broken.items() if not found), None):
        return fits
    at, why = next(iter(broken.values()))[0]
    which, others = ("every scheme", "none") if asked == "auto" else (asked, "auto|none")
    raise DataError(
        f"{where}: tag {at + 1} breaks {which}: {why}; mend it, or set data.columns.scheme={others}"
    )


# --- spans
# --------------------------------------------------------------------------------------------------
def span_record(row: Row, columns: Any) -> Spans:
    """Reads a row with a text and its spans.

    Spans are a list of `[start, end, label]`, of objects with start, end and label, an object of
    `label: {span: [start, end]}`, or the text cut into segments, `{text, entity}`, of which those
    with an entity are spans.

    Raises:
      DataError: a column is missing, or a span is of another form, empty or outside the text.
    """
    name = columns.spans or "spans"
    optional = "absent" in columns.allow
    found = (
        row.fields.get(name)
        if optional
        else require_column(row, name, "data.columns.allow=[absent], or data.columns.spans")
    )
    if (
        isinstance(found, list)
        and found
        and all(isinstance(part, dict) and "text" in part and "start" not in part for part in found)
    ):
        return _from_segments(found, f"{row.where}: column {name!r}")
    text = text_of(row, columns.text or "text", "data.columns.text")
    if found is None and optional:
        found = []
    if isinstance(found, str) and found.lstrip().startswith("["):
        found = listed_in(
            found, f"{row.where}: column {name!r}", "; set data.columns.spans=<column>"
        )
    if isinstance(found, dict):
        found = [
            {"label": label, **value} if isinstance(value, dict) else value
            for label, value in found.items()
        ]
    if not isinstance(found, list):
        raise DataError(
            f"{row.where}: column {name!r} holds {show(found)}, expected a list of spans; set"
            " data.columns.spans=<column>"
        )
    where, parted = f"{row.where}: column {name!r}: span", "discontinuous" in columns.allow
    return Spans(
        text,
        tuple(
            sorted(
                _span(span, text, f"{where} {i}", parted) for i, span in enumerate(found, start=1)
            )
        ),
    )


# How tools call the label of a span; and where they list the parts of one that is not in one piece.
NAMES = ("label", "type", "entity", "labels", "tag", "entityLabel", "entity_group")
PARTS = ("parts", "fragments", "segments", "locations", "offsets", "indices")


def _ends(found: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns start and end of a span, under the names that tools give them."""
    if isinstance(span := found.get("span"), list | tuple) and len(span) == 2:
        return span[0], span[1]
    if "start_offset" in found:
        return found["start_offset"], found.get("end_offset")
    return found.get("start"), found.get("end")


def _span(found: Any, text: str, where: str, parted: bool) -> tuple[int, int, str]:
    if isinstance(found, dict):
        if (
            several := next(
                (key for key in PARTS if isinstance(found.get(key), list) and len(found[key]) > 1),
                None,
            )
        ) and not parted:
            raise DataError(
                f"{where} is {show(found)}, of several parts ({several}), and the words between"
                " them are not in it; data.columns.allow=[discontinuous] takes it from its first"
                " to its last character"
            )
        start, end = _ends(found)
        label = next((found[key] for key in NAMES if key in found), None)
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
    elif isinstance(found, list | tuple) and len(found) == 3:
        start, end, label = found
    else:
        raise DataError(
            f"{where} is {show(found)}, expected [start, end, label], or an object with start, end"
            " and label"
        )
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (start, end))
    if not whole or not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{where} is {show(found)}, expected start and end in whole characters, and the name of"
            " a label"
        )
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"{where} goes from {start} to {end}, expected at least one character inside a text of"
            f" {len(text)}; mend the offsets"
        )
    said = found.get("text") if isinstance(found, dict) else None
    if (
        isinstance(said, str)
        and not same(said, text[start:end])
        and not (parted and any(key in found for key in PARTS))
    ):
        raise DataError(
            f"{where} says {show(said)}, but the text has {show(text[start:end])} from {start} to"
            f" {end}; offsets count characters, from 0"
        )
    return start, end, label


def _from_segments(found: Sequence[Mapping[str, Any]], where: str) -> Spans:
    text, spans = "", []
    for i, part in enumerate(found, start=1):
        if not isinstance(part["text"], str):
            raise DataError(f"{where}: segment {i} holds {show(part['text'])}, expected a text")
        if label := part.get("entity", part.get("label")):
            spans.append((len(text), len(text) + len(part["text"]), str(label)))
        text += part["text"]
    return Spans(text, tuple(span for span in spans if span[0] < span[1]))


def tags_of(record: Spans, where: str, allow: bool = False) -> Tags:
    """Splits the text of spans into words with IOB2 tags.

    Args:
      allow: a span that begins or ends inside a word takes the whole word.

    Raises:
      DataError: the text has no word, a span cuts a word or holds none, or two spans share a word.
    """
    places = words(record.text)
    if not places:
        raise DataError(f"{where}: the text {show(record.text)} has no word to tag; remove the row")
    found: list[tuple[int, int, str]] = []
    for start, end, label in record.spans:
        inside = [i for i, (first, last) in enumerate(places) if first < end and last > start]
        cut = bool(inside) and (places[inside[0]][0] < start or places[inside[-1]][1] > end)
        if not inside or (cut and not allow):
            raise DataError(
                f"{where}: the span {show(record.text[start:end])} ({start} to {end})"
                f" {'cuts a word' if cut else 'holds no word'};"
                f" {'data.columns.allow=[partial_words] takes whole words' if cut else 'remove it'}"
            )
        if found and inside[0] < found[-1][1]:
            raise DataError(
                f"{where}: the span {show(record.text[start:end])} ({start} to {end}) overlaps"
                " another one, and a word has one tag; remove one"
            )
        found.append((inside[0], inside[-1] + 1, label))
    close = tuple(i for i in range(1, len(places)) if places[i - 1][1] == places[i][0])
    return Tags(
        tuple(record.text[a:b] for a, b in places),
        tuple(schemes.tags(found, len(places), "iob2")),
        "iob2",
        close,
    )


# --- trees
# --------------------------------------------------------------------------------------------------
def parse_record(row: Row, columns: Any) -> Parse:
    """Reads a row with lists of words, heads and relations, as CoNLL-U has them.

    CoNLL-U calls them form, head and deprel.

    Raises:
      DataError: a column is missing, lists differ in length or are empty, a head is outside the
        sentence or the word itself, there is not one root, or the heads form a circle.
    """
    names = {
        "tokens": columns.tokens or first_of(row, TOKENS),
        "heads": columns.heads or first_of(row, ("head", "heads")),
    }
    names["deprels"] = columns.deprels or first_of(row, ("deprel", "deprels"))
    tokens = _words(row, names["tokens"], "data.columns.tokens")
    deprels = _words(row, names["deprels"], "data.columns.deprels")
    found = list_of(row, names["heads"], "data.columns.heads")
    _same_length(row, {names["tokens"]: tokens, names["heads"]: found, names["deprels"]: deprels})
    where = f"{row.where}: column {names['heads']!r}"
    heads = tuple(_head(head, i, len(tokens), where) for i, head in enumerate(found, start=1))
    _check_tree(heads, where, several_roots="several_roots" in columns.allow)
    more = {
        name: tuple("_" if v is None else str(v) for v in row.fields[name])
        for name in ("upos", "xpos", "feats")
        if isinstance(row.fields.get(name), list)
    }
    _same_length(row, {names["tokens"]: tokens, **more})
    return Parse(tokens, heads, deprels, more, glued(row, tokens))


def _head(found: Any, at: int, count: int, where: str) -> int:
    text = "null" if found is None else str(found).strip()
    if isinstance(found, bool) or not re.fullmatch("[0-9]{1,9}", text) or int(text) > count:
        raise DataError(
            f"{where}: the head of word {at} is {show(found)}, expected a number from 0 (the root)"
            f" to {count}"
        )
    if int(text) == at:
        raise DataError(
            f"{where}: word {at} is its own head, expected another word or 0 (the root)"
        )
    return int(text)


def _check_tree(heads: Sequence[int], where: str, several_roots: bool) -> None:
    roots = [i for i, head in enumerate(heads, start=1) if head == 0]
    if not roots or (len(roots) > 1 and not several_roots):
        hint = "; data.columns.allow=[several_roots] takes them" if roots else ""
        raise DataError(
            f"{where}: {len(roots)} words hang on the root"
            f" ({', '.join(map(str, roots)) or 'none'}), expected one{hint}"
        )
    safe = {0}
    for start in range(1, len(heads) + 1):
        path: dict[int, None] = {}  # in order, and fast to look into
        at = start
        while at not in safe:
            if at in path:
                circle = " -> ".join(map(str, [*list(path)[list(path).index(at) :][:20], at]))
                raise DataError(f"{where}: the heads form a circle ({circle}), expected a tree")
            path[at] = None
            at = heads[at - 1]
        safe.update(path)


def glued(row: Row, tokens: Sequence[str]) -> tuple[int, ...]:
    """Returns the words, from 0, that no space stands before.

    CoNLL-U marks them (`SpaceAfter=No`, and inside a range `1-2`); without marks they are those
    beside a letter of a script without spaces.
    """
    misc, ranges = row.fields.get("misc"), row.fields.get("multiword") or []
    if not isinstance(misc, list) or len(misc) != len(tokens):
        return tuple(
            i
            for i in range(1, len(tokens))
            if _unspaced.match(tokens[i - 1][-1]) or _unspaced.match(tokens[i][0])
        )
    close = {i + 1 for i, cell in enumerate(misc) if "SpaceAfter=No" in str(cell).split("|")}
    for cells in ranges:
        first, _, last = str(cells[0]).partition("-")
        close = (
            (close - {int(last)})
            | set(range(int(first), int(last)))
            | ({int(last)} if "SpaceAfter=No" in cells[-1].split("|") else set())
        )
    return tuple(sorted(close & set(range(1, len(tokens)))))


def _words(row: Row, name: str, option: str) -> tuple[str, ...]:
    found = list_of(row, name, option)
    if not found:
        raise DataError(
            f"{row.where}: column {name!r} is empty, expected at least one word; remove the row"
        )
    for i, word in enumerate(found, start=1):
        if not isinstance(word, str | int) or isinstance(word, bool) or not str(word).strip():
            spans = (
                _spans_column(row)
                if isinstance(word, dict) and option == "data.columns.tokens"
                else None
            )
            hint = _use_spans(spans) if spans else f"set {option}=<column>"
            raise DataError(
                f"{row.where}: column {name!r} has {show(word)} at place {i}, expected text; {hint}"
            )
    return tuple(map(str, found))


def _spans_column(row: Row) -> str | None:
    """Returns the column that seems to hold spans of the text of a row; None where none does.

    Spans are objects or lists with where they begin and end, and their label.
    """
    marks = lambda one: (
        {"start", "end"} <= one.keys()
        if isinstance(one, dict)
        else isinstance(one, list) and [*map(type, one)] == [int, int, str]
    )
    lists = {
        name: found
        for name, found in row.fields.items()
        if isinstance(found, list) and name not in TOKENS
    }
    return next(
        (
            name
            for name, found in lists.items()
            if name == "spans" or (found and all(map(marks, found)))
        ),
        None,
    )


def _use_spans(name: str) -> str:
    return f"there is a column {name!r} of spans of its text: set data.columns.spans={name}"


def _same_length(row: Row, lists: Mapping[str, Sequence[Any]]) -> None:
    (first, words_), *others = lists.items()
    for name, values in others:
        if len(values) != len(words_):
            raise DataError(
                f"{row.where}: column {first!r} has {len(words_)} items and {name!r} has"
                f" {len(values)}, expected as many"
            )
