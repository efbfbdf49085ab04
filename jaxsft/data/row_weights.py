"""Row weights: a column (`data.columns.weight`) that multiplies the loss of a training row.

Evaluation counts every row once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from jaxsft.data.formats import Row, require_column
from jaxsft.data.formats.row import plain_number
from jaxsft.errors import ConfigError, DataError

NONE = "none"  # leave a column `weight` alone
# what float32, in which losses are weighted, can tell from 0 and from infinity
SMALLEST, LARGEST = 1e-37, 3e38
# what such a column is called elsewhere
_names = re.compile(
    r"(?:(?:sample|example|instance|row|loss|train|training)_?)?weights?", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The base of all records.

    `weight` is not part of the content: rows that differ only in it are equal.
    """

    weight: float = dataclasses.field(default=1.0, repr=False)


def wanted(columns: Any) -> list[str]:
    """Returns the column of the weight in a list; empty where none is read."""
    return [] if columns.weight in (None, NONE) else [columns.weight]


def weighted(record: Any, row: Row, columns: Any) -> Any:
    """Returns the record with the weight of its row.

    Raises:
      DataError: there is a column `weight`, or one of that meaning, that no option mentions (it
        would be ignored, or used, in silence); the column is missing; or it holds no finite number
        above 0. A weight of 0 would train nothing and count in no metric: such a row is to be
        dropped. A list beside the turns of a chat is of its turns (`records.turn_weights`).
      ConfigError: the records of the task carry no weight.
    """
    if columns.weight is None:
        _unmentioned(record, row, columns)
    if not (name := wanted(columns)):
        return record
    if not hasattr(record, "weight"):
        raise ConfigError(
            f"data.columns.weight={name[0]}: records of this task ({type(record).__name__}) carry"
            " no weight"
        )
    value = require_column(row, name[0], "data.columns.weight")
    if hasattr(record, "messages") and _is_list(value):
        return record
    spelled = plain_number(value) if isinstance(value, str) else value
    try:
        number = math.nan if spelled is None or isinstance(spelled, bool) else float(spelled)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not SMALLEST < number < LARGEST:
        raise DataError(
            f"{row.where}: column {name[0]!r} holds {value!r:.60}, expected a finite weight above"
            " 0; remove rows that shall not train"
        )
    return dataclasses.replace(record, weight=number)


def _unmentioned(record: Any, row: Row, columns: Any) -> None:
    """Raises DataError for a column that seems to weigh the row and that nothing reads."""
    for name, value in row.fields.items():
        if not _names.fullmatch(name) or (name != "weight" and name in columns.named()):
            continue
        if _is_list(value):
            if not hasattr(record, "messages"):
                raise DataError(
                    f"{row.where}: column {name!r} holds a list, which no record of this task"
                    f" reads; drop the column, or set data.columns.weight={NONE} to leave it alone"
                )
        elif name == "weight" or _is_number(value):
            raise DataError(
                f"{row.where}: column {name!r} is there; set data.columns.weight={name} to multiply"
                f" the row's loss by it, or data.columns.weight={NONE} to leave it alone"
            )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _is_number(value: Any) -> bool:
    spelled = plain_number(value) if isinstance(value, str) else value
    return isinstance(spelled, int | float) and not isinstance(spelled, bool)
