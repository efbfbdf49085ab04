"""Rows of preferences and of judged answers: refused, unless the good answer is named."""

from __future__ import annotations

import re
from typing import Any

from jaxsft.data.formats import Row
from jaxsft.data.records.fields import show
from jaxsft.data.records.messages import SPEAKERS
from jaxsft.errors import DataError

# columns of answers that shall not be learnt
REJECTED = re.compile(r"(?:.*_)?(?:rejected|dispreferred|negatives?)(?:_.*)?", re.IGNORECASE)
JUDGED = (
    "label",
    "labels",
    "reward",
    "preference",
    "preferred",
    "desirable",
    "kto_tag",
    "chosen",
    "thumbs_up",
    "is_good",
    "is_chosen",
)


def refuse_preference(row: Row, columns: Any) -> None:
    """Raises DataError for a row of preferences, unless its answer is named on purpose."""
    if columns.messages is not None or columns.completion is not None:
        return
    fields, out = row.fields, "preference data, which jaxsft does not train on as such"
    chosen = fields.get("chosen")
    if there := [
        name
        for name, value in fields.items()
        if REJECTED.fullmatch(name) and value and isinstance(value, str | list | dict)
    ]:
        alone = isinstance(chosen, list) and "prompt" not in fields
        field = "messages" if alone or _has_prompt(chosen) else "completion"
        chosen = "chosen" if "chosen" in fields else "<column>"
        raise DataError(
            f"{row.where}: column {there[0]!r} holds an answer that was rejected: {out}; set"
            f" data.columns.{field}={chosen} to learn the good answers alone"
        )
    if judged := [name for name in JUDGED if _judges(name, fields.get(name))]:
        raise DataError(
            f"{row.where}: column {judged[0]!r} holds {show(fields[judged[0]])}, which says how"
            f" good the answer is: {out}; keep the rows with good answers and drop the column, or"
            " name that of the answers by data.columns.completion or data.columns.messages to"
            " learn them all"
        )


def _has_prompt(answer: Any) -> bool:
    """Returns whether an answer is a whole conversation: messages, one of which asks."""
    return isinstance(answer, list) and any(
        isinstance(turn, dict)
        and SPEAKERS.get(str(turn.get("role", turn.get("from")))) in ("user", "system")
        for turn in answer
    )


def _judges(name: str, value: Any) -> bool:
    """Returns whether a column grades an answer: it is true, false, 0, 1 or -1, or a `reward`."""
    return (
        isinstance(value, bool)
        or (isinstance(value, int) and value in (-1, 0, 1))
        or (name == "reward" and value is not None)
    )
