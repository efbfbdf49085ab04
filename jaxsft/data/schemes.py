"""Chunk tags and spans: IOB1, IOB2, IOBES (BIOES), BILOU, BMES and BMESO, converted without loss.

A tag is `O` or a prefix and a type, `B-PER`; a prefix alone is a chunk without a type (word
segmentation). A span is `(start, end, type)`: the tokens `start <= i < end`. Every scheme but BMES,
which has no outside, can spell every list of spans that do not overlap, in exactly one way.

Sources: IOB1 and IOB2: Ramshaw and Marcus 1995, Tjong Kim Sang and Veenstra 1999; IOBES and BILOU:
Ratinov and Roth 2009, where E, S are called L, U; BMES: Xue 2003.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from jaxsft.errors import ConfigError, DataError

Span = tuple[int, int, str]
NAMES = {"bioes": "iobes", "bio": "iob2", "iob": "iob1"}  # other names of the same schemes
_tag = re.compile(r"([BIESLUMO])(?:-(.+))?", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Scheme:
    """A chunk scheme: the prefixes of a chunk's first, middle, last and only token.

    `outside`: whether tokens may be in no chunk.
    """

    begin: str
    inside: str
    end: str
    single: str
    outside: bool = True

    @property
    def prefixes(self) -> frozenset[str]:
        return frozenset(
            {self.begin, self.inside, self.end, self.single} | ({"O"} if self.outside else set())
        )

    @property
    def closes(self) -> bool:
        """Returns whether the last token of a chunk is marked."""
        return self.end != self.inside


SCHEMES = {
    # B only where a chunk touches one of its own type before it; else I opens
    "iob1": Scheme("B", "I", "I", "B"),
    "iob2": Scheme("B", "I", "I", "B"),
    "iobes": Scheme("B", "I", "E", "S"),
    "bilou": Scheme("B", "I", "L", "U"),
    "bmes": Scheme("B", "M", "E", "S", outside=False),
    "bmeso": Scheme("B", "M", "E", "S"),
}


def named(scheme: str, option: str = "scheme") -> str:
    """Returns the key of a scheme in `SCHEMES`. Raises ConfigError for an unknown name."""
    name = NAMES.get(scheme.lower(), scheme.lower())
    if name not in SCHEMES:
        raise ConfigError(
            f"{option}={scheme!r} is unknown; expected one of {', '.join([*SCHEMES, *NAMES])}"
        )
    return name


def split(tag: str) -> tuple[str, str] | None:
    """Splits a tag: `B-PER` -> ("B", "PER"); `O` -> ("O", ""); None for what is no chunk tag."""
    if (found := _tag.fullmatch(tag)) is None or (found[1] == "O" and found[2]):
        return None
    return found[1], found[2] or ""


# what a word in no chunk has in other spellings
OUTSIDE = ("O", "o", "0", "_", "-", "OTHER", "OUT", "OUTSIDE", "NONE")
_prefixed, _suffixed = (
    re.compile(r"(\w+?)[-_:./|\s\u2010-\u2015](.+)", re.DOTALL),
    re.compile(r"(.+)[-_:./|\s\u2010-\u2015](\w+)", re.DOTALL),
)
_PREFIXES = {
    word: word[0]
    for word in (*"BIESLUM", "BEGIN", "BEG", "INSIDE", "END", "SINGLE", "LAST", "UNIT", "MIDDLE")
}


def respelled(tag: str) -> str | None:
    """Returns a chunk tag in its usual spelling; None for what is no chunk tag.

    `B_PER`, `b-PER`, `B:PER`, `BEGIN-PER` and `PER-B` become `B-PER`.
    """
    if tag in OUTSIDE:
        return "O"
    if split(tag) is not None:
        return tag
    if (found := _prefixed.fullmatch(tag)) and (prefix := _PREFIXES.get(found[1].upper())):
        return f"{prefix}-{found[2]}"
    return (
        f"{prefix}-{found[1]}"
        if (found := _suffixed.fullmatch(tag)) and (prefix := _PREFIXES.get(found[2].upper()))
        else None
    )


def problems(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Returns (position from 0, reason) of each invalid tag; for an open chunk, its last tag."""
    name, found = named(scheme), []
    kind = SCHEMES[name]
    opened: str | None = None  # the type of the chunk that the tag before leaves open
    for i, tag in enumerate(tags):
        parts = split(tag)
        if parts is None or parts[0] not in kind.prefixes:
            found.append(
                (
                    i,
                    (
                        f"{tag[:40]!r} is no tag of {name}, whose prefixes are"
                        f" {', '.join(sorted(kind.prefixes))}"
                    ),
                )
            )
            opened = None
            continue
        prefix, type_ = parts
        goes_on = prefix in (kind.inside, kind.end) and (name != "iob1" or opened == type_)
        if name == "iob1" and prefix == "B" and opened != type_:
            found.append(
                (
                    i,
                    (
                        f"{tag[:40]!r} stands behind {_before(tags, i)}, but in iob1 B only parts"
                        " two chunks of one type"
                    ),
                )
            )
        elif goes_on and opened != type_:
            found.append(
                (i, f"{tag[:40]!r} stands behind {_before(tags, i)}, but goes on with a chunk")
            )
        elif kind.closes and opened is not None and not goes_on:
            found.append(
                (
                    i - 1,
                    f"{tags[i - 1][:40]!r} stands before {tag[:40]!r}, but its chunk does not end",
                )
            )
        ends = prefix == "O" or (kind.closes and prefix in (kind.end, kind.single))
        opened = None if ends else type_
    if kind.closes and opened is not None:
        found.append(
            (len(tags) - 1, f"{tags[-1][:40]!r} is the last tag, but its chunk does not end")
        )
    return found


