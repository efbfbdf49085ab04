"""The stage `missing`: cells that are empty."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import impute
from jaxsft.prepare.numbers import at_least, blocks, required, rounded, series, table
from jaxsft.prepare.stage import (
    NotFinite,
    Report,
    RowSource,
    Stage,
    State,
    choice,
    number_of,
    value_of,
    with_fields,
)
from jaxsft.prepare.text_columns import unread

SIMPLE = {"mean": statistics.fmean, "median": statistics.median, "min": min, "max": max}
NOTHING = ("na", "nan", "null", "none")
MODELS = ("knn", "iterative", "autoencoder")
ALONG = ("linear", "polynomial")
STRATEGIES = ("drop", "constant", *SIMPLE, "mode", "group", *MODELS, *ALONG, "indicator", "mask")
FITS = {  # what a column is -> what makes sense of it
    "number": tuple(s for s in STRATEGIES if s != "mask"),
    "category": ("drop", "constant", "mode", "group", "indicator", "mask"),
    "text": ("drop", "constant", "indicator", "mask"),
}


@dataclass(frozen=True)
class Missing(Stage):
    """Fills empty cells, or drops their rows. Empty are: null, a blank text, NaN, and what
    `markers` says; in a column of numbers the words na, nan, null and none too (elsewhere they may
    be the name of a class).

    What is filled in is learnt from the training rows and used for all splits and for new data;
    `linear` and `polynomial` look along the rows of the split itself. Numbers that a strategy for
    numbers has looked at come out as numbers, whatever the file wrote them as. Which to take:

    - drop: nothing: the row goes (never in `predict`); for few rows, or a label
    - constant: `value`; for a cell whose absence has a meaning
    - mean, median, min, max: that of the training rows; for a first, weak answer; shrinks the
      variance
    - mode: the most frequent value (the smallest of equally frequent ones); for categories
    - group: `statistic` of the training rows with the same `group`; for when the group says much
    - knn: the mean of the nearest rows (Troyanskaya et al. 2001); for several related numbers, any
      shape of relation
    - iterative: chained ridge regressions (van Buuren and Groothuis-Oudshoorn 2011); for several
      numbers, linear relations
    - autoencoder: a small denoising autoencoder (Vincent et al. 2008; Gondara and Wang 2018); for
      many related numbers, many rows
    - linear, polynomial: between the neighbours along `order` (Newton's divided differences); for
      series
    - indicator: a neutral value, and says so in `<field>_missing`; for when the gap itself may tell
      something
    - mask: a token; for text

    A strategy that does not fit a column (the mean of a text, of class names or of class numbers)
    is an error that names what fits. `judge` in this module measures a strategy on cells that it
    hides; `python -m tools.bench.impute` compares all of them.
    """

    learns = True

    fields: list[str] = option([], "the columns to be filled")
    strategy: str = option("drop", "what is done: a word of the table above")
    markers: list[str] = option([], 'further texts that mean an empty cell, such as "?" or "-"')
    absent: bool = option(
        False, "a row that lacks a column has an empty cell there; else it is an error"
    )
    value: Any = option(
        None,
        "of constant; of indicator: what stands in the cell (null: the mean of numbers, the mask of"
        " text)",
    )
    statistic: str = option("median", "of group: mean | median | min | max | mode")
    group: Optional[str] = option(
        None,
        "the column whose values are the groups (of group), or tell the series apart (of linear,"
        " polynomial)",
    )
    order: Optional[str] = option(
        None, "of linear and polynomial: the column of numbers that the series runs along"
    )
    degree: int = option(3, "of polynomial: through degree + 1 known points")
    using: list[str] = option(
        [],
        "of knn, iterative, autoencoder: further columns of numbers to look at, which stay as"
        " they are",
    )
    neighbours: int = option(20, "of knn: how many; those as near as the last one all count")
    donors: int = option(
        5000, "of knn: training rows kept to be neighbours, evenly spaced where there are more"
    )
    ridge: float = option(
        1.0, "of iterative: the penalty on the squared coefficients of standardised columns"
    )
    rounds: int = option(20, "of iterative: passes over the columns, at most")
    hidden: int = option(32, "of autoencoder: units between input and output")
    steps: int = option(1000, "of autoencoder: training steps, 256 rows each")
    corrupt: float = option(0.3, "of autoencoder: the fraction of cells that is hidden in training")
    mask: str = option("[MASK]", "of mask and indicator: what stands for an empty text")

    @property
    def replayed(self) -> bool:
        """Returns whether `predict` repeats it: it answers every row, so it drops none."""
        return self.strategy != "drop"

    def check(self) -> None:
        required("missing", self.fields)
        choice("missing", "strategy", self.strategy, STRATEGIES)
        choice("missing", "statistic", self.statistic, (*SIMPLE, "mode"))
        at_least(
            "missing",
            1,
            degree=self.degree,
            neighbours=self.neighbours,
            donors=self.donors,
            rounds=self.rounds,
            hidden=self.hidden,
            steps=self.steps,
        )
        at_least("missing", 0, ridge=self.ridge)
        for name, needed in (
            ("value", self.strategy == "constant"),
            ("group", self.strategy == "group"),
            ("order", self.strategy in ALONG),
        ):
            if needed and getattr(self, name) is None:
                raise ConfigError(
                    f"stages.missing.strategy={self.strategy} needs stages.missing.{name}"
                )
        if not 0 < self.corrupt < 1:
            raise ConfigError(
                f"stages.missing.corrupt={self.corrupt}: expected a fraction between 0 and 1"
            )
        if self.strategy in MODELS and (
            set(self.fields) & set(self.using) or len(self.fields) + len(self.using) < 2
        ):
            raise ConfigError(
                f"stages.missing.strategy={self.strategy} fills a column from others, but"
                f" stages.missing.fields={list(self.fields)} and using={list(self.using)} name"
                " none; name at least two columns in all, each once"
            )
        for strategies, *options in (
            (("constant", "indicator"), "value"),
            (("group",), "statistic"),
            (("group", *ALONG), "group"),
            (ALONG, "order"),
            (("polynomial",), "degree"),
            (MODELS, "using"),
            (("knn",), "neighbours", "donors"),
            (("iterative",), "ridge", "rounds"),
            (("autoencoder",), "hidden", "steps", "corrupt"),
            (("mask", "indicator"), "mask"),
        ):
            if self.strategy not in strategies:
                unread(self, "missing", f"with strategy={self.strategy}", *options)

    # --- learning
    # ----------------------------------------------------------------------------------------------
    def fit(self, rows: RowSource, report: Report) -> dict[str, Any]:
        kinds = {name: self._kind(rows, name) for name in self.fields}
        report.facts["missing"] = {
            name: sum(self._empty(row, name, kinds[name]) for row in rows) for name in self.fields
        }
        state: dict[str, Any] = {"kinds": kinds}
        if self.strategy in MODELS:
            x = self._table(rows, [*self.fields, *self.using])
            if (bare := np.isnan(x).all(0)).any():
                raise DataError(
                    f"stages.missing: column {[*self.fields, *self.using][int(bare.argmax())]!r} is"
                    " empty in all training rows"
                )
            return state | {"model": self._fit_model(x)}
        if self.strategy in (*SIMPLE, "mode", "group", "indicator"):
            state["fill"] = {name: self._statistic(rows, name, kinds[name]) for name in self.fields}
        return state

    def _fit_model(self, x: np.ndarray) -> dict[str, Any]:
        if self.strategy == "knn":
            return impute.fit_knn(x, self.donors)
        if self.strategy == "iterative":
            return impute.fit_chained(x, self.ridge, self.rounds)
        return impute.fit_denoising(x, self.hidden, self.steps, self.corrupt, self.context.seed)

    def _kind(self, rows: RowSource, name: str) -> str:
        """Returns number, category or text, by all training rows.

        Raises DataError where the strategy does not fit.
        """
        words, whole, seen, infinite = None, True, False, None
        for row in rows:
            if self._empty(row, name, "category"):
                continue
            try:
                number = number_of(row, name, "stages.missing.fields")
            except NotFinite as error:  # `inf` may be the name of a class
                seen, whole, infinite = True, False, infinite or error
                continue
            except DataError:
                words, seen = (row, row.fields[name]), True
                break
            if number is not None:  # na, none ...: they tell nothing yet
                seen, whole = True, whole and float(number).is_integer()
        if not seen and self.strategy != "drop":
            raise DataError(
                f"stages.missing: column {name!r} is empty in all training rows, so nothing can be"
                " learnt for it; remove it from fields"
            )
        if name in (self.context.text, self.context.columns.text_pair):
            kind, what = "text", "text"
        elif name == self.context.label and (words or whole):
            kind, what = "category", "labels"
        else:
            kind, what = ("category", "words") if words else ("number", "numbers")
        averaged = self.strategy == "group" and self.statistic != "mode" and kind != "number"
        if self.strategy not in FITS[kind] or averaged:
            asked = f"statistic={self.statistic}" if averaged else f"strategy={self.strategy}"
            where = f"{words[0].where}: " if words else ""
            example = f" ({words[1]!r:.40})" if words else ""
            fits = ", ".join(
                f"{s} (with statistic=mode)" if s == "group" and kind == "category" else s
                for s in FITS[kind]
            )
            raise DataError(
                f"{where}stages.missing.{asked}: column {name!r} holds {what}{example}; what fits"
                f" it: {fits}"
            )
        if kind == "number" and infinite and self.strategy not in ("drop", "constant"):
            raise infinite
        return kind

    def _statistic(self, rows: RowSource, name: str, kind: str) -> Any:
        """Computes one value; with groups, `{"groups": {group: value}, "other": value}`."""
        if self.strategy == "indicator":
            if self.value is not None:
                return self.value
            return (
                rounded(statistics.fmean(self._known(rows, name, kind)))
                if kind == "number"
                else self.mask
            )
        if self.strategy != "group":
            return self._one(self.strategy, self._known(rows, name, kind))
        groups: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            if not self._empty(row, name, kind):
                groups[str(value_of(row, self.group, "stages.missing.group"))].append(
                    self._cell(row, name, kind)
                )
        every = [value for values in groups.values() for value in values]
        return {
            "groups": {key: self._one(self.statistic, groups[key]) for key in sorted(groups)},
            "other": self._one(self.statistic, every),
        }

    @staticmethod
    def _one(statistic: str, values: Sequence[Any]) -> Any:
        if statistic != "mode":
            return rounded(SIMPLE[statistic](values))
        count = Counter(values)
        return min(count, key=lambda value: (-count[value], str(value)))

    def _known(self, rows: RowSource, name: str, kind: str) -> list[Any]:
        return [self._cell(row, name, kind) for row in rows if not self._empty(row, name, kind)]

    @staticmethod
    def _cell(row: Row, name: str, kind: str) -> Any:
        return (
            number_of(row, name, "stages.missing.fields") if kind == "number" else row.fields[name]
        )

    # --- filling
    # ----------------------------------------------------------------------------------------------
    def _empty(self, row: Row, name: str, kind: str) -> bool:
        if self.absent and name not in row.fields:
            return True
        value = value_of(row, name, "stages.missing.fields, or stages.missing.absent=true")
        if isinstance(value, str):
            word = value.strip().lower()
            return not word or value in self.markers or (kind == "number" and word in NOTHING)
        return value is None or value != value

    def _table(self, rows: Iterable[Row], names: Sequence[str]) -> np.ndarray:
        """Returns the numbers `[rows, names]`, NaN where a cell is empty, by whatever name."""
        cleared = (
            with_fields(row, **{name: None for name in names if self._empty(row, name, "number")})
            for row in rows
        )
        return table(cleared, names, "stages.missing.fields")

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        if split == "predict" and not self.absent:
            yield from self._new(list(rows), state, report)
            return
        if self.strategy in ALONG:
            yield from self._along(list(rows), report)
            return
        for block in blocks(rows):
            if self.strategy in MODELS:
                names = [*self.fields, *self.using]
                yield from self._numbers(
                    block,
                    self._filled(self._table(block, names), state["model"])[:, : len(self.fields)],
                    report,
                )
                continue
            for row in block:
                if (new := self._plain(row, state, report)) is not None:
                    yield new

    def _new(self, rows: list[Row], state: State, report: Report) -> Iterator[Row]:
        """Yields new rows filled; a column that they lack (a target) is no cell to be filled."""
        lenient = dataclasses.replace(self, absent=True)
        if self.strategy in ALONG:  # there is no series of what is not there
            lenient = dataclasses.replace(
                lenient,
                fields=[name for name in self.fields if any(name in row.fields for row in rows)],
            )
        for row, new in zip(rows, lenient.rows("predict", rows, state, report), strict=True):
            gone = {
                part
                for name in self.fields
                if name not in row.fields
                for part in (name, f"{name}_missing")
            }
            yield dataclasses.replace(
                new, fields={name: value for name, value in new.fields.items() if name not in gone}
            )

    def _filled(self, x: np.ndarray, model: State) -> np.ndarray:
        if self.strategy == "knn":
            return impute.knn(x, model, self.neighbours)
        return (
            impute.chained(x, model) if self.strategy == "iterative" else impute.denoised(x, model)
        )

    def _numbers(self, rows: Sequence[Row], filled: np.ndarray, report: Report) -> Iterator[Row]:
        for row, values in zip(rows, filled, strict=True):
            new = {}
            for name, value in zip(self.fields, values, strict=True):
                empty = self._empty(row, name, "number")
                new[name] = rounded(value) if empty else _number(row, name)
                if empty:
                    report.changed[f"{name} filled ({self.strategy})"] += 1
            yield with_fields(row, **new)

    def _along(self, rows: list[Row], report: Report) -> Iterator[Row]:
        if not self.fields:
            yield from rows
            return
        x = self._table(rows, self.fields)
        for where, places in series(rows, self.order, self.group, "missing"):
            for f, name in enumerate(self.fields):
                values = x[where, f]
                if np.isnan(values).all():
                    raise DataError(
                        f"{rows[where[0]].where}: column {name!r} is empty in the whole series;"
                        " fill it by another strategy"
                    )
                known = np.flatnonzero(~np.isnan(values))
                if ends := known[0] + len(values) - 1 - known[-1]:
                    report.changed[f"{name} held beyond the last known value"] += int(ends)
                x[where, f] = impute.interpolate(
                    places, values, 1 if self.strategy == "linear" else self.degree
                )
        yield from self._numbers(rows, x, report)

    def _plain(self, row: Row, state: State, report: Report) -> Row | None:
        empty = [name for name in self.fields if self._empty(row, name, state["kinds"][name])]
        if self.strategy == "drop":
            if not empty:
                return row
            report.drop(row, f"empty {empty[0]}")
            return None
        new: dict[str, Any] = {}
        for name in self.fields:
            if name in empty:
                new[name] = self._fill(row, name, state, report)
                report.changed[f"{name} filled ({self.strategy})"] += 1
            elif (
                self.strategy in (*SIMPLE, "group", "indicator")
                and state["kinds"][name] == "number"
            ):
                new[name] = _number(row, name)
            if self.strategy == "indicator":
                new[f"{name}_missing"] = name in empty
        return with_fields(row, **new)

    def _fill(self, row: Row, name: str, state: State, report: Report) -> Any:
        if self.strategy == "constant":
            return self.value
        if self.strategy == "mask":
            return self.mask
        fill = state["fill"][name]
        if self.strategy != "group":
            return fill
        group = str(value_of(row, self.group, "stages.missing.group"))
        if group not in fill["groups"]:
            report.changed[f"{name} filled by all groups, its own being new"] += 1
        return fill["groups"].get(group, fill["other"])


def _number(row: Row, name: str) -> Any:
    """Converts a number that was written as text; other values stay."""
    value = row.fields[name]
    return number_of(row, name, "stages.missing.fields") if isinstance(value, str) else value


def judge(
    rows: Sequence[Row],
    fields: Sequence[str],
    strategy: str,
    hidden: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> float:
    """Measures how far a strategy misses known numbers.

    It is the root of the mean squared error over cells that are hidden from it at random
    (missing completely at random: what is really missing may be harder).

    Args:
      rows: at least one of their cells is hidden. fields: columns of numbers. hidden: the fraction
        of known cells. options: of the stage.

    Raises ConfigError and DataError as the stage does; ConfigError where nothing is hidden or the
    strategy fills no numbers.
    """
    if strategy in ("drop", "mask"):
        raise ConfigError(f"strategy={strategy} fills in no number that could be judged")
    x = table(rows, fields, "fields")
    hide = (np.random.default_rng(seed).random(x.shape) < hidden) & ~np.isnan(x)
    if not hide.any():
        raise ConfigError(f"hidden={hidden}: no cell of {len(rows)} rows was hidden")
    holed = [
        with_fields(row, **{f: None for f, h in zip(fields, gone, strict=True) if h})
        for row, gone in zip(rows, hide, strict=True)
    ]
    stage = Missing(fields=list(fields), strategy=strategy, **options)
    stage = dataclasses.replace(stage, context=dataclasses.replace(stage.context, seed=seed))
    stage.check()
    report = Report()
    filled = table(stage.rows("train", holed, stage.fit(holed, report), report), fields, "fields")
    return float(np.sqrt(np.mean((filled - x)[hide] ** 2)))
