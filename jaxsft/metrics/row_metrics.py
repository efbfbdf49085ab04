"""Metrics over the rows of a split, by name (`evaluation.metrics`): what is said of each row once,
and how it adds up under a weight for each row.

`reduce` gets a vector of weights: ones for the whole split, counts for a bootstrap replicate, zeros
and ones for a slice. So one declaration gives a number and all that is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxsft import plugins
from jaxsft.errors import ConfigError


@dataclass(frozen=True)
class Metric:
    """Numbers of the predictions of a split.

    Attributes:
      names: of the numbers that `value` gives.
      outputs: the kinds of output of the tasks that it fits (`TaskSpec.output`); empty: of any.
      observe: of one line of the predictions its statistics, `[...]`, of one shape for all rows.
      reduce: `(statistics [rows, ...], weights [rows]) -> state`.
      value: `state -> {name: number}`.
      lower_is_better: those of `names` of which less is better.
    """

    names: tuple[str, ...]
    observe: Callable[[Mapping[str, Any]], Any]
    value: Callable[[Any], Mapping[str, float]]
    reduce: Callable[[np.ndarray, np.ndarray], Any] = lambda statistics, weights: np.tensordot(
        weights, statistics, 1
    )
    outputs: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()


METRICS = plugins.Registry("metrics", {})


def take(name: str, spec: Any) -> Metric:
    """Returns a metric for a task of this spec. Raises ConfigError where there is none, or it does
    not fit.
    """
    if name not in METRICS:
        known = ", ".join(METRICS) or "none, but for those of plug-ins"
        raise ConfigError(f"evaluation.metrics=[{name}]: unknown; there are {known}")
    metric = METRICS[name]
    if metric.outputs and spec.output not in metric.outputs:
        raise ConfigError(
            f"evaluation.metrics=[{name}]: is of tasks with {' or '.join(metric.outputs)}, and"
            f" task={spec.name} has {spec.output}"
        )
    return metric


def numbers(metric: Metric, lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the numbers of the predictions of a split, each row once; NaN where there is none."""
    if not lines:
        return dict.fromkeys(metric.names, float("nan"))
    statistics = np.array([np.asarray(metric.observe(line), np.float64) for line in lines])
    found = metric.value(metric.reduce(statistics, np.ones(len(lines))))
    return {name: float(found[name]) for name in metric.names}
