"""What the parsers of all records share: text, labels and numbers out of the fields of a row, each
checked, each with the option that mends it.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents
from jaxsft.data.formats import Row, require_column
from jaxsft.data.formats.row import Struct, plain_number, repeated
from jaxsft.data.records import literals
from jaxsft.errors import ConfigError, DataError

MISSING = ("", "na", "nan", "null", "none")  # cells that stand for no number, in lower case


class Unlabelled(DataError):
    """A row that has, as declared (`data.columns.no_label`), no label: it is dropped and counted,
    and it is no error.
    """


class Doubtful(DataError):
    """An error: what the rows of a file mean together is in doubt, and no option decides. `finding`
    is what a check calls it, `repair` names the options.
    """

    def __init__(self, message: str, finding: str, repair: str):
        super().__init__(message)
        self.finding, self.repair = finding, repair


def text_of(row: Row, name: str, option: str) -> str:
    """Returns the string in a column.

    Raises DataError (missing, or no string), which names `option`.
    """
    value = require_column(row, name, option)
    if not isinstance(value, str):
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected a string; set"
            f" {option}=<column>"
        )
    return value


def pair_of(row: Row, columns: Any) -> tuple[str, str | None]:
    """Returns the text, and the second one where a column is named for it, else None."""
    text = text_of(row, columns.text or "text", "data.columns.text")
    return text, (
        None
        if columns.text_pair is None
        else text_of(row, columns.text_pair, "data.columns.text_pair")
    )


def first_of(row: Row, names: Sequence[str]) -> str:
    """Returns the first of these columns that the row has; the first name where it has none."""
    return next((name for name in names if name in row.fields), names[0])


# --- labels
# --------------------------------------------------------------------------------------------------
def label_of(value: Any, where: str, columns: Any) -> str:
    """Returns the class that a label names: 3 and "3" are one, true is "true", 1.0 is "1".

    With `data.columns.label_names` an id gives the name of its class.

    Raises:
      Unlabelled: it is the mark of `data.columns.no_label`.
      DataError: null, empty, neither text, an integer nor a boolean; or no name or id of the class
        file.
    """
    label = plain_label(value, where)
    if columns.no_label is not None and label.strip() == columns.no_label:
        raise Unlabelled(
            f"{where} holds {label!r}, which data.columns.no_label declares to be no label"
        )
    return label if columns.label_names is None else _named(label, where, columns.label_names)


def plain_label(value: Any, where: str) -> str:
    """Returns a label as a text, without a file of class names. Raises DataError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    if (
        isinstance(value, str)
        and value.lstrip().startswith(("[", "{"))
        and (cell := _cell_of_list(value)) is not None
    ):
        value = cell
    if isinstance(value, dict) and set(value) == {"choices"}:  # of Label Studio
        value = value["choices"]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | int):
        return plain_label(value[0], where)
    if isinstance(value, list | dict):
        hint = "; task=multilabel reads lists of labels" if isinstance(value, list) else ""
        raise DataError(
            f"{where} holds {show(value)}, expected one label: text, an integer or a boolean{hint}"
        )
    if not isinstance(value, str):
        raise DataError(
            f"{where} holds {show(value)}, expected a label: text, an integer or a boolean"
        )
    if not value.strip():
        raise DataError(f"{where} holds an empty label; remove the row or name its class")
    return value


def label_text(label: Any) -> str:
    """Writes a label of an option as labels of data are written: true is "true"."""
    return ("true" if label else "false") if isinstance(label, bool) else str(label)


def declared_labels(given: Sequence[Any], found: Collection[str]) -> list[str]:
    """Returns the labels of an option, spelled as in the data.

    The command line writes true and false, the data may have True or TRUE.
    """
    out = []
    for label in map(label_text, given):
        same = (
            [one for one in found if one.lower() == label.lower()]
            if label.lower() in ("true", "false") and label not in found
            else []
        )
        out.append(same[0] if len(same) == 1 else label)
    return out


def _cell_of_list(cell: str) -> Any:
    """Reads the list or object that a cell spells, as JSON or as Python prints it.

    Returns None where the cell is a text that begins with a bracket, such as [UNK].
    """
    for read in (json.loads, literals.read):
        try:
            return read(cell)
        except (ValueError, RecursionError):
            pass
    return None


def _named(label: str, where: str, path: str) -> str:
    names = label_names(path)
    if label in names:
        return label
    if not re.fullmatch(r"-?\d+", label.strip()):
        known = ", ".join(list(names)[:5])
        raise DataError(
            f"{where} holds the label {label!r}, which is none of the {len(names)} names in {path}"
            f" ({known}, ...); mend data.columns.label_names"
        )
    if not 0 <= int(label) < len(names):
        raise DataError(
            f"{where} holds the id {label}, but {path} names the ids 0 to {len(names) - 1}; mend"
            " data.columns.label_names"
        )
    return list(names)[int(label)]


def label_names(path: str) -> dict[str, int]:
    """Reads the names of a class file, as ids by name, from 0.

    The file is a JSON list, a JSON object of `id: name` or `name: id`, or a text file with a name a
    line.

    Raises:
      ConfigError: no such file, another layout, an empty or repeated name, ids with a gap, or names
        that are numbers other than their own ids.
    """
    try:
        return _label_names(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.columns.label_names={path}: cannot be read ({error}); expected a file with the"
            " names of the classes"
        ) from None


