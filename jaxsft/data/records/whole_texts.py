"""Records of a text, or of two, with what is said of it as a whole: a class, several, numbers, or
how near the two are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records.features import values_of
from jaxsft.data.records.fields import (
    Doubtful,
    first_of,
    label_of,
    list_of,
    number_of,
    one_hot,
    pair_of,
    show,
    spells_list,
    text_of,
)
from jaxsft.data.records.settled import hot
from jaxsft.data.row_weights import Record
from jaxsft.errors import DataError

ABSENT = "data.columns.allow=[absent]"  # a row without them has none
LABELS = ("labels", "label")  # columns of several labels, in this order, where none is named


@dataclasses.dataclass(frozen=True, slots=True)
class Text(Record):
    """Running text."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledText(Record):
    """A text, or a pair of texts, and the name of its class. `features` are further cells of its
    row (`data.features.values_of`).
    """

    text: str
    text_pair: str | None
    label: str
    features: tuple[str | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class MultiLabel(Record):
    """A text, or a pair of texts, and the names of the classes that apply; there may be none."""

    text: str
    text_pair: str | None
    labels: tuple[str, ...]
    features: tuple[str | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Regression(Record):
    """A text, or a pair of texts, and numbers: float32 values, one per target column. NaN stands
    for one that is missing (`missing=mask`).
    """

    text: str
    text_pair: str | None
    targets: tuple[float, ...]
    features: tuple[str | None, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Pair(Record):
    """Two texts, and the class of the pair, how near they are (float32), or neither: two that
    belong together.
    """

    text_a: str
    text_b: str
    label: str | None = None
    score: float | None = None


def text_record(row: Row, columns: Any) -> Text:
    """Reads a row with one text (which may be empty).

    Raises DataError if the column is missing or no string.
    """
    return Text(text_of(row, columns.text or "text", "data.columns.text"))


def label_record(row: Row, columns: Any) -> LabelledText:
    """Reads a row with a text, perhaps a second one, and a label (see `fields.label_of`).

    Raises:
      DataError: a column is missing, a text is no string, or a label is none.
    """
    name = columns.label or "label"
    value = require_column(row, name, "data.columns.label")
    return LabelledText(
        *pair_of(row, columns),
        label_of(value, f"{row.where}: column {name!r}", columns),
        values_of(row, columns),
    )


def multilabel_record(row: Row, columns: Any) -> MultiLabel:
    """Reads a row with a text and its labels.

    The labels are a list, a cell in which `data.columns.separator` parts them, or a column of 0 and
    1 for each class.

    Raises:
      DataError: a column is missing, a text is no string, a label is none or stands twice, or a
        one-hot column holds something else than 0 or 1.
    """
    text, pair = pair_of(row, columns)
    name = columns.label or first_of(row, LABELS)
    if columns.labels:
        if (
            columns.labels[0] not in row.fields
            and (found := one_hot(row.fields.get(name))) is not None
        ):
            return MultiLabel(
                text, pair, _places(row, name, found, columns.labels), values_of(row, columns)
            )
        return MultiLabel(
            text,
            pair,
            tuple(name for name in columns.labels if _flag(row, name)),
            values_of(row, columns),
        )
    if row.fields.get(name) is None and "absent" in columns.allow:
        return MultiLabel(text, pair, (), values_of(row, columns))
    found, where = (
        require_column(row, name, f"{ABSENT}, or data.columns.label"),
        f"{row.where}: column {name!r}",
    )
    # as Label Studio writes it into a cell
    if isinstance(found, str) and found.lstrip().startswith('{"choices"'):
        found = found[found.index(":") + 1 : found.rindex("}") if "}" in found else None].strip()
        row = Row({**row.fields, name: found}, row.file, row.line)
    if isinstance(found, str) and not spells_list(found):
        parts: list[Any] = (
            [part.strip() for part in found.split(columns.separator)] if found.strip() else []
        )
    elif isinstance(found, int | float):
        parts = [found]
    else:
        parts = list_of(row, name, "data.columns.label")
    labels = tuple(label_of(part, where, columns) for part in parts)
    if len(set(labels)) < len(labels):
        if (places := one_hot(found)) is not None:
            raise Doubtful(
                hot(row, name, places), "one_hot", "data.columns.labels=[<a name for each place>]"
            )
        raise DataError(
            f"{where} holds {show(found)}, in which the label"
            f" {next(x for x in labels if labels.count(x) > 1)!r} stands twice; remove one"
        )
    return MultiLabel(text, pair, labels, values_of(row, columns))


def _places(row: Row, name: str, found: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes of a one-hot list, by their names.

    Raises DataError where it has more places than there are names, or fewer.
    """
    if len(found) != len(names):
        raise DataError(
            f"{row.where}: column {name!r} holds {len(found)} zeros and ones, but"
            f" data.columns.labels names {len(names)} classes"
        )
    return tuple(one for one, flag in zip(names, found, strict=True) if flag)


def _flag(row: Row, name: str) -> bool:
    value = require_column(row, name, "data.columns.labels")
    known = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
    if (text := str(value).strip().lower()) not in known:
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected 0 or 1;"
            " data.columns.labels names one-hot columns"
        )
    return known[text]


def regression_record(row: Row, columns: Any) -> Regression:
    """Reads a row with a text and one or several numbers (`data.columns.targets`).

    Raises:
      DataError: a column is missing, a text is no string, a target is no finite number, or is
        missing under `data.columns.missing=error`.
    """
    names = columns.targets or (columns.label or "label",)
    option = "data.columns.targets" if columns.targets else "data.columns.label"
    targets = []
    for name in names:
        number = number_of(row, name, option)
        if number is None and columns.missing == "error":
            raise DataError(
                f"{row.where}: column {name!r} holds no number; data.columns.missing=mask leaves"
                " such targets out of the loss"
            )
        targets.append(math.nan if number is None else number)
    if all(math.isnan(number) for number in targets):
        raise DataError(
            f"{row.where}: every target is missing (columns {', '.join(map(repr, names))}); remove"
            " the row"
        )
    return Regression(*pair_of(row, columns), tuple(targets), values_of(row, columns))


def pair_record(row: Row, columns: Any) -> Pair:
    """Reads a row with two texts and, if present, a score (`data.columns.score`) or a label.

    Raises:
      DataError: a column is missing, a text is no string, a label is none, or a score is no finite
        number.
    """
    a = text_of(row, columns.text or "text", "data.columns.text")
    b = text_of(row, columns.text_pair or "text_pair", "data.columns.text_pair")
    name = columns.label or "label"
    if columns.score is not None:
        score = number_of(row, columns.score, "data.columns.score")
        if score is None:
            raise DataError(
                f"{row.where}: column {columns.score!r} holds no score, expected a number; remove"
                " the row"
            )
        return Pair(a, b, score=score)
    if columns.label is None and name not in row.fields:
        return Pair(a, b)
    return Pair(
        a,
        b,
        label=label_of(
            require_column(row, name, "data.columns.label"),
            f"{row.where}: column {name!r}",
            columns,
        ),
    )
