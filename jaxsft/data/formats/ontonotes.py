"""The columns of CoNLL-2012 (OntoNotes): at least twelve, with named entities in brackets.

Pradhan et al. 2012, aclanthology.org/W12-4501. The columns of arguments differ in number from
sentence to sentence; entities are `(GPE*` `*)` `(DATE)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# The first eleven columns, and the last; what stands between them are the arguments of each verb.
NAMES = (
    "document_id",
    "part",
    "number",
    "word",
    "pos",
    "parse",
    "lemma",
    "frameset",
    "sense",
    "speaker",
    "entities",
    "coreference",
)
TOKENS, ENTITIES = 3, 10
_brackets = re.compile(r"(?:\(([^()*\s]+))?\*?(\))?")
_begin = re.compile(r"#begin document \(.*\); part \d+\s*")


def is_layout(lines: Sequence[str]) -> bool:
    """Returns whether lines have these columns; one of them must declare a document."""
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return (
        any(map(_begin.fullmatch, lines))
        and bool(rows)
        and all(len(row) >= 12 and row[2].isdecimal() for row in rows[:200])
    )


def cells(line: str) -> list[str]:
    """Returns the cells of the columns of `NAMES`."""
    found = line.split()
    return [*found[:11], found[-1]] if len(found) >= len(NAMES) else found


def iob2(column: Sequence[str]) -> list[str]:
    """Converts a column of brackets to IOB2 tags.

    Raises:
      ValueError: brackets that do not fit each other; its argument is the position and what is
        wrong.
    """
    tags, kind = [], None
    for i, cell in enumerate(column):
        if (
            not (found := _brackets.fullmatch(cell))
            or (found[1] and kind is not None)
            or (found[2] and not found[1] and kind is None)
        ):
            raise ValueError(
                i,
                f"found {cell[:40]!r}, expected brackets such as (GPE*, * and *), of which one is"
                " open at a time",
            )
        tags.append(f"B-{found[1]}" if found[1] else f"I-{kind}" if kind is not None else "O")
        kind = None if found[2] else found[1] or kind
    if kind is not None:
        raise ValueError(len(column) - 1, f"the bracket ({kind[:40]} is not closed")
    return tags
