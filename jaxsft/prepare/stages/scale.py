"""The stage `scale`: columns of numbers on a common scale, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.numbers import blocks, numbers, required, table, there
from jaxsft.prepare.stage import Report, RowSource, Stage, State, choice, with_fields

METHODS = ("standard", "robust", "minmax")


@dataclass(frozen=True)
class Scale(Stage):
    """Brings columns of numbers to a common scale, `(x - centre) / spread`, learnt from the
    training rows: targets of a regression, or what other stages compute distances from.

    - standard: the centre is the mean, the spread the standard deviation, divided by N
    - robust: the centre is the median, the spread the distance of the quartiles, interpolated
      linearly (Hyndman and Fan 1996, type 7): outliers do not move it
    - minmax: the centre is the minimum, brought to `low`, the spread the range, brought to
      `high - low`; one outlier moves all

    New rows (`predict`) may lack a column: it is a target, and `inverse` in this module takes its
    predictions back. A column that is constant in training has no scale and is an error.
    """

    learns = True
    replayed = True

    fields: list[str] = option([], "the columns of numbers")
    method: str = option("standard", "standard | robust | minmax")
    low: float = option(0.0, "of minmax: what the training minimum becomes")
    high: float = option(1.0, "of minmax: what the training maximum becomes")
    clip: bool = option(
        False,
        "of minmax: what lies outside in other rows is brought to low or high (and cannot be taken"
        " back)",
    )
    missing: str = option("error", "an empty cell: error | keep (as it is)")

    def check(self) -> None:
        required("scale", self.fields)
        choice("scale", "method", self.method, METHODS)
        choice("scale", "missing", self.missing, ("error", "keep"))
        if not -np.inf < self.low < self.high < np.inf:
            raise ConfigError(
                f"stages.scale.low={self.low} and high={self.high}: expected finite numbers, low"
                " below high"
            )
        if self.method != "minmax" and (self.clip or (self.low, self.high) != (0.0, 1.0)):
            raise ConfigError(
                "stages.scale.low, high and clip are read with stages.scale.method=minmax only,"
                f" found method={self.method}"
            )

    def fit(self, rows: RowSource, report: Report) -> dict[str, Any]:
        x = table(rows, self.fields, "stages.scale.fields", self.missing)
        return {
            name: self._learn(name, x[~np.isnan(x[:, f]), f]) for f, name in enumerate(self.fields)
        }

    def _learn(self, name: str, values: np.ndarray) -> dict[str, float]:
        if not values.size or values.min() == values.max():
            what = (
                f"is {values[0]:g} in all training rows"
                if values.size
                else "is empty in all training rows"
            )
            raise DataError(
                f"stages.scale: column {name!r} {what}, so it has no scale; remove it from"
                " stages.scale.fields"
            )
        if self.method == "standard":
            return _affine(values.mean(), values.std())
        if self.method == "robust":
            lower, middle, upper = np.quantile(values, [0.25, 0.5, 0.75])
            if lower == upper:
                raise DataError(
                    f"stages.scale.method=robust: half of column {name!r} is {middle:g}, its"
                    " quartiles have no distance; set method=standard"
                )
            return _affine(middle, upper - lower)
        return _affine(
            values.min(), (values.max() - values.min()) / (self.high - self.low), self.low
        )

    def _numbers(self, row: Row, split: str) -> list[float]:
        """Returns one number per field, NaN where there is none."""
        names = there(row, self.fields, split)
        found = dict(
            zip(names, numbers(row, names, "stages.scale.fields", self.missing), strict=True)
        )
        return [found.get(name, np.nan) for name in self.fields]

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        parts = [state[name] for name in self.fields]
        centre, spread, offset = (
            np.array([part[key] for part in parts]) for key in ("centre", "spread", "offset")
        )
        for block in blocks(rows):
            scaled = (
                np.array([self._numbers(row, split) for row in block]) - centre
            ) / spread + offset
            if self.clip:
                if outside := int(((scaled < self.low) | (scaled > self.high)).any(1).sum()):
                    report.changed["clipped"] += outside
                scaled = np.clip(scaled, self.low, self.high)
            report.changed["scaled"] += len(block)
            for row, values in zip(block, scaled, strict=True):
                yield with_fields(
                    row,
                    **{
                        name: float(v)
                        for name, v in zip(self.fields, values, strict=True)
                        if v == v
                    },
                )


def _affine(centre: float, spread: float, offset: float = 0.0) -> dict[str, float]:
    return {"centre": float(centre), "spread": float(spread), "offset": float(offset)}


def inverse(state: State, field: str, values: Any) -> np.ndarray:
    """Returns scaled numbers of a column, of any shape, in the units of the file.

    Predictions are taken back with it. `state` is what the stage learned.

    Raises ConfigError where the column was not scaled.
    """
    if field not in state:
        raise ConfigError(
            f"column {field!r} was not scaled; stages.scale.fields had {', '.join(state)}"
        )
    part = state[field]
    return (np.asarray(values, np.float64) - part["offset"]) * part["spread"] + part["centre"]
