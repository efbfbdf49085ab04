"""Consistency: contradictions, and damaged texts.

Memory: 64 bits and some of Python's for every distinct text (about 200 bytes), so that texts can be
compared over all rows; the rest is bounded by the numbers of columns and labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections import Counter, defaultdict
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.prepare.quality import text_measures
from jaxsft.prepare.quality.completeness import missing

MOSTLY = 0.95  # of the texts of a column: so many numbers make it a column of numbers
_number = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*")


# --- types
# --------------------------------------------------------------------------------------------------
def kind(value: Any) -> str:
    """Returns the type of a cell: missing, boolean, number, list, object, text or numeric text.

    Numeric text is what a number is in CSV and TSV.
    """
    if missing(value):
        return "missing"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "numeric text" if _number.fullmatch(value) else "text"
    return "list" if isinstance(value, list) else "object"


def expected(counts: Counter[str]) -> set[str]:
    """Returns the types that a column may have, from the types of all its cells.

    The most frequent one; of texts, numeric ones are texts too, unless at least 95 % (a convention)
    are numeric: then the others are the exception.
    """
    found = Counter({name: count for name, count in counts.items() if name != "missing"})
    written = found["text"] + found["numeric text"]
    single = max(
        [(count, name) for name, count in found.items() if name not in ("text", "numeric text")]
        + [(written, "text")]
    )
    if single[1] != "text":
        return {single[1], "missing"}
    return (
        {"numeric text", "missing"}
        if written and found["numeric text"] >= MOSTLY * written
        else {"text", "numeric text", "missing"}
    )


# --- damage
# --------------------------------------------------------------------------------------------------
_not_ascii = re.compile(r"[\u0080-\uffff]{2,}")
_sequence = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_entity = re.compile(r"&(?:#\d{2,7}|#x[0-9a-fA-F]{2,6}|amp|lt|gt|quot|apos|nbsp);")
_control = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_surrogate = re.compile(r"[\ud800-\udfff]")
_private = re.compile(r"[\ue000-\uf8ff]")
DAMAGE = ("replacement", "mojibake", "control", "surrogate", "private_use", "html_entity")


def damage(text: str) -> list[str]:
    """Returns what is wrong with the characters of a text.

    replacement: U+FFFD, which stands where bytes could not be decoded. mojibake: characters that,
    written as Windows-1252 or Latin-1, are UTF-8 of other characters, as "Ã©" is of "é". control:
    control characters but tab, line feed, carriage return and next line. surrogate: half of a
    character. private_use: characters without a meaning of their own. html_entity: such as "&amp;",
    which a browser would show as another character.
    """
    out = []
    if "&" in text and _entity.search(text):
        out.append("html_entity")
    if _control.search(text):
        out.append("control")
    if text.isascii():
        return out
    if "\ufffd" in text:
        out.append("replacement")
    if _surrogate.search(text):
        out.append("surrogate")
    if _private.search(text):
        out.append("private_use")
    if is_mojibake(text):
        out.append("mojibake")
    return out


def is_mojibake(text: str) -> bool:
    """Returns whether part of a text is UTF-8 that was read as Windows-1252 or Latin-1.

    One sequence of bytes is enough where it is one of those that this error nearly always makes (of
    Latin-1 letters, of punctuation, of emoji); of others, such as "É…", two are needed: one may
    have been meant.
    """
    for run in _not_ascii.findall(text):
        found = _sequence.findall(b"".join(map(_byte, run)))
        if len(found) > 1 or any(
            sequence[0] in (0xC2, 0xC3) or sequence[0] >= 0xE0 for sequence in found
        ):
            return True
    return False


def _byte(char: str) -> bytes:
    for encoding in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeError):
            return char.encode(encoding)
    return b"\0"  # no byte: a sequence ends here


# --- labels
# --------------------------------------------------------------------------------------------------
def variants(labels: Counter[str]) -> list[list[str]]:
    """Returns groups of labels that differ only in case, white space, `_` and `-`.

    The most frequent spelling of a group is its first.
    """
    groups = defaultdict(list)
    for label in labels:
        groups[re.sub(r"[\s_-]+", " ", text_measures.normalised(label)).strip()].append(label)
    return [
        sorted(group, key=lambda label: (-labels[label], label))
        for _, group in sorted(groups.items())
        if len(group) > 1
    ]


@dataclasses.dataclass
class TextIndex:
    """Every text by its key: its labels and the splits that it stands in.

    Attributes:
      first: the id of the labels that it had first. conflicting: the keys that have several.
      splits: a bit per split. times: rows by split and key are not kept, only whether a key was
        there before (`repeated`).
    """

    label_ids: dict[tuple[str, ...], int] = dataclasses.field(default_factory=dict)
    first: dict[int, int] = dataclasses.field(default_factory=dict)
    conflicting: set[int] = dataclasses.field(default_factory=set)
    splits: dict[int, int] = dataclasses.field(default_factory=dict)
    # by split: rows whose text stood in it before
    repeated: Counter[int] = dataclasses.field(default_factory=Counter)

    def add(self, key: int, labels: tuple[str, ...], split: int) -> None:
        bits = self.splits.get(key, 0)
        self.repeated[split] += bits >> split & 1
        self.splits[key] = bits | 1 << split
        if labels:
            found = self.label_ids.setdefault(labels, len(self.label_ids))
            if self.first.setdefault(key, found) != found:
                self.conflicting.add(key)


@dataclasses.dataclass
class Consistency:
    """The counts of one split."""

    rows: int = 0
    types: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    damaged: Counter[str] = dataclasses.field(default_factory=Counter)
    damaged_rows: int = 0
    labels: Counter[str] = dataclasses.field(default_factory=Counter)
    conflicting_rows: int = 0  # counted in the second pass
    violating_rows: int = 0
    shared_rows: int = 0  # whose text is in the reference split too

    def add(self, row: Row, labels: tuple[str, ...]) -> list[str]:
        """Counts a row, and returns the damage in it."""
        self.rows += 1
        self.labels.update(labels)
        for name, value in row.fields.items():
            self.types.setdefault(name, Counter())[kind(value)] += 1
        found = sorted(
            {what for text in text_measures.strings(row.fields) for what in damage(text)}
        )
        self.damaged.update(found)
        self.damaged_rows += bool(found)
        return found

    def numbers(self, labelled: bool) -> dict[str, Any]:
        rows = max(self.rows, 1)
        out = {"type_violations": self.violating_rows, "damaged_rows": self.damaged_rows / rows}
        if labelled:
            out = {
                "conflicting_rows": self.conflicting_rows / rows,
                **out,
                "label_variants": sum(len(g) - 1 for g in variants(self.labels)),
            }
        return out


def schema(parts: dict[str, Consistency]) -> dict[str, set[str]]:
    """Returns the types that each column may have, over all splits."""
    counts: dict[str, Counter[str]] = {}
    for part in parts.values():
        for name, found in part.types.items():
            counts.setdefault(name, Counter()).update(found)
    return {name: expected(found) for name, found in counts.items()}


def violations(row: Row, allowed: dict[str, set[str]]) -> list[str]:
    """Returns `column: found X, expected Y` for each cell of a wrong type."""
    out = []
    for name, value in row.fields.items():
        if (found := kind(value)) not in allowed[name]:
            out.append(
                f"{name}: found {found} {_show(value)}, expected"
                f" {' or '.join(sorted(allowed[name] - {'missing'}))}"
            )
    return out


def _show(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