@functools.lru_cache(maxsize=8)
def _label_names(path: str, changed: int) -> dict[str, int]:
    content = Path(path).read_text(encoding="utf-8-sig")
    found = (
        documents.decode(content)
        if path.endswith(".json")
        else [line.strip() for line in content.split("\n")]
    )
    if isinstance(found, list) and not path.endswith(".json"):
        while found and not found[-1]:
            found.pop()
    if isinstance(found, dict):
        by_id = (
            found
            if all(re.fullmatch(r"\d+", str(key)) for key in found)
            else {str(number): name for name, number in found.items()}
        )
        if set(by_id) != set(map(str, range(len(by_id)))):
            raise ConfigError(
                f"data.columns.label_names={path}: expected the ids 0 to {len(by_id) - 1}, each"
                " once"
            )
        found = [by_id[str(number)] for number in range(len(by_id))]
    if (
        not isinstance(found, list)
        or not found
        or not all(isinstance(name, str) and name.strip() for name in found)
    ):
        raise ConfigError(
            f"data.columns.label_names={path}: expected a list of names, {{id: name}}, {{name:"
            " id}, or a name a line"
        )
    if (twice := repeated(found)) is not None:
        raise ConfigError(f"data.columns.label_names={path}: the name {twice!r} occurs twice")
    if odd := next(
        (n for i, n in enumerate(found) if n.isdecimal() and n != str(i) and int(n) < len(found)),
        None,
    ):
        raise ConfigError(
            f"data.columns.label_names={path}: the name {odd!r} has another id, so that a label"
            f" {odd!r} may mean either; rename it"
        )
    return {name: number for number, name in enumerate(found)}


# --- numbers
# --------------------------------------------------------------------------------------------------
def number_of(row: Row, name: str, option: str) -> float | None:
    """Returns the number in a column, rounded to float32; None where the cell is missing.

    Missing are null, empty cells, NA and NaN. The result is the same whatever type the file has.

    Raises:
      DataError: the column is missing, or holds no finite number.
    """
    value = require_column(row, name, option)
    if (
        value is None
        or (isinstance(value, str) and value.strip().lower() in MISSING)
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    number = finite(value)
    if number is None:
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected a finite number, as"
            f" 1250.5; set {option} to numeric columns"
        )
    return number


def finite(value: Any) -> float | None:
    """Converts a number, or a text of digits, to a float of float32; None where that cannot be.

    `1_000`, `1,000` and `infinity` are no numbers, nor is one that float32 cannot hold.
    """
    spelled = plain_number(value) if isinstance(value, str) else value
    if not isinstance(spelled, int | float | np.number) or isinstance(spelled, bool):
        return None
    try:
        with np.errstate(over="ignore"):
            number = float(np.float32(spelled))
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


# --- lists
# --------------------------------------------------------------------------------------------------
def list_of(row: Row, name: str, option: str) -> list[Any]:
    """Returns the list in a column, or in a JSON string there.

    Raises DataError (missing, or no list).
    """
    value = require_column(row, name, option)
    if isinstance(value, str) and spells_list(value):
        value = listed_in(value, f"{row.where}: column {name!r}", f"; set {option}=<column>")
    if not isinstance(value, list | tuple):
        raise DataError(
            f"{row.where}: column {name!r} holds {show(value)}, expected a list; set"
            f" {option}=<column>"
        )
    return list(value)


def spells_list(cell: str) -> bool:
    """Returns whether a cell is the spelling of a list, a tuple or a set.

    A text that begins with a bracket, such as `(a)`, is none.
    """
    return re.match(r"\s*(?:\[|[({]\s*['\"])", cell) is not None


def listed_in(cell: str, where: str, cure: str = "") -> Any:
    """Reads the list that a cell spells as JSON, or as Python prints lists. Raises DataError."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        broken = error
    try:
        return literals.read(cell)
    except ValueError as error:
        raise DataError(
            f"{where} holds broken JSON ({broken}), and no list of Python ({error}), expected a"
            f" list{cure}"
        ) from None


_bits = re.compile(r"\s*(\[\s*)?[01](?:\.0)?(?:\s*[\s,;|]\s*[01](?:\.0)?)*\s*(?(1)\])\s*")


def one_hot(value: Any) -> list[int] | None:
    """Returns the zeros and ones of a list that holds nothing else; None for anything else.

    The list has at least two places, and may be spelled in a cell.
    """
    if isinstance(value, str) and (found := _bits.fullmatch(value)):
        value = [int(float(number)) for number in re.findall(r"[01](?:\.0)?", found[0])]
    if not isinstance(value, list) or len(value) < 2:
        return None
    return (
        [int(x) for x in value]
        if all(isinstance(x, bool | int | float) and x in (0, 1) for x in value)
        else None
    )


def without_none(value: Any, written: bool = False) -> Any:
    """Returns the value without the null fields of structs.

    A columnar file gives each struct the fields of all. A null that somebody wrote stays, unless
    `written` are to go too.
    """
    if isinstance(value, dict):
        gone = written or isinstance(value, Struct)
        return {
            key: without_none(part, written)
            for key, part in value.items()
            if part is not None or not gone
        }
    return [without_none(part, written) for part in value] if isinstance(value, list) else value


def show(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
