"""Edits of words and characters that never touch what a label points at."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxsft.data.scripts import UNSPACED, lines_of
from jaxsft.errors import ConfigError

_unit = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
Table = Mapping[str, Sequence[str]]


@dataclasses.dataclass
class EditUnit:
    """A word (a character, in scripts without spaces) and the white space behind it.

    Attributes:
      free: words may be replaced, moved and deleted, and characters changed. soft: its characters
        may be changed (a tagged word keeps its tag).
      start: where a marked span began; None: no span.
      before: a word may be put before it. fixed: it may not be deleted: it keeps two marked words
        apart.
    """

    text: str
    space: str = " "
    free: bool = True
    soft: bool = True
    start: int | None = None
    before: bool = True
    fixed: bool = False


def units_of(text: str, spans: Sequence[tuple[int, int]] = ()) -> tuple[str, list[EditUnit]]:
    """Returns the leading white space and the units of a text.

    What spans mark is one unit each (overlapping ones together), and not free.
    """
    blocks: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if blocks and start < blocks[-1][1]:
            blocks[-1] = (blocks[-1][0], max(end, blocks[-1][1]))
        else:
            blocks.append((start, end))
    pieces: list[tuple[int, int, bool]] = []
    at = 0
    for start, end in [*blocks, (len(text), len(text))]:
        pieces += [(match.start(), match.end(), True) for match in _unit.finditer(text, at, start)]
        if end > start:
            pieces.append((start, end, False))
        at = max(at, end)
    if not pieces:
        return text, []
    ends = [start for start, _, _ in pieces[1:]] + [len(text)]
    units = [
        EditUnit(text[start:end], text[end:following], free, free, None if free else start)
        for (start, end, free), following in zip(pieces, ends, strict=True)
    ]
    for previous, unit in itertools.pairwise(units):
        unit.before = bool(previous.space)
    return text[: pieces[0][0]], units


def joined(lead: str, units: Sequence[EditUnit]) -> tuple[str, dict[int, int]]:
    """Joins units to a text; returns also the new start of each span's unit, by its old start."""
    parts, moved, at = [lead], {}, len(lead)
    for unit in units:
        if unit.start is not None:
            moved[unit.start] = at
        parts += [unit.text, unit.space]
        at += len(unit.text) + len(unit.space)
    return "".join(parts), moved


# --- words: Wei & Zou 2019, "EDA", section 2
# --------------------------------------------------------------------------------------------------
def swap(units: list[EditUnit], count: int, rng: np.random.Generator) -> list[EditUnit]:
    """Swaps two free words `count` times."""
    units = [dataclasses.replace(unit) for unit in units]
    free = [i for i, unit in enumerate(units) if unit.free]
    for _ in range(count if len(free) > 1 else 0):
        i, j = rng.choice(free, 2, replace=False)
        units[i].text, units[j].text = units[j].text, units[i].text
    return units


def delete(units: list[EditUnit], count: int, rng: np.random.Generator) -> list[EditUnit]:
    """Deletes `count` free words; one word always stays.

    It is a fixed number, where EDA draws for each word.
    """
    free = [i for i, unit in enumerate(units) if unit.free and not unit.fixed]
    gone = (
        set(rng.choice(free, min(count, len(free), len(units) - 1), replace=False).tolist())
        if free and len(units) > 1
        else set()
    )
    left = [dataclasses.replace(unit) for i, unit in enumerate(units) if i not in gone]
    if left and units and len(units) - 1 in gone:
        left[-1].space = units[-1].space
    return left


def synonym(
    units: list[EditUnit], count: int, rng: np.random.Generator, lexicon: Table, single: bool
) -> list[EditUnit]:
    """Replaces `count` free words by a synonym; with `single` only by one of a single word."""
    units = [dataclasses.replace(unit) for unit in units]
    known = [
        i for i, unit in enumerate(units) if unit.free and _synonyms(unit.text, lexicon, single)
    ]
    for i in rng.permutation(known)[:count] if known else ():
        units[i].text = _drawn(units[i].text, lexicon, single, rng)
    return units


def insert(
    units: list[EditUnit], count: int, rng: np.random.Generator, lexicon: Table, single: bool
) -> list[EditUnit]:
    """Inserts a synonym of a free word before some word or at the end, `count` times."""
    units = [dataclasses.replace(unit) for unit in units]
    known = [unit.text for unit in units if unit.free and _synonyms(unit.text, lexicon, single)]
    for _ in range(count if known else 0):
        word = _drawn(known[int(rng.integers(len(known)))], lexicon, single, rng).lower()
        places = [i for i, unit in enumerate(units) if unit.before]
        i = int(rng.choice([*places, len(units)]))
        if i == len(units):
            units.append(EditUnit(word, units[-1].space))
            units[-2].space = " "
        else:
            units.insert(i, EditUnit(word, " "))
    return units


