"""Scores of multi-label classification and the choice of thresholds.

Definitions are scikit-learn's (0/0 is 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.metrics.names import LABEL_SETS as NAMES
from jaxsft.metrics.states import MetricState


class LabelCounts(MetricState):
    """The counts of true positives, false positives and false negatives of each label, `[L]`."""

    hit: Any
    wrong: Any
    missed: Any

    @classmethod
    def update(cls, gold, given, present) -> LabelCounts:
        """Counts a batch. gold, given: `[..., L]` bool; present: `[...]` bool."""
        axes, there = tuple(range(gold.ndim - 1)), present[..., None]
        count = lambda x: (x & there).sum(axes, dtype=jnp.int32)
        return cls(count(gold & given), count(~gold & given), count(gold & ~given))

    def brief(self) -> dict[str, float]:
        hit, errors = int(np.sum(self.hit)), int(np.sum(self.wrong)) + int(np.sum(self.missed))
        return {"f1_micro": 2 * hit / (2 * hit + errors) if hit + errors else math.nan}


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=b > 0)


def _scores(hit, given, gold) -> dict[str, Any]:
    return {
        "precision": _divide(hit, given),
        "recall": _divide(hit, gold),
        "f1": _divide(2 * hit, gold + given),
    }


def scores(gold: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """Computes the scores of `NAMES`.

    subset_accuracy: rows whose labels are all right; hamming_loss: the share of wrong cells.

    Args:
      gold, given: `[rows, L]` bool.
    """
    if not len(gold):
        return {name: math.nan for name in NAMES if name != "rows"} | {"rows": 0}
    hit = (gold & given).astype(np.float64)
    counts = lambda axis: (
        hit.sum(axis),
        given.sum(axis).astype(np.float64),
        gold.sum(axis).astype(np.float64),
    )
    support, out = gold.sum(0), {}
    for name, value in _scores(*counts(0)).items():
        out[f"{name}_macro"] = value.mean()
        out[f"{name}_weighted"] = (value * support).sum() / support.sum() if support.sum() else 0.0
    out |= {f"{name}_micro": value for name, value in _scores(*counts(None)).items()}
    out |= {f"{name}_samples": value.mean() for name, value in _scores(*counts(1)).items()}
    out |= {
        "subset_accuracy": (gold == given).all(1).mean(),
        "hamming_loss": (gold != given).mean(),
    }
    return {name: float(out[name]) for name in NAMES if name != "rows"} | {"rows": len(gold)}


def per_label(
    labels: Sequence[str], gold: np.ndarray, given: np.ndarray, thresholds: np.ndarray
) -> list[list[Any]]:
    """Returns for each label: name, support, times given, threshold, precision, recall and F1."""
    support, times = gold.sum(0), given.sum(0)
    found = _scores(
        (gold & given).sum(0).astype(np.float64),
        times.astype(np.float64),
        support.astype(np.float64),
    )
    columns = (support, times, thresholds, *found.values())
    return [[label, *(column[i].item() for column in columns)] for i, label in enumerate(labels)]


def best_thresholds(gold: np.ndarray, probability: np.ndarray, default: float = 0.5) -> np.ndarray:
    """Returns the threshold of each label with the highest F1.

    It lies halfway between the two probabilities that it separates; among equals, it is the one
    that gives the label least often. A label that no row has, or every row, keeps the default,
    for the rows do not determine it.

    Args:
      gold: `[rows, L]` bool; probability: `[rows, L]`.

    Returns: `[L]` float64; a label is given from its threshold on.
    """
    out = np.full(gold.shape[1], default)
    for i in range(gold.shape[1]):
        if not 0 < gold[:, i].sum() < len(gold):
            continue
        order = np.argsort(-probability[:, i], kind="stable")
        p, hits = probability[order, i], np.cumsum(gold[order, i])
        f1 = 2 * hits / (gold[:, i].sum() + np.arange(1, len(p) + 1))  # with the first k given
        last = np.append(p[1:] < p[:-1], True)  # rows of one probability are given together
        k = int(np.where(last, f1, -1).argmax())
        out[i] = p[k] if k + 1 == len(p) else (p[k] + p[k + 1]) / 2
        if not p[min(k + 1, len(p) - 1)] < out[i] <= p[k]:  # neighbours in floating point
            out[i] = p[k]
    return out
