"""The ROC and the precision-recall curve of a score, as arrays for figures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxsft.metrics.base import ratio


class RocCurve(NamedTuple):
    """Points of a ROC curve `[points]`, from (0, 0) to (1, 1).

    Attributes:
      fpr, tpr: shares of the other and of the positive rows whose score reaches the threshold.
      threshold: from high to low; the first one is infinite, and reached by no row.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    threshold: np.ndarray


class PrecisionRecallCurve(NamedTuple):
    """Points of a precision-recall curve `[points]`, by rising thresholds.

    Attributes:
      precision, recall: among the rows, and the positive rows, whose score reaches the threshold.
      threshold: `[points - 1]`; the last point, (1, 0), has none.
    """

    precision: np.ndarray
    recall: np.ndarray
    threshold: np.ndarray


def steps(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the distinct scores, from high to low, and the weights of positive and of other rows
    that reach each.

    Args:
      positive: `[rows]` bool; score, weights: `[rows]`; no weights: each row is 1.
    """
    weights = np.ones(len(score)) if weights is None else weights
    there = weights != 0
    positive, score, weights = (np.asarray(x)[there] for x in (positive, score, weights))
    order = np.argsort(-score, kind="stable")
    values, weights = score[order], weights[order]
    last = np.append(values[1:] != values[:-1], True)[: len(values)]
    hits = np.cumsum(np.where(positive[order], weights, 0))
    others = np.cumsum(np.where(positive[order], 0, weights))
    return values[last], hits[last], others[last]


def roc_curve(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None
) -> RocCurve:
    """Returns the ROC curve; a share is NaN without rows of its kind."""
    values, hits, others = steps(positive, score, weights)
    shares = [np.append(0, x) for x in (others, hits)]
    fpr, tpr = (ratio(x, np.full(x.shape, x[-1])) for x in shares)
    return RocCurve(fpr, tpr, np.append(np.inf, values))


def corners(curve: RocCurve) -> RocCurve:
    """Returns the curve without the points in the middle of a straight line."""
    x, y = np.diff(curve.fpr), np.diff(curve.tpr)
    one, other = x[1:] * y[:-1], x[:-1] * y[1:]
    turns = abs(one - other) > 1e-12 * (one + other)  # rounding makes no corner
    keep = np.append(np.append(True, turns), True)[: len(curve.fpr)]
    return RocCurve(*(values[keep] for values in curve))


def precision_recall_curve(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None
) -> PrecisionRecallCurve:
    """Returns the precision-recall curve; recall is NaN without a positive row."""
    values, hits, others = steps(positive, score, weights)
    precision = ratio(hits, hits + others, 0.0)
    recall = ratio(hits, np.full(hits.shape, hits[-1] if len(hits) else 0))
    turned = lambda x, end: np.append(x[::-1], end)
    return PrecisionRecallCurve(turned(precision, 1.0), turned(recall, 0.0), values[::-1])
