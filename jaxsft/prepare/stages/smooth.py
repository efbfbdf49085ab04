"""The stage `smooth`: noise in series of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import filters
from jaxsft.prepare.numbers import at_least, required, rounded, series, table, there
from jaxsft.prepare.stage import Report, RowSource, Stage, State, choice, with_fields
from jaxsft.prepare.text_columns import unread

METHODS = ("mean", "median", "wiener", "wavelet")


@dataclass(frozen=True)
class Smooth(Stage):
    """Takes noise out of ordered series of numbers (ratings over time, sensor values, lengths). It
    is for signals: noise in texts is the matter of `clean`, noise in labels that of `label_noise`.

    - mean: the mean of a window; for slow signals
    - median: the median of a window; for single wild values, edges kept
    - wiener: the local mean where the window varies no more than the noise, the signal where it
      does (Lim 1990); for signals that are quiet in parts
    - wavelet: wavelet coefficients softly thresholded at the universal threshold (Donoho and
      Johnstone 1994); for structure at several scales

    Each series is filtered by itself, over the rows of its split, both before and after each place:
    a forecast must not use it on its inputs. Before `split` the rows of a split would be means over
    those of another one: it stands behind `split`, or both have the same `group`. Equal steps are
    presumed. Wavelets need `pip install -e ".[numeric]"`.
    """

    replayed = True
    mixes = True

    fields: list[str] = option([], "the columns of numbers")
    method: str = option("median", "mean | median | wiener | wavelet")
    order: Optional[str] = option(
        None, "the column of numbers that the series runs along; null: the rows are in their order"
    )
    group: Optional[str] = option(
        None, "the column that tells the series apart; null: all rows are one"
    )
    window: int = option(5, "of mean, median, wiener: rows, an odd number")
    noise: Optional[float] = option(
        None, "of wiener: the variance of the noise; null: the mean of the local variances"
    )
    wavelet: str = option("db4", "of wavelet: a discrete wavelet of PyWavelets")
    level: Optional[int] = option(
        None, "of wavelet: levels of the transform; null: as many as the series allows"
    )
    uneven: bool = option(
        False, "unequal steps along `order` are filtered as if they were equal, and are no error"
    )
    suffix: str = option(
        "", "put after the name of the column that is written; empty: the column itself"
    )

    def check(self) -> None:
        required("smooth", self.fields)
        choice("smooth", "method", self.method, METHODS)
        at_least("smooth", 0, noise=self.noise)
        at_least("smooth", 1, level=self.level)
        if self.window < 3 or self.window % 2 == 0:
            raise ConfigError(
                f"stages.smooth.window={self.window}: expected an odd number of at least 3"
            )
        if self.method == "wavelet":
            unread(self, "smooth", "with method=wavelet", "window")
        else:
            unread(
                self,
                "smooth",
                f"with method={self.method}",
                "wavelet",
                "level",
                *(["noise"] if self.method != "wiener" else []),
            )

    def rows(self, split: str, rows: RowSource, state: State, report: Report) -> Iterator[Row]:
        rows = list(rows)
        names = there(rows[0], self.fields, split) if rows else []
        if not names:
            yield from rows
            return
        x = self._numbers(rows, names)
        out = x.copy()
        for where, places in series(rows, self.order, self.group, "smooth"):
            self._check_series(rows[where[0]], places)
            for f in range(len(names)):
                out[where, f] = self._filtered(x[where, f])
        for row, values in zip(rows, out, strict=True):
            report.changed[f"smoothed ({self.method})"] += 1
            yield with_fields(
                row,
                **{name + self.suffix: rounded(v) for name, v in zip(names, values, strict=True)},
            )

    def _numbers(self, rows: list[Row], names: Sequence[str]) -> np.ndarray:
        try:
            return table(rows, names, "stages.smooth.fields", "error")
        except DataError as error:
            if any(
                isinstance(row.fields.get(name), str) and name == self.context.text
                for row in rows[:1]
                for name in names
            ):
                raise DataError(
                    f"{error}; filters are for series of numbers, for texts there are the stages"
                    " clean and denoise"
                ) from None
            raise DataError(
                str(error).replace(
                    "or set stages.smooth.missing=keep", "a filter has no place for gaps"
                )
            ) from None

    def _check_series(self, first: Row, places: np.ndarray) -> None:
        if self.method != "wavelet" and len(places) <= self.window // 2:
            raise DataError(
                f"{first.where}: the series has {len(places)} rows, too few for"
                f" stages.smooth.window={self.window}; check stages.smooth.group"
            )
        steps = np.diff(places)
        if not self.uneven and len(steps) and steps.max() - steps.min() > 1e-6 * abs(steps).max():
            raise DataError(
                f"{first.where}: the steps of {self.order!r} are {steps.min():g} to"
                f" {steps.max():g}, expected equal ones; fill the gaps, or set"
                " stages.smooth.uneven=true"
            )

    def _filtered(self, x: np.ndarray) -> np.ndarray:
        if self.method == "wavelet":
            return filters.wavelet(x, self.wavelet, self.level)
        return (
            filters.wiener(x, self.window, self.noise)
            if self.method == "wiener"
            else getattr(filters, self.method)(x, self.window)
        )
