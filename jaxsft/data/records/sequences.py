"""Records of words with something said of each: tags, the head in a tree; and spans of characters, which become tags of words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records.fields import first_of, list_of, show, text_of
from jaxsft.data.weights import Record
from jaxsft.errors import DataError

TOKENS = ("tokens", "form")  # columns of words, in this order, where none is named
SCHEMES = ("none", "iob2", "iob1", "iobes", "bilou", "bmes")
# Prefixes of each scheme by what they do: begin a chunk, go on, end it, stand alone.
_PREFIXES = {"iob2": "BI", "iob1": "BI", "iobes": "BIES", "bilou": "BILU", "bmes": "BMES"}
_CHUNK = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
# A CJK character, a kana or a Thai letter run has no spaces: ideographs stand alone, other letters form words, every other sign stands alone.
_word = re.compile(r"[㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f]|[^\W㐀-䶿一-鿿豈-﫿\U00020000-\U0003134f]+|[^\w\s]")


@dataclasses.dataclass(frozen=True, slots=True)
class Tags(Record):
    """Words and a tag for each. `scheme`: how chunks are written in the tags; none: a tag stands for itself (parts of speech)."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    scheme: str


@dataclasses.dataclass(frozen=True, slots=True)
class Spans(Record):
    """A text and the spans that are marked in it: (start, end, label), in characters, the end outside, in order."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Parse(Record):
    """Words, the head of each (0 is the root, 1 the first word) and the relation to it; `more` has further columns (upos, xpos, feats) by name."""

    tokens: tuple[str, ...]
    heads: tuple[int, ...]
    deprels: tuple[str, ...]
    more: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


# --- tags ------------------------------------------------------------------------------------------------------------------------------------
def tag_record(row: Row, columns: Any) -> Tags:
    """A row with lists of words and tags; or with a text and spans of it (`data.columns.spans`), whose words are tagged.

    Raises:
      DataError: a column is missing, the lists differ in length or are empty, a word or tag is no text, or the tags break their scheme.
    """
    name = columns.tokens or first_of(row, TOKENS)
    if columns.spans is not None or (columns.tokens is None and name not in row.fields and "spans" in row.fields):
        record = span_record(row, columns)
        return tags_of(record, f"{row.where}: column {columns.spans or 'spans'!r}", allow="partial_words" in columns.allow)
    tokens = _words(row, name, "data.columns.tokens")
    tags = _words(row, columns.tags or "tags", "data.columns.tags")
    _same_length(row, {name: tokens, columns.tags or "tags": tags})
    return Tags(tokens, tags, _scheme(tags, tokens, columns.scheme, f"{row.where}: column {columns.tags or 'tags'!r}"))


def _scheme(tags: Sequence[str], tokens: Sequence[str], asked: str, where: str) -> str:
    """The scheme that is asked for, or with auto the first that fits; none where the tags are of no chunks."""
    if asked == "auto" and not all(tag == "O" or _CHUNK.fullmatch(tag) for tag in tags):
        return "none"
    broken = {scheme: _broken(tags, scheme) for scheme in (SCHEMES[1:] if asked == "auto" else (asked,))}
    if fits := next((scheme for scheme, at in broken.items() if at is None), None):
        return fits
    scheme, at = next(iter(broken.items()))
    breaks, others = ("every scheme", "none") if asked == "auto" else (scheme, "auto|none")
    raise DataError(
        f"{where}: tag {at + 1}, {tags[at]!r} of {tokens[at]!r} after {tags[at - 1] if at else 'the start'!r}, breaks {breaks}; mend it, or set "
        f"data.columns.scheme={others}"
    )


def _broken(tags: Sequence[str], scheme: str) -> int | None:
    """The place of the first tag that a scheme does not allow there; None where all fit.

    IOB1 after Ramshaw and Marcus, 1995 (I opens a chunk; B only behind one of the same kind), IOB2 after Tjong Kim Sang and Veenstra, 1999; in IOBES
    (BILOU, BMES) a chunk of one word is S (U), and a longer one runs from B to E (L).
    """
    if scheme == "none":
        return None
    allowed = _PREFIXES[scheme]
    begin, within, end = (*allowed, "")[:3]
    opened = last = None  # the kind of the chunk that is open, and of the one that the word before belongs to
    for at, tag in enumerate([*tags, "O"]):
        chunk = _CHUNK.fullmatch(tag)
        if tag != "O" and (chunk is None or chunk[1] not in allowed):
            return at
        prefix, kind = chunk.groups() if chunk else ("O", None)
        if end:  # a chunk that was begun goes on until its end
            goes_on = prefix in (within, end)
            if (opened is not None) != goes_on or (goes_on and kind != opened):
                return min(at, len(tags) - 1)
            opened = kind if prefix in (begin, within) else None
        elif (prefix, scheme) in (("I", "iob2"), ("B", "iob1")) and last != kind:
            return at
        last = kind
    return None


def chunks(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, end word, kind) of the chunks of tags that fit any of the schemes."""
    out: list[list[Any]] = []
    open_chunk = False
    for at, tag in enumerate(tags):
        if (chunk := _CHUNK.fullmatch(tag)) is None:
            open_chunk = False
            continue
        prefix, kind = chunk.groups()
        if open_chunk and prefix in "IMEL" and out[-1][2] == kind:
            out[-1][1] = at + 1
        else:
            out.append([at, at + 1, kind])
        open_chunk = prefix in "BIM"
    return [tuple(chunk) for chunk in out]


