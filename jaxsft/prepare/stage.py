"""The contract of a preparation stage: what comes in, what goes out, and the account of it.

A stage is a frozen dataclass; its fields are its options. It works on rows
(`jaxsft.data.formats.Row`) and never changes one in place. Which method it has says what it needs
to see:

- `row(row, state, report)`: one row; so that rows stream through, over several processes where
  `slow`, and `predict` repeats it on new data
- `rows(split, rows, state, report)`: the rows of a split, as often as it likes; so that it may
  count, sort, compare
- `sets(sets, reports)`: all splits; so that it makes splits, or compares them

A stage that `learns` has `fit(rows, report)`, which is given the training rows only; what it
returns is kept in the manifest, and every split (and new data, in `predict`) is treated by it.
Every row that does not come out must be dropped by `report.drop`, every new one told by
`report.add`: the engine counts both sides, and a difference is an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar, Protocol

import numpy as np

from jaxsft.config.option import option
from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.formats.row import listed, plain_number
from jaxsft.errors import ConfigError, DataError

State = Mapping[str, Any]  # what a stage learnt: plain JSON


class RowSource(Protocol):
    """Rows that can be read again and again: a list, or a file that never lies in memory."""

    def __iter__(self) -> Iterator[Row]: ...

    def __len__(self) -> int: ...


@dataclasses.dataclass
class Report:
    """The account of what one stage did to one split. Reports of parts add up (`merge`).

    Attributes:
      dropped: `(file:line, reason)` of every row that did not come out.
      added: rows that came in here, by reason. changed: rows with another content, by what was
        done. marked: rows only pointed at, by reason.
      facts: numbers worth telling, by name; plain JSON.
    """

    dropped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    added: Counter[str] = dataclasses.field(default_factory=Counter)
    changed: Counter[str] = dataclasses.field(default_factory=Counter)
    marked: Counter[str] = dataclasses.field(default_factory=Counter)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def drop(self, row: Row, reason: str) -> None:
        """Counts a dropped row by `reason`, one of few.

        What is wrong with this row alone may stand behind ": ".
        """
        self.dropped.append((row.where, reason))

    def add(self, reason: str) -> None:
        self.added[reason] += 1

    def merge(self, other: Report) -> None:
        self.dropped.extend(other.dropped)
        for name in ("added", "changed", "marked"):
            getattr(self, name).update(getattr(other, name))
        self.facts |= other.facts


@dataclasses.dataclass(frozen=True)
class Context:
    """The context of a stage beside its options and its rows.

    Attributes:
      columns: `data.columns` of the set: which column holds the text, the label ...
      seed: of the whole preparation.
      score: gives one number per text (`texts -> [N]`), such as a perplexity; None: no model was
        given.
      predict: gives a record per record (`list[dict] -> list[dict]`), such as a translation; None:
        no model was given.
    """

    columns: Columns = dataclasses.field(default_factory=Columns)
    seed: int = 0
    score: Callable[[Sequence[str]], np.ndarray] | None = None
    predict: Callable[[Sequence[dict[str, Any]]], Sequence[dict[str, Any]]] | None = None

    @property
    def text(self) -> str:
        """Returns the column of the text."""
        return self.columns.text or "text"

    @property
    def label(self) -> str:
        return self.columns.label or "label"


@dataclasses.dataclass(frozen=True)
class Stage:
    """The base of all stages.

    The subclass is a frozen dataclass whose fields are its options, with a comment each, as in
    `config/schema.py`.

    Attributes:
      on: the splits that it works on: each (every split by itself), all (`sets`), train (the
        training split only: others pass untouched).
      learns: it has `fit`.
      splits: it decides which rows are training rows; what has seen or changed the training rows
        stands behind it.
      mixes: the new value of a row is made of other rows too, of those that share its `group` (an
        option of the stage; null: of all).
      folders: its options that name folders, whose files its rows depend on.
      slow: its `row` is worth several processes.
      replayed: `predict` repeats it on new rows (what cleans, fills and scales; not what drops,
        balances or splits).
      context: set by the engine, not an option.
    """

    on: ClassVar[str] = option("each", "each | all | train")
    learns: ClassVar[bool] = False
    splits: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    folders: ClassVar[tuple[str, ...]] = ()
    slow: ClassVar[bool] = False
    replayed: ClassVar[bool] = False

    context: Context = dataclasses.field(default_factory=Context, kw_only=True)

    def check(self) -> None:
        """Raises ConfigError where the options do not go together; called before any row is
        read."""

    def fit(self, rows: RowSource, report: Report) -> dict[str, Any]:
        """Returns what is learned from the training rows, as plain JSON.

        Raises DataError or ConfigError where the option does not fit the column.
        """
        raise NotImplementedError

    def row(self, row: Row, state: State, report: Report) -> Row | None:
        """Returns the row that takes its place; None where it was dropped (and reported)."""
        raise NotImplementedError

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterable[Row]:
        """Yields the new rows of a split; by default each row is treated by itself."""
        for row in rows:
            if (new := self.row(row, state, report)) is not None:
                yield new

    def sets(
        self, sets: Mapping[str, RowSource], reports: Mapping[str, Report]
    ) -> dict[str, Iterable[Row]]:
        """Returns all new splits at once, for `on = "all"`.

        Rows that belong to no split yet are in the set "all". `reports` has one per set
        that comes in; rows may change the set, and are dropped and added in the report of
        the set that they came from.
        """
        raise NotImplementedError

    def rng(self, row: Row, *more: int) -> np.random.Generator:
        """Returns the random numbers of one row.

        They are the same whatever stands before it, however many processes there are and
        wherever the file lies.
        """
        return rng(
            self.context.seed, type(self).__name__, f"{PurePath(row.file).name}:{row.line}", *more
        )


def rng(seed: int, *key: Any) -> np.random.Generator:
    digest = hashlib.blake2b(
        "\0".join(map(str, (seed, *key))).encode("utf-8", "backslashreplace"), digest_size=16
    ).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


# --- what nearly every stage does with a row
# --------------------------------------------------------------------------------------------------
def with_fields(row: Row, **fields: Any) -> Row:
    """Returns the row with these fields set; their order stays, new ones stand at the end."""
    return Row({**row.fields, **fields}, row.file, row.line)


def text_of(row: Row, name: str, option: str) -> str:
    """Returns the text in a column. Raises DataError, which names `option`, for no text."""
    value = value_of(row, name, option)
    if not isinstance(value, str):
        raise DataError(
            f"{row.where}: column {name!r} holds a {type(value).__name__}, expected text; set"
            f" {option}"
        )
    return value


def number_of(row: Row, name: str, option: str) -> float | None:
    """Returns the number in a column; None where it is missing: null, an empty cell, NaN, NA.

    Raises DataError where it is no number, and NotFinite.
    """
    value = value_of(row, name, option)
    if value is None or (
        isinstance(value, str) and value.strip().lower() in ("", "na", "nan", "null", "none")
    ):
        return None
    try:
        infinite = isinstance(value, str) and value.strip().lstrip("+-").lower() in (
            "inf",
            "infinity",
        )
        spelled = plain_number(value) if isinstance(value, str) and not infinite else value
        number = float("x" if isinstance(value, bool) else spelled)
    except (TypeError, ValueError):
        raise DataError(
            f"{row.where}: column {name!r} holds {value!r:.60}, expected a number; set {option} to"
            " numeric columns"
        ) from None
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if abs(number) == math.inf:
        raise NotFinite(
            f"{row.where}: column {name!r} holds {value!r:.60}, expected a finite number; set"
            f" {option}"
        )
    return None if number != number else number


class NotFinite(DataError):
    """The error of a number that is infinite or larger than a float can be.

    A mean of such would be none.
    """


def value_of(row: Row, name: str, option: str) -> Any:
    if name not in row.fields:
        found = listed(map(repr, row.fields)) or "none"
        raise DataError(
            f"{row.where}: missing column {name!r}: found columns {found}; set {option}"
        )
    return row.fields[name]


def choice(stage: str, option: str, value: Any, known: Sequence[str]) -> None:
    """Raises ConfigError where an option is not one of the words that exist."""
    if value not in known:
        raise ConfigError(f"stages.{stage}.{option}={value}: expected one of {', '.join(known)}")
