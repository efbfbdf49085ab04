"""The numbers of `metrics.jsonl` as series.

With what every drawing of them shares: smoothing, the scale of the loss, what is not finite.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxsft.config.metric_names import repeated
from jaxsft.config.rules import COUNTS
from jaxsft.rundir import number

# What is told of the training itself beside the loss, by its title.
RATES = {
    "Gradient norm": "grad_norm",
    "Tokens per second": "tokens_per_second",
    "Share of the peak FLOP/s": "mfu",
}
NOT_METRICS = {
    "step",
    "kind",
    "epoch",
    "time",
    "seconds",
    "wall_time",
    "learning_rate",
    "tokens_per_second",
    "model_flops_per_second",
    "mfu",
    "loss",
    *COUNTS,  # the same at every evaluation
}
AVERAGES = re.compile(
    r"(?:^|(?<=_))(?:macro|micro|weighted|samples)_|_(?:macro|micro|weighted|samples)$"
)
DECADES = 200  # a loss that falls by more than this factor is drawn on a log scale


def series(rows: Iterable[Mapping[str, Any]], kind: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps `[N]` and values `[N]` of one number in the lines of `metrics.jsonl`.

    Values are float64, NaN where NaN was logged.
    """
    found = [
        (number(row.get("step", 0)), number(row[key]))
        for row in rows
        if row.get("kind") == kind and row.get(key) not in (None, "unknown")
    ]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values


def metric_groups(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns the validation metrics other than the loss by the chart they share.

    macro_f1 and f1_micro go to "f1", f1/cat too.

    Those that are the accuracy under another name are left out.
    """
    checks = [row for row in rows if row.get("kind") == "validation"]
    keys = list(dict.fromkeys(key for row in checks for key in row))
    twice = repeated({(i, key): row[key] for i, row in enumerate(checks) for key in row}, keys)
    groups: dict[str, list[str]] = {}
    for key in keys:
        if key not in NOT_METRICS and key not in twice:
            groups.setdefault(AVERAGES.sub("", key.split("/")[0]) or key, []).append(key)
    return groups


def smoothing(count: int) -> int:
    """Returns the number of points (odd) over which a curve of `count` points is smoothed.

    It is a twenty-fifth of them, 1 where they are few.
    """
    return max(1, count // 25) | 1


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Computes the centred mean over `width` points (odd), fewer at the ends.

    Points that are not finite are left out, not spread.
    """
    finite = np.isfinite(values)
    half = width // 2
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    low, high = (
        np.clip(np.arange(len(values)) - half, 0, None),
        np.clip(np.arange(len(values)) + half + 1, None, len(values)),
    )
    seen = count[high] - count[low]
    return np.where(seen > 0, (total[high] - total[low]) / np.maximum(seen, 1), np.nan)


def needs_log_scale(values: np.ndarray) -> bool:
    """Returns whether the finite values are positive and span many decades.

    A linear axis would hide the lower ones.
    """
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() > 0 and finite.max() / finite.min() > DECADES)


def from_zero(values: np.ndarray) -> bool:
    """Returns whether an axis begins at zero.

    Where the values fill less than half of it, zero would hide how they move.
    """
    finite = values[np.isfinite(values)]
    return bool(len(finite) and finite.min() >= 0 and finite.min() <= finite.max() / 2)