def repeat(units: list[EditUnit], count: int, rng: np.random.Generator) -> list[EditUnit]:
    """Inserts a word of the text once more, before some word, `count` times."""
    units = [dataclasses.replace(unit) for unit in units]
    words = [unit.text for unit in units if unit.free]
    for _ in range(count if words else 0):
        places = [i for i, unit in enumerate(units) if unit.before]
        word = words[int(rng.integers(len(words)))]
        units.insert(int(rng.choice(places)), EditUnit(word, " "))
    return units


def truncate(units: list[EditUnit], count: int) -> list[EditUnit]:
    """Leaves out the last `count` words; one word always stays."""
    left = [dataclasses.replace(unit) for unit in units[: max(1, len(units) - count)]]
    if left and len(left) < len(units):
        left[-1].space = units[-1].space
    return left


def respace(units: list[EditUnit], count: int, rng: np.random.Generator) -> list[EditUnit]:
    """Joins a word with the next one, doubles the space behind it or parts it, at `count` words."""
    units = [dataclasses.replace(unit) for unit in units]
    for i in rng.permutation(len(units))[:count]:
        unit, kind = units[i], int(rng.integers(3))
        if kind == 0 and unit.space and i + 1 < len(units):
            unit.space = ""
        elif kind == 1 or len(unit.text) < 2:
            unit.space = (unit.space or " ") + " "
        else:
            at = 1 + int(rng.integers(len(unit.text) - 1))
            unit.text = f"{unit.text[:at]} {unit.text[at:]}"
    return units


def distract(
    units: list[EditUnit], count: int, rng: np.random.Generator, sentences: Sequence[str]
) -> list[EditUnit]:
    """Appends sentences, until they have `count` words at least."""
    units, added = [dataclasses.replace(unit) for unit in units], 0
    while added < count:
        sentence = sentences[int(rng.integers(len(sentences)))]
        if units:
            units[-1].space = units[-1].space or " "
        units.append(EditUnit(sentence, ""))
        added += max(1, len(sentence.split()))
    return units


MARKS = ".,;:!?"


def punctuate(units: list[EditUnit], count: int, rng: np.random.Generator) -> list[EditUnit]:
    """Takes the mark from the end of a word, or puts one there, at `count` words; a word that is
    all marks becomes another mark.
    """
    units = [dataclasses.replace(unit) for unit in units]
    soft = [i for i, unit in enumerate(units) if unit.soft]
    for i in rng.permutation(soft)[:count] if soft else ():
        word, mark = units[i].text, MARKS[int(rng.integers(len(MARKS)))]
        bare = word.rstrip(MARKS)
        if not bare:
            units[i].text = mark if mark != word else MARKS[(MARKS.index(mark) + 1) % len(MARKS)]
        else:
            units[i].text = bare if bare != word else word + mark
    return units


def _synonyms(word: str, lexicon: Table, single: bool) -> list[str]:
    return [
        other for other in lexicon.get(word.lower(), ()) if not (single and len(other.split()) > 1)
    ]


def _drawn(word: str, lexicon: Table, single: bool, rng: np.random.Generator) -> str:
    found = _synonyms(word, lexicon, single)
    new = found[int(rng.integers(len(found)))]
    return (
        new.upper()
        if word.isupper() and len(word) > 1
        else new[:1].upper() + new[1:]
        if word[:1].isupper()
        else new
    )


# --- characters
# --------------------------------------------------------------------------------------------------
_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, list[str]]:
    """Returns the keys that touch each key on a QWERTY keyboard.

    They lie beside it, and in the rows above and below, which are shifted by half a key.
    """
    table = {}
    for r, row in enumerate(_ROWS):
        for c, key in enumerate(row):
            places = [
                (r, c - 1),
                (r, c + 1),
                (r - 1, c),
                (r - 1, c + 1),
                (r + 1, c - 1),
                (r + 1, c),
            ]
            table[key] = [
                _ROWS[y][x] for y, x in places if 0 <= y < len(_ROWS) and 0 <= x < len(_ROWS[y])
            ]
    return table


