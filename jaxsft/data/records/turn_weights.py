"""Lists beside the turns of a conversation that say which of them are trained, as files for other
tools have them: `loss_masks`, `weights` and their like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsft.data import row_weights
from jaxsft.data.formats import Row
from jaxsft.data.records.fields import show
from jaxsft.data.records.messages import CALLS, SPEAKERS, json_of
from jaxsft.errors import DataError

_BEFORE = re.compile(r"^(?:turns?|messages?|msgs?|assistant|per_turn|per_message)_")
# what such a list is called, without what stands before it -> the key of a turn that says the same
NAMES = {
    "lossmask": "loss_mask",
    "loss": "loss",
    "train": "train",
    "trainon": "train",
    "trainmask": "train",
    "trainable": "trainable",
    "training": "training",
    "masked": "masked",
    "weight": "weight",
    "lossweight": "weight",
}
UNSURE = ("mask",)  # 1 may be what is trained, or what is hidden


def column(row: Row, columns: Any) -> tuple[str, str] | None:
    """Returns the column with a list of weights of turns, and the key of a turn that it stands for.

    Returns None where there is no such column, or `data.columns.weight=none` leaves it alone.

    Raises:
      DataError: there are several, or one that could mean either.
    """
    if columns.weight == row_weights.NONE:
        return None
    if columns.weight is not None:
        return (columns.weight, "weight") if listed(row.fields.get(columns.weight)) else None
    found = {
        name: kind
        for name in row.fields
        if (kind := _kind(name)) and listed(row.fields[name]) is not None
    }
    if len(found) > 1:
        raise DataError(
            f"{row.where}: columns {' and '.join(map(repr, found))} both say which turns are"
            " trained, expected one; set data.columns.weight=<column>, or drop a column"
        )
    for name, kind in found.items():
        if kind in UNSURE:
            raise DataError(
                f"{row.where}: column {name!r} holds {show(row.fields[name])}, which does not say"
                f" whether 1 is trained or hidden; set data.columns.weight={name} where 1 is"
                f" trained, or data.columns.weight={row_weights.NONE} to leave it alone"
            )
        return name, kind
    return None


def listed(value: Any) -> list[Any] | None:
    """Returns a cell as a list of numbers or booleans, also if it is JSON.

    Returns None for anything else.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*\[[\d.,\s\w+-]*\]\s*", value):
        try:
            value = json_of(value, "", "")
        except DataError:
            return None
    whole = isinstance(value, list) and bool(value)
    return value if whole and all(isinstance(v, bool | int | float) for v in value) else None


def spread(row: Row, columns: Any, turns: Sequence[Any]) -> list[Any]:
    """Returns the turns, each with its value of the row's list of weights.

    The list has a value for each turn, or for each of the assistant; it is put under the key that
    `column` returns.

    Raises:
      DataError: the list has another length, or a turn says it too.
    """
    if (found := column(row, columns)) is None:
        return list(turns)
    name, key = found
    values = listed(row.fields[name]) or []
    answers = [i for i, turn in enumerate(turns) if _role(turn) == "assistant"]
    places = next((p for p in (range(len(turns)), answers) if len(p) == len(values)), None)
    if places is None:
        raise DataError(
            f"{row.where}: column {name!r} has {len(values)} values, expected one for each of the"
            f" {len(turns)} messages, or of the {len(answers)} of the assistant; set"
            f" data.columns.weight={row_weights.NONE} to leave it alone"
        )
    out = list(turns)
    for value, place in zip(values, places, strict=True):
        turn = out[place]
        if not isinstance(turn, Mapping):
            continue  # an error of its own
        if turn.get(key) is not None and turn[key] != value:
            raise DataError(
                f"{row.where}: message {place + 1} has {key}={json.dumps(turn[key])} and column"
                f" {name!r} {json.dumps(value)}, which contradict each other; keep one"
            )
        out[place] = {**turn, key: value}
    return out


def refuse(row: Row, columns: Any) -> None:
    """Raises DataError for a list of weights in a row without a list of turns."""
    if (found := column(row, columns)) is not None:
        raise DataError(
            f"{row.where}: column {found[0]!r} holds {show(row.fields[found[0]])}, a value for each"
            " turn, but the row has no list of turns; drop the column, or set"
            f" data.columns.weight={row_weights.NONE} to leave it alone"
        )


def _kind(name: str) -> str | None:
    plain = re.sub(r"[^a-z]", "", _BEFORE.sub("", name.lower()))
    for spelled in (plain, plain.removesuffix("s"), plain.removesuffix("es")):
        if spelled in NAMES:
            return NAMES[spelled]
        if spelled in UNSURE:
            return spelled
    return None


def _role(turn: Any) -> Any:
    said = (turn.get("role") or turn.get("from")) if isinstance(turn, Mapping) else None
    if said in CALLS:
        return "assistant"
    return SPEAKERS.get(said) if isinstance(said, str) else None
