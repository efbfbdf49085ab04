"""Rows from a pandas DataFrame, and back.

pandas is imported where it is used: install jaxsft[frames].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.data.formats.row import repeated
from jaxsft.errors import ConfigError, DataError
from jaxsft.extras import need


def from_pandas(frame: Any, name: str = "frame") -> list[Row]:
    """Returns the rows of a DataFrame, with plain JSON values.

    `row.where` is `name:1` for the first, whatever the index is.

    NaN, NaT, pd.NA and None become None; numpy's scalars Python's; categories what they stand for;
    dates, times and durations ISO 8601 text; arrays, tuples and sets lists. The index is left out:
    `frame.reset_index()` makes it a column.

    Raises:
      ConfigError: pandas is not installed; `frame` is no DataFrame.
      DataError: a column name is no text, or occurs twice; a value has no JSON form, such as bytes
        (named by row and column).
    """
    pandas = need("pandas", "DataFrames", "frames")
    if not isinstance(frame, pandas.DataFrame):
        raise ConfigError(
            f"from_pandas: found a {type(frame).__name__}, expected a pandas DataFrame"
        )
    names = list(frame.columns)
    for column in names:
        if not isinstance(column, str):
            raise DataError(
                f"{name}: the column name {column!r} is no text; rename it with"
                " frame.rename(columns=str)"
            )
    if (twice := repeated(names)) is not None:
        raise DataError(f"{name}: the column name {twice!r} occurs twice; rename one")
    columns = [frame.iloc[:, i].astype(object).tolist() for i in range(len(names))]
    rows = []
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        try:
            fields = {
                column: _plain(pandas, value, column)
                for column, value in zip(names, values, strict=True)
            }
        except ValueError as error:
            raise DataError(f"{name}:{number}: {error}") from None
        rows.append(Row(fields, name, number))
    return rows


def _plain(pandas: Any, value: Any, column: str) -> Any:
    if value is None or value is pandas.NA or value is pandas.NaT:
        return None
    # numpy's scalars
    if (
        hasattr(value, "item")
        and getattr(value, "ndim", 0) == 0
        and not isinstance(value, str | bytes)
    ):
        return _plain(pandas, _unboxed(pandas, value), column)
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, str | bool | int):
        return (
            value
            if type(value) in (str, bool, int)
            else str(value)
            if isinstance(value, str)
            else int(value)
        )
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"column {column!r} has a dict with a key that is no text")
        return {key: _plain(pandas, part, column) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=repr)
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return [
            _plain(pandas, part, column)
            for part in (value if isinstance(value, list | tuple) else value.tolist())
        ]
    if isinstance(value, pandas.Timedelta):
        return value.isoformat()
    if hasattr(value, "isoformat"):  # Timestamp, datetime, date, time
        return value.isoformat()
    if isinstance(value, pandas.Period | pandas.Interval):
        return str(value)
    raise ValueError(
        f"column {column!r} holds a {type(value).__name__}, which has no JSON form; convert it, or"
        " drop the column"
    )


def _unboxed(pandas: Any, value: Any) -> Any:
    """Converts a numpy scalar to Python's; dates go through pandas, which keeps nanoseconds."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return pandas.Timestamp(value)
    if kind == "m":
        return pandas.Timedelta(value)
    return value.item()


def to_pandas(rows: Iterable[Row | Mapping[str, Any]]) -> Any:
    """Returns a DataFrame of rows or dicts.

    Each field has a column, in the order of their first appearance.

    A column of one type, without nulls, has that type (bool, int64, float64); texts are text; all
    others hold the values themselves, so that `from_pandas(to_pandas(rows))` gives the fields back:
    an integer beside a null stays an integer. A field that a row lacks is None there.

    Raises:
      ConfigError: pandas is not installed.
    """
    pandas = need("pandas", "DataFrames", "frames")
    fields = [row.fields if isinstance(row, Row) else row for row in rows]
    names = list(dict.fromkeys(column for row in fields for column in row))
    columns = {}
    for column in names:
        values = [row.get(column) for row in fields]
        kinds = {type(value) for value in values}
        small = kinds != {int} or all(-(2**63) <= value < 2**63 for value in values)
        known = (
            {
                frozenset({bool}): "bool",
                frozenset({int}): "int64",
                frozenset({float}): "float64",
            }.get(frozenset(kinds))
            if small
            else None
        )
        columns[column] = pandas.Series(
            values, dtype=known or object, index=pandas.RangeIndex(len(values))
        )
    return pandas.DataFrame(columns, columns=names, index=pandas.RangeIndex(len(fields)))
