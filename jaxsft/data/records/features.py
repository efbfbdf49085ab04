"""Numeric and categorical columns beside a text (`data.columns.features`): what is learnt of them
from the training rows, and how they are written.

What is learnt is plain JSON, kept with the run, one entry per column:

    {"name": "age", "mean": 38.5, "deviation": 13.2}                   a number: standardised; a
      missing one is 0, marked as missing
    {"name": "country", "values": ["de", "fr"]}                        a class: numbered from 1; 0
      is any other value, or none
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data.formats import Row, require_column
from jaxsft.data.records.fields import MISSING, finite, show
from jaxsft.errors import DataError

Value = str | None  # a cell as text; None: missing
Learnt = Sequence[Mapping[str, Any]]
OPTION = "data.columns.features"
# cells of this share of the rows (or one) must not leave the deviation of the others below that
# share of all
FEW, FLAT = 0.01, 1e-4


def values_of(row: Row, columns: Any) -> tuple[Value, ...]:
    """Returns the cells of a row, as text, in the order of `data.columns.features`.

    Raises:
      DataError: a column is missing; a cell holds a list or an object; or it is empty under
        `data.columns.missing=error`.
    """
    return tuple(_cell(row, name, columns) for name in columns.features)


def _cell(row: Row, name: str, columns: Any) -> Value:
    value = require_column(row, name, OPTION)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is not None and not isinstance(value, str | int | float):
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected a number or a name; leave"
            f" it out of {OPTION}"
        )
    text = "" if value is None else str(value).strip()
    if text.lower() in MISSING:
        if columns.missing == "error":
            raise DataError(
                f"{row.where}: column {name!r} holds no value; data.columns.missing=mask lets such"
                " cells be"
            )
        return None
    return text


# What looks like a number, and is none that is read here: 1,5 and 1_000, digits of other scripts,
# numbers that no float32 holds, infinity.
_numeral = re.compile(
    r"[+-]?(?:\d[\d.,_'\u00a0\u202f ]*(?:[eE][+-]?\d+)?|inf|infinity)", re.IGNORECASE
)


def learn(
    columns: Any, rows: Sequence[Sequence[Value]], where: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns what is learnt of each column: mean and deviation of numbers, or the set of values.

    A column of numbers alone is one of numbers, unless `data.columns.categories` names it.

    Raises:
      DataError: no row has a value, or all have the same number; or numbers and other cells stand
        in one column that is not among the categories.
    """
    out = []
    for i, name in enumerate(columns.features):
        there = [
            (row[i], place) for row, place in zip(rows, where, strict=True) if row[i] is not None
        ]
        cells = [cell for cell, _ in there]
        file = where[0].rsplit(":", 1)[0] if where else "data"
        if not cells:
            raise DataError(
                f"{file}: column {name!r} has no value in any row of training; leave it out of"
                f" {OPTION}"
            )
        numbers = [finite(cell) for cell in cells] if name not in columns.categories else [None]
        if None in numbers:
            if name not in columns.categories:
                _refuse_mixed(name, numbers, there)
            out.append({"name": name, "values": sorted(set(cells))})
            continue
        mean, deviation = float(np.mean(numbers)), float(np.std(numbers))
        if not deviation > 0:
            raise DataError(
                f"{file}: column {name!r} holds {cells[0]} in every row of training, so it tells"
                f" nothing; leave it out of {OPTION}"
            )
        _refuse_flat(name, numbers, deviation, there)
        out.append({"name": name, "mean": mean, "deviation": deviation})
    return out


def _refuse_flat(
    name: str, numbers: Sequence[float], deviation: float, there: Sequence[tuple[str, str]]
) -> None:
    """Raises DataError for a column of numbers with a few that are far from all others.

    Standardised by a deviation that those few make, the others would all be alike.
    """
    apart = np.abs(np.asarray(numbers, np.float64) - np.median(numbers))
    order = np.argsort(apart, kind="stable")
    most = order[: len(order) - max(1, int(len(order) * FEW))]
    spread = float(np.std(np.asarray(numbers)[most])) if len(most) else 0.0
    if 0 < spread < FLAT * deviation:
        cell, place = there[int(order[-1])]
        raise DataError(
            f"{place}: column {name!r} holds {show(cell)}, so far from the others (median"
            f" {np.median(numbers):g}, deviation {spread:g} without the farthest) that these would"
            f" all be alike; mend it, or leave the row or the column out of {OPTION}"
        )


def _refuse_mixed(
    name: str, numbers: Sequence[float | None], there: Sequence[tuple[str, str]]
) -> None:
    """Raises DataError for a column of words that holds some numbers, or what looks like one.

    One slip in a column of numbers would otherwise turn all of them into categories.
    """
    held = len(numbers) - numbers.count(None)
    cell, place = next(pair for pair, number in zip(there, numbers, strict=True) if number is None)
    odd = next(
        (
            pair
            for pair, number in zip(there, numbers, strict=True)
            if number is None and _numeral.fullmatch(pair[0])
        ),
        None,
    )
    if held or odd:
        cell, place = odd or (cell, place)
        beside = f" beside {held:,} numbers" if held else ""
        raise DataError(
            f"{place}: column {name!r} holds {show(cell)}{beside}, expected a finite number such as"
            " 1250.5; mend it, or name the column in data.columns.categories if its numbers are"
            " names of classes"
        )


def sizes(learnt: Learnt) -> list[int]:
    """Counts the classes of each column, one for other values included.

    A column of numbers has 0.
    """
    return [len(one["values"]) + 1 if "values" in one else 0 for one in learnt]


def encode(
    learnt: Learnt, rows: Sequence[Sequence[Value]], where: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes cells as (numbers, classes), each `[rows, columns]`.

    Numbers are standardised. A missing number is 0 of class 1, others are of class 0; of a category
    the class is its place among the learnt values, from 1, and 0 for any other value.

    Raises:
      DataError: a cell of a column of numbers holds something else.
    """
    numbers, classes = (
        np.zeros((len(rows), len(learnt)), np.float32),
        np.zeros((len(rows), len(learnt)), np.int32),
    )
    for i, one in enumerate(learnt):
        index = {value: k for k, value in enumerate(one.get("values", ()), start=1)}
        for k, row in enumerate(rows):
            if index:
                classes[k, i] = index.get(row[i], 0)
            elif row[i] is None:
                classes[k, i] = 1
            elif (number := finite(row[i])) is None:
                raise DataError(
                    f"{where[k]}: column {one['name']!r} holds {show(row[i])}, but it held numbers"
                    " alone in training; mend it, or name the column in data.columns.categories"
                )
            else:
                numbers[k, i] = _standardised(number, one, where[k])
    return numbers, classes


def _standardised(number: float, one: Mapping[str, Any], where: str) -> float:
    value = (number - one["mean"]) / one["deviation"]
    if not abs(value) < 3e38:
        raise DataError(
            f"{where}: column {one['name']!r} holds {number:g}, too far from the numbers of"
            f" training ({one['mean']:g} on average)"
        )
    return value


def written(template: str, learnt: Learnt, row: Sequence[Value], text: str) -> str:
    """Writes the cells of a row in front of its text, each in the template.

    `{name}` and `{value}` in the template are replaced; a missing cell is left out.
    """
    cells = [
        (one["name"], value) for one, value in zip(learnt, row, strict=True) if value is not None
    ]
    fill = lambda name, value: re.sub(
        r"\{(name|value)\}", lambda found: name if found[1] == "name" else value, template
    )
    return "".join(fill(name, value) for name, value in cells) + text
