"""The type of each column of rows that are written as Parquet or Arrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxsft.errors import DataError


def schema_of(pa: Any, rows: Sequence[dict[str, Any]], name: str) -> Any:
    """Returns the schema of rows, which all have the same columns of one type. Raises DataError."""
    if not rows:
        raise DataError(
            f"{name}: there are no rows to write, and so no columns; write .jsonl instead"
        )
    kind: Any = None
    for number, row in enumerate(rows, start=1):
        kind = _merged(kind, row, lambda where, number=number: f"{name}: row {number}{where}")
    return pa.schema([(column, _arrow_type(pa, inside)) for column, inside in kind[1].items()])


def _merged(kind: Any, value: Any, where: Callable[[str], str]) -> Any:
    """Merges the type seen so far (None: only null) with that of a value.

    A type is "text", "bool", "int", "uint", "float", ("list", type) or ("dict", {key: type}).
    """
    if value is None:
        return kind
    if isinstance(value, dict):
        return _merged_dict(kind, value, where)
    if isinstance(value, list | tuple):
        if kind is not None and kind[0] != "list":
            raise _mixed(kind, "list", where)
        inside = kind[1] if kind else None
        for part in value:
            inside = _merged(inside, part, where)
        return ("list", inside)
    found = {str: "text", bool: "bool", int: "int", float: "float"}.get(type(value))
    if found is None:
        raise DataError(
            f"{where('')}: found a {type(value).__name__}, which is no JSON value; convert it first"
        )
    if found == "int" and not -(2**63) <= value < 2**63:
        found = "uint"
        if not 0 <= value < 2**64:
            raise DataError(
                f"{where('')}: found the integer {value}, which has more than 64 bits; write it as"
                " text, or write .jsonl instead"
            )
    if {kind, found} == {"int", "uint"}:
        raise DataError(
            f"{where('')}: found {value}: one type of 64 bits does not hold all integers of the"
            " column; write .jsonl instead"
        )
    if kind not in (None, found):
        raise _mixed(kind, found, where)
    return found


def _merged_dict(kind: Any, value: dict[str, Any], where: Callable[[str], str]) -> Any:
    if kind is not None and kind[0] != "dict":
        raise _mixed(kind, "dict", where)
    fields = dict(kind[1]) if kind else dict.fromkeys(value)
    if set(fields) != set(value) or not value:
        found, expected = sorted(map(str, value)), sorted(map(str, fields))
        raise DataError(
            f"{where('')} has the columns {found}, expected {expected or 'some'} as in the first;"
            " write .jsonl instead"
        )
    for key, part in value.items():
        fields[key] = _merged(
            fields[key], part, lambda inner, key=key: where(f", column {key!r}{inner}")
        )
    return ("dict", fields)


def _mixed(kind: Any, found: str, where: Callable[[str], str]) -> DataError:
    before = kind if isinstance(kind, str) else kind[0]
    return DataError(
        f"{where('')}: found a value of the type {found}, expected {before} as in the rows before;"
        " a column has one type, or write .jsonl"
    )


def _arrow_type(pa: Any, kind: Any) -> Any:
    if kind is None:
        return pa.null()
    if isinstance(kind, tuple):
        if kind[0] == "list":
            return pa.list_(_arrow_type(pa, kind[1]))
        return pa.struct([(key, _arrow_type(pa, part)) for key, part in kind[1].items()])
    return {
        "text": pa.string(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "uint": pa.uint64(),
        "float": pa.float64(),
    }[kind]