KEYBOARD: Table = _neighbours()
# What readers of print take for each other: shapes that are close, and letters that run together.
OCR: Table = {
    "0": ["O", "o"], "O": ["0", "Q"], "o": ["0", "c"], "1": ["l", "I"], "l": ["1", "I"],
    "I": ["l", "1"], "i": ["1", "j"], "j": ["i"], "5": ["S"],
    "S": ["5"], "8": ["B"], "B": ["8"], "2": ["Z"], "Z": ["2"], "6": ["G", "b"], "G": ["6", "C"],
    "9": ["g"], "g": ["9", "q"], "q": ["g"], "e": ["c"],
    "c": ["e", "o"], "h": ["b", "li"], "b": ["h", "6"], "m": ["rn"], "n": ["ri"], "u": ["v", "ii"],
    "v": ["u"], "w": ["vv"], "d": ["cl"], "f": ["t"],
    "t": ["f"], "D": ["O"], "rn": ["m"], "cl": ["d"], "vv": ["w"], "ii": ["u"], "ſ": ["f"],
    "s": ["ſ"],
}  # fmt: skip

# Letters of other scripts that look like Latin ones: Cyrillic and Greek.
HOMOGLYPHS: Table = {
    "a": ["а"], "c": ["с"], "e": ["е"], "i": ["і"], "j": ["ј"], "o": ["о", "ο"], "p": ["р"],
    "s": ["ѕ"], "x": ["х"], "y": ["у"], "h": ["һ"], "v": ["ν"], "A": ["А", "Α"], "B": ["В", "Β"],
    "C": ["С"], "E": ["Е", "Ε"], "H": ["Н", "Η"], "I": ["І", "Ι"], "J": ["Ј"], "K": ["К", "Κ"],
    "M": ["М", "Μ"], "N": ["Ν"], "O": ["О", "Ο"], "P": ["Р", "Ρ"], "S": ["Ѕ"], "T": ["Т", "Τ"],
    "X": ["Х", "Χ"], "Y": ["Υ"], "Z": ["Ζ"],
}  # fmt: skip


def characters(
    units: list[EditUnit],
    rate: float,
    rng: np.random.Generator,
    edit: Callable[[str, int, np.random.Generator], str | None],
) -> list[EditUnit]:
    """Edits `rate` of the characters that `edit` can change (at least one), at distinct places.

    Args:
      edit: (word, place, rng) -> the word with another character there; None where there is nothing
        to change at the place.
    """
    units = [dataclasses.replace(unit) for unit in units]
    # whether a place can be changed must not use up random numbers
    probe = np.random.default_rng(0)
    places = [
        (i, at)
        for i, unit in enumerate(units)
        if unit.soft
        for at in range(len(unit.text))
        if edit(unit.text, at, probe) is not None
    ]
    count = max(1, round(rate * len(places)))
    chosen = (
        sorted((places[i] for i in rng.permutation(len(places))[:count]), reverse=True)
        if places
        else []
    )
    for i, at in chosen:  # from the end: what stands before keeps its place
        new = edit(units[i].text, at, rng)
        units[i].text = new if new else units[i].text
    return units


def slip(word: str, at: int, rng: np.random.Generator) -> str | None:
    """Makes a typing slip: a letter is dropped, doubled, swapped or becomes another of the word."""
    if not word[at].isalnum() or len(word) == 1:
        return None
    kind = int(rng.integers(4))
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[: at + 1] + word[at:]
    if kind == 2:
        return word[:at] + word[int(rng.integers(len(word)))] + word[at + 1 :]
    return word[:at] + word[at : at + 2][::-1] + word[at + 2 :]


def confuse(word: str, at: int, rng: np.random.Generator, table: Table) -> str | None:
    """Replaces the characters at the place (two, if the table has them) as the table says.

    Case is kept where the table has lower case only.
    """
    for size in (2, 1):
        part = word[at : at + size]
        if len(part) == size and (found := table.get(part) or table.get(part.lower())):
            new = found[int(rng.integers(len(found)))]
            return word[:at] + (new if part in table else new.upper()) + word[at + size :]
    return None


def flip(word: str, at: int, rng: np.random.Generator) -> str | None:
    """Switches the case of the letter, where the other case is one letter too."""
    other = word[at].swapcase()
    return word[:at] + other + word[at + 1 :] if other != word[at] and len(other) == 1 else None


@functools.cache
def table_of(path: str, option: str, lower: bool) -> dict[str, tuple[str, ...]]:
    """Reads a file of lines `word<TAB>other, another`.

    Raises ConfigError for a line of another form.
    """
    table: dict[str, tuple[str, ...]] = {}
    for line in lines_of(path, option):
        key, tab, rest = line.partition("\t")
        others = tuple(other.strip() for other in rest.split(",") if other.strip())
        if not tab or not others:
            raise ConfigError(
                f"{option}={path}: {line!r:.60} is not of the form word<TAB>other, another"
            )
        table[key.strip().lower() if lower else key.strip()] = others
    return table