def _before(tags: Sequence[str], i: int) -> str:
    return repr(tags[i - 1][:40]) if i else "no other tag"


def spans(tags: Sequence[str], scheme: str, repair: bool = False) -> list[Span]:
    """Returns the chunks in order.

    With `repair`, those that the conlleval script of CoNLL-2000 finds in tags that no scheme
    allows: a tag that goes on with a chunk of another type, or of none, opens one; a chunk that
    does not end ends before the next tag that does not go on with it.

    Raises:
      DataError: a tag cannot stand where it does (without `repair`), or is no chunk tag at all.
    """
    name = named(scheme)
    if not repair and (bad := problems(tags, name)):
        raise DataError(f"tag {bad[0][0] + 1}: {bad[0][1]}; repair=true reads it as conlleval does")
    found: list[Span] = []
    start, open_type = 0, None
    for i, tag in enumerate(tags):
        parts = split(tag)
        if parts is None:
            raise DataError(
                f"tag {i + 1}: {tag[:40]!r} is no chunk tag; expected O, or a prefix and a type"
                " such as B-PER"
            )
        prefix, type_ = parts
        if open_type is not None and (prefix in "BSUO" or type_ != open_type):
            found.append((start, i, open_type))
            open_type = None
        if prefix == "O":
            continue
        if open_type is None:
            start, open_type = i, type_
        if prefix in "ELSU":
            found.append((start, i + 1, type_))
            open_type = None
    if open_type is not None:
        found.append((start, len(tags), open_type))
    return found


def allowed(before: str | None, after: str | None, scheme: str) -> bool:
    """Returns whether one tag may follow another directly; None is the edge of a text.

    Tags are valid where all neighbours are.
    """
    name = named(scheme)
    kind = SCHEMES[name]
    prefix, type_ = ("", "") if before is None else split(before) or ("", "")
    follows, its_type = ("", "") if after is None else split(after) or ("", "")
    same = prefix in (kind.begin, kind.inside) and type_ == its_type
    if kind.closes:
        goes_on = follows in (kind.inside, kind.end)
        return (same and goes_on) if prefix in (kind.begin, kind.inside) else not goes_on
    return same or follows != ("B" if name == "iob1" else "I")


def strict(tags: Sequence[str], scheme: str) -> list[Span]:
    """Returns the chunks that are written exactly as the scheme demands, without repair.

    Equal to the strict mode of seqeval, iob1 included, where B behind another type or behind no
    chunk opens none.
    """
    name = named(scheme)
    kind, found, i = SCHEMES[name], [], 0
    parts = [split(tag) or ("O", "") for tag in [*tags, "O"]]
    while i < len(tags):
        (prefix, type_), before = parts[i], parts[i - 1] if i else ("O", "")
        if not _opens(prefix, type_, before, name):
            i += 1
            continue
        end = i + 1
        goes_on = (kind.inside, kind.end) if kind.closes else (kind.inside,)
        while (
            parts[end - 1][0] in (kind.begin, kind.inside)
            and parts[end][0] in goes_on
            and parts[end][1] == type_
        ):
            end += 1
        last, behind = parts[end - 1][0], parts[end]
        closed = (
            last in (kind.end, kind.single)
            if kind.closes
            else not (name == "iob1" and last == "B" and behind[0] == "B" and behind[1] != type_)
        )
        if closed:
            found.append((i, end, type_))
        i = end
    return found


