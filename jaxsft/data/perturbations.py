"""Named perturbations of rows, at a strength: what robustness is measured with.

A perturbed row is a pure function of (seed, row, perturbation, strength): the same whatever stands
around it, and the same for every model that is measured. A strength is a share between 0 and 1: of
the characters that can be changed, or of the words. At least one is changed where one can be.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from jaxsft.data import perturb
from jaxsft.data.formats import Row, listed
from jaxsft.data.perturb import EditUnit, Table
from jaxsft.data.records import TOKENS
from jaxsft.errors import ConfigError, DataError

SENTENCES = (
    "This was written on a Tuesday.",
    "The page has two columns.",
    "There is a table in the room.",
    "It is now a quarter past ten.",
)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The words that perturbations substitute or insert.

    Attributes:
      lexicon: synonyms of a word. dictionary: its translations.
      sentences: those that distract.
    """

    lexicon: Table = dataclasses.field(default_factory=dict)
    dictionary: Table = dataclasses.field(default_factory=dict)
    sentences: Sequence[str] = SENTENCES


Edit = Callable[[list[EditUnit], float, np.random.Generator, Tables, bool], list[EditUnit]]


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """One way to change a text.

    Attributes:
      about: what it does, for readers.
      edit: `(units, strength, rng, tables, single)`; with `single` no unit becomes two words.
      aligned: each word stays where it is, so that labels of words stay true.
      needs: the table of `Tables` that it cannot do without.
    """

    name: str
    about: str
    edit: Edit
    aligned: bool = False
    needs: str = ""


def _count(units: Sequence[EditUnit], strength: float) -> int:
    return max(1, round(strength * sum(unit.free for unit in units)))


def _letters(change: Callable[..., str | None]) -> Edit:
    return lambda units, strength, rng, tables, single: perturb.characters(
        units, strength, rng, change
    )


def _confused(table: Table) -> Edit:
    return _letters(functools.partial(perturb.confuse, table=table))


def _words(change: Callable[..., list[EditUnit]]) -> Edit:
    return lambda units, strength, rng, tables, single: change(units, _count(units, strength), rng)


def _replaced(name: str) -> Edit:
    return lambda units, strength, rng, tables, single: perturb.synonym(
        units, _count(units, strength), rng, getattr(tables, name), single
    )


def _truncated(
    units: list[EditUnit], strength: float, rng: Any, tables: Tables, single: bool
) -> list[EditUnit]:
    return perturb.truncate(units, _count(units, strength))


def _distracted(
    units: list[EditUnit], strength: float, rng: Any, tables: Tables, single: bool
) -> list[EditUnit]:
    return perturb.distract(units, _count(units, strength), rng, tables.sentences)


PERTURBATIONS = {
    p.name: p
    for p in (
        Perturbation(
            "noise",
            "typing slips: a letter lost, doubled, replaced, transposed",
            _letters(perturb.slip),
            aligned=True,
        ),
        Perturbation(
            "keyboard", "a neighbour on QWERTY", _confused(perturb.KEYBOARD), aligned=True
        ),
        Perturbation("ocr", "shapes that print confuses", _confused(perturb.OCR), aligned=True),
        Perturbation("case", "the other case of a letter", _letters(perturb.flip), aligned=True),
        Perturbation(
            "homoglyphs",
            "letters of other scripts that look alike",
            _confused(perturb.HOMOGLYPHS),
            aligned=True,
        ),
        Perturbation(
            "punctuation",
            "a mark at the end of a word, lost or added",
            _words(perturb.punctuate),
            aligned=True,
        ),
        Perturbation(
            "synonyms",
            "words of the lexicon by a synonym",
            _replaced("lexicon"),
            aligned=True,
            needs="lexicon",
        ),
        Perturbation(
            "code_switch",
            "words of the dictionary by a translation",
            _replaced("dictionary"),
            aligned=True,
            needs="dictionary",
        ),
        Perturbation("delete", "words left out", _words(perturb.delete)),
        Perturbation("swap", "words that change places", _words(perturb.swap)),
        Perturbation("insert", "words of the text once more", _words(perturb.repeat)),
        Perturbation("spaces", "words joined, parted, spaces doubled", _words(perturb.respace)),
        Perturbation("truncate", "the end left out", _truncated),
        Perturbation("distract", "sentences that say nothing, at the end", _distracted),
    )
}


