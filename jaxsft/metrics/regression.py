"""Regression scores as scikit-learn and scipy define them.

Missing targets (NaN) are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.metrics.names import NUMBERS as NAMES
from jaxsft.metrics.states import MetricState


class SquaredErrors(MetricState):
    """The mean squared error over all targets that are not missing, in the units of the loss."""

    total: Any
    count: Any

    @classmethod
    def update(cls, predicted, targets, mask) -> SquaredErrors:
        """Sums a batch. predicted, targets, mask: any equal shape."""
        return cls(
            jnp.where(mask, jnp.square(predicted - targets), 0).sum(), mask.sum(dtype=jnp.int32)
        )

    def brief(self) -> dict[str, float]:
        return {"mse_scaled": float(self.total) / int(self.count) if self.count else math.nan}


def ranks(x: np.ndarray) -> np.ndarray:
    """Returns the ranks from 1; equal values share the mean of their ranks."""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[inverse] if len(values) else x


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Computes the correlation of two samples (Pearson, 1895).

    NaN where one of them is constant or there are fewer than two.
    """
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Computes the correlation of the ranks (Spearman, 1904)."""
    return pearson(ranks(x), ranks(y))


def scores(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Computes the scores of `NAMES` for one target, over the rows that have it.

    r2 is 1 - the squared error / that of the mean; NaN where gold is constant.

    Args:
      gold, predicted: `[rows]`.
    """
    there = np.isfinite(gold)
    gold, predicted = gold[there].astype(np.float64), predicted[there].astype(np.float64)
    if not len(gold):
        return dict.fromkeys(NAMES, math.nan)
    error, spread = predicted - gold, np.square(gold - gold.mean()).sum()
    mse = float(np.square(error).mean())
    out = {"mse": mse, "rmse": math.sqrt(mse), "mae": float(np.abs(error).mean())}
    out["r2"] = float(1 - np.square(error).sum() / spread) if spread > 0 else math.nan
    return out | {"pearson": pearson(gold, predicted), "spearman": spearman(gold, predicted)}


def table(names: Sequence[str], gold: np.ndarray, predicted: np.ndarray) -> list[list[Any]]:
    """Returns for each target its name, its number of rows, and the scores of `NAMES`."""
    return [
        [name, int(np.isfinite(gold[:, i]).sum()), *scores(gold[:, i], predicted[:, i]).values()]
        for i, name in enumerate(names)
    ]
