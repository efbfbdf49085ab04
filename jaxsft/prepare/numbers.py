"""Columns of rows as arrays, for the stages on numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.stage import number_of, value_of

BLOCK = 1024  # rows that are worked on at once


def blocks(rows: Iterable[Row], size: int = BLOCK) -> Iterator[list[Row]]:
    """Yields consecutive rows, `size` at a time: enough for arrays, few enough for the memory."""
    left = iter(rows)
    while block := list(itertools.islice(left, size)):
        yield block


def table(
    rows: Iterable[Row], fields: Sequence[str], option: str, missing: str = "keep"
) -> np.ndarray:
    """Returns the numbers of the columns, `[rows, fields]`, NaN where one is missing.

    Raises DataError (no number; or missing, with missing="error").
    """
    return np.array([numbers(row, fields, option, missing) for row in rows], np.float64).reshape(
        -1, len(fields)
    )


def there(row: Row, fields: Sequence[str], split: str) -> list[str]:
    """Returns the columns that a stage treats in a row.

    They are all; of a new row (`predict`) those that it has, for it comes without the targets.
    """
    return [name for name in fields if split != "predict" or name in row.fields]


def numbers(row: Row, fields: Sequence[str], option: str, missing: str = "keep") -> list[float]:
    """Returns the numbers of one row; a missing one as in `table`."""
    out = []
    for field in fields:
        number = number_of(row, field, option)
        if number is None and missing == "error":
            raise DataError(
                f"{row.where}: column {field!r} is empty, expected a number; fill it by the stage"
                f" missing before this one, or set {option.rpartition('.')[0]}.missing=keep"
            )
        out.append(float("nan") if number is None else number)
    return out


def vector(row: Row, name: str, option: str) -> np.ndarray:
    """Returns the list of numbers in a column (an embedding), `[D]`.

    Raises DataError where it is none.
    """
    value = value_of(row, name, option)
    good = (
        isinstance(value, list)
        and value
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )
    if not good or not np.isfinite(np.array(value, np.float64)).all():
        raise DataError(
            f"{row.where}: column {name!r} holds {value!r:.60}, expected a list of finite numbers;"
            f" set {option} to the column of it"
        )
    return np.array(value, np.float64)


def rounded(value: float) -> float:
    """Rounds to nine digits.

    What is left does not depend on how many rows were multiplied at once.
    """
    return float(f"{float(value):.9g}")


def row_weights(rows: Iterable[Row], weights: np.ndarray, into: str, option: str) -> list[float]:
    """Returns weights `[N]` of training rows, times those in the column, scaled to the mean 1.

    Raises DataError where one is not above 0.
    """
    weights = np.array(weights, np.float64)
    for i, row in enumerate(rows):
        if row.fields.get(into) is not None:
            given = number_of(row, into, option)
            if given is None or not 0 < given < float("inf"):
                raise DataError(
                    f"{row.where}: column {into!r} holds {row.fields[into]!r:.60}, expected a"
                    f" weight above 0; set {option}"
                )
            weights[i] *= given
    return [rounded(w) for w in weights / weights.mean()]


def plain(array: Any) -> Any:
    """Converts an array to nested lists of floats, NaN to None: JSON has no NaN."""
    if isinstance(array, np.ndarray) and array.ndim:
        return [plain(part) for part in array]
    return None if array != array else float(array)


def array(nested: Any) -> np.ndarray:
    """Converts what `plain` wrote back to an array."""
    return np.array(nested, np.float64)  # None becomes NaN


def required(stage: str, fields: Sequence[str], what: str = "fields") -> None:
    """Raises ConfigError where no column is named, or one twice."""
    if not fields or len(set(fields)) != len(fields):
        raise ConfigError(
            f"stages.{stage}.{what}={list(fields)}: expected names of columns, each once"
        )


def at_least(stage: str, least: float, **options: float | None) -> None:
    """Raises ConfigError where an option is less than `least` or no finite number; null passes."""
    for name, value in options.items():
        if value is not None and not least <= value < float("inf"):
            raise ConfigError(
                f"stages.{stage}.{name}={value}: expected a finite number of at least {least}"
            )


def series(
    rows: Sequence[Row], order: str | None, group: str | None, stage: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields for each group the indices of its rows in order, and their places on `order`.

    Without `order` the places are 0, 1, ...

    Raises DataError where a place is missing or occurs twice in a series.
    """
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(
            "" if group is None else str(value_of(row, group, f"stages.{stage}.group")), []
        ).append(i)
    for indices in members.values():
        where = np.array(indices)
        if order is None:
            yield where, np.arange(len(where), dtype=np.float64)
            continue
        option = f"stages.{stage}.order"
        places = np.array([number_of(rows[i], order, option) for i in indices], np.float64)
        if np.isnan(places).any():
            raise DataError(
                f"{rows[indices[int(np.isnan(places).argmax())]].where}: column {order!r} is empty,"
                f" expected a place in the order; set {option}"
            )
        sort = np.argsort(places, kind="stable")
        where, places = where[sort], places[sort]
        if (same := np.flatnonzero(np.diff(places) == 0)).size:
            first, second = rows[where[same[0]]], rows[where[same[0] + 1]]
            raise DataError(
                f"{second.where}: {order}={places[same[0]]:g} again, after {first.where}; set"
                f" stages.{stage}.group to the column of the series"
            )
        yield where, places