def named(names: Sequence[str], tables: Tables, of_words: bool = False) -> list[Perturbation]:
    """Returns perturbations by name.

    Args:
      of_words: labels belong to words, so that only aligned ones keep them true.

    Raises ConfigError for one that is unknown, breaks labels, or lacks its table.
    """
    option = "robustness.perturbations"
    for name in names:
        if name not in PERTURBATIONS:
            raise ConfigError(f"{option}=[{name}]: unknown; there are {', '.join(PERTURBATIONS)}")
        found = PERTURBATIONS[name]
        if of_words and not found.aligned:
            good = ", ".join(p.name for p in PERTURBATIONS.values() if p.aligned)
            raise ConfigError(
                f"{option}=[{name}]: moves or removes words, and each word has a label here; take"
                f" some of {good}"
            )
        if found.needs and not getattr(tables, found.needs):
            raise ConfigError(
                f"{option}=[{name}]: needs robustness.{found.needs}=FILE, of lines"
                " word<TAB>other, another"
            )
    if len(set(names)) < len(names):
        raise ConfigError(f"{option}: one is named twice")
    return [PERTURBATIONS[name] for name in names]


# --- rows
# --------------------------------------------------------------------------------------------------
def columns_of(row: Row, spec: Any, columns: Any) -> list[str]:
    """Returns the columns of a row that are changed: those that the model is given.

    Of a question with its context that is the question alone, as the places of answers are those of
    the context.

    Args:
      spec: of the task. columns: `data.columns`.

    Raises ConfigError where none is found, or what is given is also what is learnt.
    """
    if spec.output in ("continuation", "hidden"):
        raise ConfigError(
            f"task={spec.name} learns the text that it reads, so that a change of it changes what"
            " is right too; robustness is of the other tasks"
        )
    if spec.of_words:
        names = [columns.tokens] if columns.tokens else list(TOKENS)
        found = [name for name in names if isinstance(row.fields.get(name), list)][:1]
    else:
        names = [n for n in spec.records.inputs(columns) if n not in (columns.features or ())]
        names = names[:1] if spec.output == "stretch" else names
        if spec.conversations:
            names.append(columns.messages or "messages")
        found = [name for name in names if row.fields.get(name)]
    if not found:
        raise ConfigError(
            f"{row.where}: found none of the columns {', '.join(names)} that could be changed; name"
            f" one of {listed(row.fields)} with robustness.columns=[...]"
        )
    return found


def perturbed(
    row: Row,
    names: Sequence[str],
    perturbation: Perturbation,
    strength: float,
    seed: int,
    tables: Tables,
) -> Row:
    """Returns the row with its columns changed; a text, a list of words, or what users say in a
    list of messages.

    Raises DataError for a column of another kind.
    """
    how = (perturbation, strength, seed, tables, row)
    fields = dict(row.fields)
    for name in names:
        value = fields.get(name)
        if isinstance(value, str):
            fields[name] = _changed(*how, value, name)
        elif isinstance(value, list) and value and all(isinstance(w, str) for w in value):
            fields[name] = _changed_words(*how, value, name)
        elif isinstance(value, list) and value and all(isinstance(m, Mapping) for m in value):
            fields[name] = [
                {**m, "content": _changed(*how, m["content"], f"{name}.{i}")}
                if m.get("role") == "user" and isinstance(m.get("content"), str)
                else m
                for i, m in enumerate(value)
            ]
        else:
            raise DataError(
                f"{row.where}: column {name!r} is neither a text nor words nor messages; set"
                " robustness.columns"
            )
    return dataclasses.replace(row, fields=fields)


def row_rng(seed: int, perturbation: Perturbation, row: Row, part: str) -> np.random.Generator:
    """Returns the random numbers of a column of a row, which do not depend on the strength."""
    key = f"{perturbation.name}\0{PurePath(row.file).name}:{row.line}\0{part}"
    return np.random.default_rng([seed, *key.encode("utf-8", "backslashreplace")])


def _changed(
    perturbation: Perturbation, strength: float, seed: int, tables: Tables, row: Row, text: str,
    part: str,
) -> str:  # fmt: skip
    lead, units = perturb.units_of(text)
    if not units:
        return text
    rng = row_rng(seed, perturbation, row, part)
    return perturb.joined(lead, perturbation.edit(units, strength, rng, tables, False))[0]


def _changed_words(
    perturbation: Perturbation, strength: float, seed: int, tables: Tables, row: Row,
    words: list[str], part: str,
) -> list[str]:  # fmt: skip
    if not perturbation.aligned:
        raise DataError(
            f"{row.where}: column {part!r} is a list of words, and {perturbation.name} would move"
            " their labels; take a perturbation that keeps the words"
        )
    units = [EditUnit(word, " ") for word in words]
    new = perturbation.edit(units, strength, row_rng(seed, perturbation, row, part), tables, True)
    return [unit.text for unit in new]