# --- spans -----------------------------------------------------------------------------------------------------------------------------------
def span_record(row: Row, columns: Any) -> Spans:
    """A row with a text and its spans: a list of `[start, end, label]`, of objects with start, end and label, an object of `label: {span: [start,
    end]}`, or the text cut into segments, `{text, entity}`, of which those with an entity are spans.

    Raises:
      DataError: a column is missing, or a span is of another form, empty or outside the text.
    """
    name = columns.spans or "spans"
    found = require_column(row, name, "data.columns.spans")
    if isinstance(found, list) and found and all(isinstance(part, dict) and "text" in part and "start" not in part for part in found):
        return _from_segments(found, f"{row.where}: column {name!r}")
    text = text_of(row, columns.text or "text", "data.columns.text")
    if found is None:
        found = []
    if isinstance(found, dict):
        found = [{"label": label, **value} if isinstance(value, dict) else value for label, value in found.items()]
    if not isinstance(found, list):
        raise DataError(f"{row.where}: column {name!r} holds {show(found)}, expected a list of spans; set data.columns.spans=<column>")
    return Spans(text, tuple(sorted(_span(span, text, f"{row.where}: column {name!r}: span {i}") for i, span in enumerate(found, start=1))))


def _span(found: Any, text: str, where: str) -> tuple[int, int, str]:
    if isinstance(found, dict):
        start, end = found.get("span") or (found.get("start"), found.get("end"))
        label = found.get("label", found.get("type", found.get("entity")))
    elif isinstance(found, list | tuple) and len(found) == 3:
        start, end, label = found
    else:
        raise DataError(f"{where} is {show(found)}, expected [start, end, label], or an object with start, end and label")
    whole = all(isinstance(x, int) and not isinstance(x, bool) for x in (start, end))
    if not whole or not isinstance(label, str) or not label.strip():
        raise DataError(f"{where} is {show(found)}, expected start and end in whole characters, and the name of a label")
    if not 0 <= start < end <= len(text):
        raise DataError(f"{where} goes from {start} to {end}, expected at least one character inside a text of {len(text)}; mend the offsets")
    said = found.get("text") if isinstance(found, dict) else None
    if isinstance(said, str) and said != text[start:end]:
        raise DataError(
            f"{where} says {show(said)}, but the text has {show(text[start:end])} from {start} to {end}; offsets count characters, from 0"
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


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand, (start, end) in characters: runs of letters and digits; ideographs and other signs by themselves."""
    return [match.span() for match in _word.finditer(text)]


def tags_of(record: Spans, where: str, allow: bool = False) -> Tags:
    """The words of the text with IOB2 tags.

    Args:
      allow: a span that begins or ends inside a word takes the whole word.

    Raises:
      DataError: the text has no word, a span cuts a word or holds none, or two spans share a word.
    """
    places = words(record.text)
    if not places:
        raise DataError(f"{where}: the text {show(record.text)} has no word to tag; remove the row")
    tags = ["O"] * len(places)
    for start, end, label in record.spans:
        inside = [i for i, (first, last) in enumerate(places) if first < end and last > start]
        cut = bool(inside) and (places[inside[0]][0] < start or places[inside[-1]][1] > end)
        if not inside or (cut and not allow):
            raise DataError(
                f"{where}: the span {show(record.text[start:end])} ({start} to {end}) {'cuts a word' if cut else 'holds no word'}; "
                f"{'data.columns.allow=[partial_words] takes whole words' if cut else 'remove it'}"
            )
        if any(tags[i] != "O" for i in inside):
            raise DataError(
                f"{where}: the span {show(record.text[start:end])} ({start} to {end}) overlaps another one, and a word has one tag; remove one"
            )
        for i in inside:
            tags[i] = ("B-" if i == inside[0] else "I-") + label
    return Tags(tuple(record.text[a:b] for a, b in places), tuple(tags), "iob2")


# --- trees -----------------------------------------------------------------------------------------------------------------------------------
def parse_record(row: Row, columns: Any) -> Parse:
    """A row with lists of words, heads and relations, as CoNLL-U has them (form, head, deprel).

    Raises:
      DataError: a column is missing, lists differ in length or are empty, a head is outside the sentence or the word itself, there is not one root,
        or the heads form a circle.
    """
    names = {"tokens": columns.tokens or first_of(row, TOKENS), "heads": columns.heads or first_of(row, ("head", "heads"))}
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
    return Parse(tokens, heads, deprels, more)


def _head(found: Any, at: int, count: int, where: str) -> int:
    text = str(found).strip()
    if isinstance(found, bool) or not text.isdecimal() or int(text) > count:
        raise DataError(f"{where}: the head of word {at} is {show(found)}, expected a number from 0 (the root) to {count}")
    if int(text) == at:
        raise DataError(f"{where}: word {at} is its own head, expected another word or 0 (the root)")
    return int(text)


def _check_tree(heads: Sequence[int], where: str, several_roots: bool) -> None:
    roots = [i for i, head in enumerate(heads, start=1) if head == 0]
    if not roots or (len(roots) > 1 and not several_roots):
        hint = "; data.columns.allow=[several_roots] takes them" if roots else ""
        raise DataError(f"{where}: {len(roots)} words hang on the root ({', '.join(map(str, roots)) or 'none'}), expected one{hint}")
    safe = {0}
    for start in range(1, len(heads) + 1):
        path, at = [], start
        while at not in safe:
            if at in path:
                circle = " -> ".join(map(str, [*path[path.index(at) :], at]))
                raise DataError(f"{where}: the heads form a circle ({circle}), expected a tree")
            path.append(at)
            at = heads[at - 1]
        safe.update(path)


def _words(row: Row, name: str, option: str) -> tuple[str, ...]:
    found = list_of(row, name, option)
    if not found:
        raise DataError(f"{row.where}: column {name!r} is empty, expected at least one word; remove the row")
    for i, word in enumerate(found, start=1):
        if not isinstance(word, str | int) or isinstance(word, bool) or not str(word).strip():
            raise DataError(f"{row.where}: column {name!r} has {show(word)} at place {i}, expected text; set {option}=<column>")
    return tuple(map(str, found))


def _same_length(row: Row, lists: Mapping[str, Sequence[Any]]) -> None:
    (first, words_), *others = lists.items()
    for name, values in others:
        if len(values) != len(words_):
            raise DataError(f"{row.where}: column {first!r} has {len(words_)} items and {name!r} has {len(values)}, expected as many")
