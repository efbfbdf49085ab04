"""The metrics of a split that was evaluated: numbers, tables and confusion matrix, and the
statistics of its rows, from which slices and bounds are made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.metrics import by_name
from jaxsft.metrics.base import Metric, Outputs, State, Statistics, of_each_target, select


@dataclasses.dataclass(frozen=True)
class Measured:
    """A metric with the statistics of the rows of a split; `labels` are those of its tables, and
    the signature says how texts were cut and compared."""

    metric: Metric
    statistics: Statistics
    rows: np.ndarray
    labels: Sequence[str]
    signature: str = ""

    def state(self, weights: np.ndarray | None = None) -> State:
        """Returns the state under weights `[..., rows]`; by default each row counts once."""
        weights = np.ones(len(self.rows)) if weights is None else weights
        return self.metric.reduce(self.statistics, weights)

    def numbers(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Returns the numbers of all rows, or under weights `[rows]`."""
        values = self.metric.value(self.state(weights))
        return {name: self.plain(name, x) for name, x in values.items()}

    def of(self, keep: np.ndarray) -> Measured:
        """Returns the same of the rows where `keep` is true."""
        places = np.flatnonzero(keep)
        return dataclasses.replace(
            self, statistics=select(self.statistics, places), rows=self.rows[places]
        )

    def plain(self, name: str, value: Any) -> float | int:
        """Returns a number as files have it: a count as a whole number."""
        return int(value) if name in self.metric.counts else float(value)

    def table(self, beside: Mapping[str, np.ndarray]) -> tuple[list[str], list[list[Any]]]:
        """Returns heads and rows of the numbers of each label, the most frequent first.

        Args:
          beside: `[labels]` numbers that are shown too, by name.
        """
        columns = {**self.metric.each(self.state()), **beside}
        order = np.argsort(-np.asarray(next(iter(columns.values()))), kind="stable")
        lines = [
            [self.labels[i] or "(none)", *(self.plain(n, x[i]) for n, x in columns.items())]
            for i in order
        ]
        return [self.metric.table.removesuffix("s"), *columns], lines


def measure(
    names: Iterable[str], further: Iterable[str], outputs: Outputs, task: str
) -> dict[str, Measured]:
    """Observes the rows of a split.

    Args:
      names: metrics that are left out where the outputs do not have what they read.
      further: metrics that were asked for. Raises ConfigError where one cannot be computed.
    """
    found = {name: by_name.METRICS[name] for name in names}
    found = {name: metric for name, metric in found.items() if metric.fits(outputs)}
    for name in further:
        found[name] = metric = by_name.take(name)
        if not metric.fits(outputs):
            by_name.check_fits(name, [*outputs.arrays, *outputs.texts], task)
            raise ConfigError(
                f"evaluation.metrics=[{name}]: is of tags with scheme={metric.scheme}; those of the"
                f" data are {outputs.scheme}"
            )
    return {name: _observed(metric, outputs) for name, metric in found.items()}


def _observed(metric: Metric, outputs: Outputs) -> Measured:
    labels = metric.rows_of(outputs)
    return Measured(
        of_each_target(metric, tuple(labels)),
        metric.observe(outputs),
        outputs.rows,
        labels,
        metric.signature(outputs) if metric.signature else "",
    )


def asked(config: Any, of_answers: bool) -> list[str]:
    """Returns the metrics of `evaluation.metrics` that are, or are not, of generated answers."""
    names = config.evaluation.metrics
    return [name for name in names if by_name.METRICS[name].of_answers == of_answers]


def tables(
    measured: Mapping[str, Measured], beside: Mapping[str, np.ndarray]
) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Returns the tables of the metrics that have one, by name (`Measured.table`)."""
    return {
        one.metric.table: one.table(beside)
        for one in measured.values()
        if one.metric.table and one.labels
    }


def confusion(measured: Mapping[str, Measured]) -> np.ndarray | None:
    """Returns the confusion matrix `[gold, predicted]` of a split, where a metric has one."""
    for one in measured.values():
        if one.metric.confusion:
            state = one.state()
            matrix = state["matrix"] if isinstance(state, Mapping) else state
            return matrix.astype(np.int64)
    return None
