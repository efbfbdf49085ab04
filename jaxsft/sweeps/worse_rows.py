"""Whether one set of values is worse than another, row by row: what `search.prune: wilcoxon` asks
after the first of several seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import compared_runs
from jaxsft.evaluation.compared_runs import RunRows
from jaxsft.metrics import by_name
from jaxsft.metrics.base import select, total

LEVEL = 0.05  # p below which the rows are worse
BLOCK = 256  # rows at a time


def is_worse(runs: Sequence[Path], others: Sequence[Path], name: str, more: bool) -> bool:
    """Returns whether the rows of runs are worse than those of others by Wilcoxon's signed ranks,
    one-sided: each row counts once, with its mean over the runs.

    Args:
      others: the runs of the other values, of the same seeds.
      name: the number, as validation/accuracy.
      more: whether more of it is better.

    Raises ConfigError where the number is no mean over rows, DataError where the rows differ.
    """
    from scipy import stats

    both = compared_runs.read([str(place) for place in (*runs, *others)], "validation")
    number = name.partition("/")[2]
    values = np.stack([_of_rows(run, number) for run in both])
    apart = values[: len(runs)].mean(0) - values[len(runs) :].mean(0)
    apart = apart[np.isfinite(apart)]
    if not apart.size or not apart.any():
        return False
    side = "less" if more else "greater"
    return bool(stats.wilcoxon(apart, zero_method="zsplit", alternative=side).pvalue < LEVEL)


def _of_rows(run: RunRows, number: str) -> np.ndarray:
    """Returns the number of each row, `[rows]`; NaN where a row does not count."""
    for name, metric in run.metrics.items():
        if number not in metric.names:
            continue
        statistics, rows = run.content.metrics[name], len(run.content.rows_of(name))
        found = []
        for start in range(0, rows, BLOCK):
            places = np.arange(start, min(start + BLOCK, rows))
            state = metric.reduce(select(statistics, places), np.eye(len(places)))
            with np.errstate(divide="ignore", invalid="ignore"):
                found.append(np.asarray(metric.value(state)[number], np.float64))
        values = np.concatenate(found)
        whole = metric.value(metric.reduce(statistics, np.ones(rows)))[number]
        if not np.isclose(np.nanmean(values), whole):
            raise ConfigError(
                f"search.prune=wilcoxon: {number} is no mean over rows; search.prune=none goes on"
                " without"
            )
        return values
    raise DataError(f"{run.name}: has no {number} of its rows")


def of_rows(config: Config, name: str) -> bool:
    """Returns whether a number of a config's task is a mean over rows."""
    number, spec = name.partition("/")[2], config.task.spec
    measures = [*spec.measures, *spec.answer_measures, *config.evaluation.metrics]
    return any(
        number in by_name.METRICS[one].names and by_name.METRICS[one].reduce is total
        for one in measures
    )
