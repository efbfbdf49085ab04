"""Thresholds of a score that are best on validation, as values to be used on other rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxsft.metrics.ranking_curves import steps


def best(
    positive: np.ndarray,
    score: np.ndarray,
    quality: Callable[[np.ndarray, np.ndarray, float, float], np.ndarray],
    default: float,
) -> float:
    """Returns the threshold of the highest quality; a row is given the label from it on.

    It lies halfway between the two scores that it separates; among equals, it is the highest. Where
    all rows are positive, or none, the rows do not determine it and it is the default.

    Args:
      positive: `[rows]` bool; score: `[rows]`.
      quality: of the numbers of positive and of other rows that are given the label, `[scores]`,
        and of those that there are.
    """
    if not 0 < positive.sum() < len(positive):
        return default
    values, hits, others = steps(positive, score)
    k = int(np.argmax(quality(hits, others, hits[-1], others[-1])))
    if k + 1 == len(values):
        return float(values[k])
    middle = (values[k] + values[k + 1]) / 2
    # neighbours in floating point have nothing between them
    return float(middle if values[k + 1] < middle <= values[k] else values[k])


def best_f1(positive: np.ndarray, score: np.ndarray, default: float = 0.5) -> float:
    """Returns the threshold with the highest F1."""
    f1 = lambda hits, others, positives, negatives: 2 * hits / (hits + others + positives)
    return best(positive, score, f1, default)


def best_youden(positive: np.ndarray, score: np.ndarray, default: float = 0.5) -> float:
    """Returns the threshold with the highest sensitivity + specificity - 1 (Youden, 1950)."""
    j = lambda hits, others, positives, negatives: hits * negatives - others * positives
    return best(positive, score, j, default)