def _opens(prefix: str, type_: str, before: tuple[str, str], name: str) -> bool:
    """Returns whether a tag opens a chunk in the strict reading."""
    kind = SCHEMES[name]
    if name != "iob1":
        return prefix in (kind.begin, kind.single)
    if prefix == "I":
        return before[0] != "I" or before[1] != type_
    return prefix == "B" and before[0] in "BI" and before[1] == type_


def tags(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Returns the tags of `length` tokens. Spans may come in any order.

    Raises:
      DataError: a span is empty, leaves the tokens or overlaps another; a token is in none, and the
        scheme has no outside.
    """
    name = named(scheme)
    kind, result = SCHEMES[name], ["O"] * length
    last, last_type = 0, None
    for start, end, type_ in sorted(spans):
        if not last <= start < end <= length:
            what = (
                "overlaps the one before it"
                if 0 <= start < last
                else f"is empty or leaves the {length} tokens"
            )
            raise DataError(f"the span ({start}, {end}, {type_[:40]!r}) {what}")
        touches = start == last and type_ == last_type
        prefixes = (
            [kind.begin, *[kind.inside] * (end - start - 2), kind.end]
            if end - start > 1
            else [kind.single]
        )
        if name == "iob1" and not touches:
            prefixes[0] = "I"
        result[start:end] = [f"{prefix}-{type_}" if type_ else prefix for prefix in prefixes]
        last, last_type = end, type_
    if not kind.outside and "O" in result:
        raise DataError(
            f"token {result.index('O') + 1} is in no span, and {name} has no tag for that; use"
            " bmeso"
        )
    return result


def convert(tags_: Sequence[str], source: str, target: str, repair: bool = False) -> list[str]:
    """Converts tags of one scheme to another. Raises DataError as `spans` and `tags` do."""
    return tags(spans(tags_, source, repair), len(tags_), target)


def repaired(tags_: Sequence[str], scheme: str) -> tuple[list[str], int]:
    """Returns the tags as conlleval reads them, in valid spelling, and how many changed."""
    good = convert(tags_, scheme, scheme, repair=True)
    return good, sum(a != b for a, b in zip(tags_, good, strict=True))


def detect(sentences: Iterable[Sequence[str]]) -> str | None:
    """Detects the scheme of the sentences: the one with the fewest invalid tags.

    So a few mistakes do not hide it.

    None where a tag is no chunk tag, or all are O. Where several fit alike: iob2, iob1, iobes,
    bilou, bmeso in this order, but bmes before them where no tag is O.
    """
    kept = [sentence for sentence in sentences if any(tag != "O" for tag in sentence)]
    if not kept or any(
        split(tag) is None for tag in {tag for sentence in kept for tag in sentence}
    ):
        return None
    outside = any("O" in sentence for sentence in kept)
    best, fewest = None, None
    for name in ("iob2", "iob1", *(() if outside else ("bmes",)), "iobes", "bilou", "bmeso"):
        wrong = sum(len(problems(sentence, name)) for sentence in kept)
        if fewest is None or wrong < fewest:
            best, fewest = name, wrong
        if not fewest:
            break
    return best


def of_labels(labels: Iterable[str]) -> str | None:
    """Returns the scheme of a vocabulary of tags: the first that has all their prefixes.

    None where one is no chunk tag, or all are O. The prefixes of iob1 and iob2 are the same; it
    is iob2 that is written today.
    """
    parts = [split(tag) for tag in labels]
    if None in parts or all(prefix == "O" for prefix, _ in parts):
        return None
    return next(
        (
            name
            for name in ("iob2", "iobes", "bilou", "bmes", "bmeso")
            if {prefix for prefix, _ in parts} <= SCHEMES[name].prefixes
        ),
        None,
    )


def counts(sentences: Iterable[Sequence[str]], scheme: str) -> dict[str, int]:
    """Counts sentences, tags, spans (as conlleval finds them), invalid tags and their sentences."""
    total = dict.fromkeys(("sentences", "tags", "spans", "invalid_tags", "invalid_sentences"), 0)
    for sentence in sentences:
        bad = len({position for position, _ in problems(sentence, scheme)})
        found = {
            "sentences": 1,
            "tags": len(sentence),
            "spans": len(spans(sentence, scheme, repair=True)),
            "invalid_tags": bad,
        }
        for name, count in {**found, "invalid_sentences": int(bad > 0)}.items():
            total[name] += count
    return total
