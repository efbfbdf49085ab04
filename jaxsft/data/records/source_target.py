"""Records of a source and what it becomes: a translation, a summary, a sentence for a table;
perhaps with several references.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records.fields import list_of, show, text_of
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError


@dataclasses.dataclass(frozen=True, slots=True)
class Seq2Seq(Record):
    """A source and its target; with several references, the target is the first of them."""

    source: str
    target: str
    references: tuple[str, ...] = ()


def seq2seq_record(row: Row, columns: Any) -> Seq2Seq:
    """Reads a row with `source` and `target`, or with a source and a list of references.

    The references are in `data.columns.references`, or in a column `references` beside no target.

    Raises:
      DataError: a column is missing, holds no text, or the list of references is empty or holds
        something else than texts.
    """
    source = text_of(row, columns.source or "source", "data.columns.source")
    name = columns.references or (
        "references" if columns.target is None and "references" in row.fields else None
    )
    if name is None:
        return Seq2Seq(source, text_of(row, columns.target or "target", "data.columns.target"))
    value = require_column(row, name, "data.columns.references")
    found = (
        [value]
        if isinstance(value, str) and not value.lstrip().startswith("[")
        else list_of(row, name, "data.columns.references")
    )
    if not found or not all(isinstance(text, str) for text in found):
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected a list of at least one"
            " text; set data.columns.references=<column>"
        )
    return Seq2Seq(source, found[0], tuple(found))


def group_references(
    records: Sequence[Seq2Seq], where: Sequence[str]
) -> tuple[list[Seq2Seq], list[str]]:
    """Merges the records of each source into one with all its references.

    Returns the records in the order in which the sources first occur, and where the first record of
    each stands.
    """
    references: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for record, place in zip(records, where, strict=True):
        found = references.setdefault(record.source, [])
        found.extend(text for text in record.references or (record.target,) if text not in found)
        first.setdefault(record.source, place)
    return [Seq2Seq(source, found[0], tuple(found)) for source, found in references.items()], list(
        first.values()
    )
