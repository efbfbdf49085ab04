"""ROC, precision-recall and reliability curves of a split, few enough points to be drawn:
`figures/curves_<split>.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.metrics import calibration, ranking_curves
from jaxsft.metrics.base import Outputs
from jaxsft.metrics.probabilities import log_probabilities

POINTS = 200  # of a curve: more cannot be told apart where it is drawn
LABELS = 6  # that have curves of their own, the most frequent ones


def score_curves(outputs: Outputs | None) -> dict[str, Any] | None:
    """Returns the curves of a task with one label a row, or with any number of labels.

    Of two labels the second is the positive one; of more, and of sets, each stands against the
    others. Areas are of all points, before some are left out.

    Returns: `of` ("one label" or "label sets"), `rows`, `roc` and `precision_recall` (a list of
      curves: `label`, `positives`, `area`, coordinates), `reliability` (bins: `rows`,
      `confidence`, `accuracy`; `ece`, `mce`), `labels_left_out`. None: the task has no such
      scores, or no row has a label and finite scores.
    """
    if outputs is None or "logits" not in outputs.arrays or len(outputs.labels) < 2:
        return None
    if "label" in outputs.arrays:
        return _of_one_label(outputs)
    return _of_label_sets(outputs) if "labels" in outputs.arrays else None


def _of_one_label(outputs: Outputs) -> dict[str, Any] | None:
    logits, label = np.asarray(outputs["logits"], np.float64), np.asarray(outputs["label"])
    sound = np.isfinite(logits).all(-1) & (label >= 0)
    logits, label = logits[sound], label[sound]
    if not len(label):
        return None
    # the scores of the metrics of areas, so that ties are theirs: log-odds of two labels
    two = len(outputs.labels) == 2
    score = (logits[:, [1, 1]] - logits[:, [0, 0]]) if two else log_probabilities(logits)
    gold = label[:, None] == np.arange(logits.shape[1])
    kept = Outputs(outputs.rows[sound], {"logits": logits, "label": label}, outputs.labels)
    return {
        "of": "one label",
        **_by_label(outputs.labels, gold, score, [1] if two else None),
        "reliability": _reliability(calibration.observe(kept)),
    }


def _of_label_sets(outputs: Outputs) -> dict[str, Any] | None:
    logits, gold = np.asarray(outputs["logits"], np.float64), np.asarray(outputs["labels"]) > 0
    sound = np.isfinite(logits).all(-1)
    logits, gold = logits[sound], gold[sound]
    if not len(gold):
        return None
    small = np.exp(-abs(logits))
    probability = np.where(logits >= 0, 1, small) / (1 + small)
    flat = probability.ravel()
    decisions = {
        "confidence": flat,
        "hit": gold.ravel(),
        "count": np.ones(len(flat), bool),
        "broken": np.zeros(len(flat), bool),
    }
    return {
        "of": "label sets",
        **_by_label(outputs.labels, gold, logits, None),
        "reliability": _reliability(decisions),
    }


def _by_label(
    labels: Sequence[str], gold: np.ndarray, score: np.ndarray, only: Sequence[int] | None
) -> dict[str, Any]:
    """Returns the curves of the most frequent labels, of `[rows, labels]` gold and scores."""
    positives = gold.sum(0)
    # both sides are there, or there is no curve
    there = np.flatnonzero((positives > 0) & (positives < len(gold)))
    order = [i for i in np.argsort(-positives, kind="stable") if i in set(there.tolist())]
    order = order if only is None else [i for i in only if i in order]
    chosen = sorted(int(i) for i in order[:LABELS])
    return {
        "rows": len(gold),
        "roc": [_roc(str(labels[i]), gold[:, i], score[:, i]) for i in chosen],
        "precision_recall": [_recall(str(labels[i]), gold[:, i], score[:, i]) for i in chosen],
        "labels_left_out": 0 if only else len(labels) - len(chosen),
    }


def _roc(label: str, positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    curve = ranking_curves.corners(ranking_curves.roc_curve(positive, score))
    area = float(np.trapezoid(curve.tpr, curve.fpr))
    x, y = thin(curve.fpr, curve.tpr)
    return {"label": label, "positives": int(positive.sum()), "area": area, "fpr": x, "tpr": y}


def _recall(label: str, positive: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    """Returns a precision-recall curve; its area is the average precision (a sum of steps)."""
    curve = ranking_curves.precision_recall_curve(positive, score)
    area = float(-(np.diff(curve.recall) * curve.precision[:-1]).sum())
    x, y = thin(curve.recall[::-1], curve.precision[::-1])
    found = {"label": label, "positives": int(positive.sum()), "area": area}
    return found | {"recall": x, "precision": y}


def _reliability(statistics: dict[str, Any]) -> dict[str, Any]:
    """Returns the bins of equal width that have rows, and the errors of calibration."""
    reduce = calibration.reduce_by(calibration.of_width)
    state = reduce(statistics, np.ones(len(statistics["confidence"])))
    ece, mce = calibration.errors(state)
    bins = calibration.curve(state)
    full = bins["rows"] > 0
    return {
        "rows": bins["rows"][full].astype(int).tolist(),
        "confidence": bins["confidence"][full].tolist(),
        "accuracy": bins["accuracy"][full].tolist(),
        "ece": float(ece),
        "mce": float(mce),
    }


def thin(x: np.ndarray, y: np.ndarray, most: int = POINTS) -> tuple[list[float], list[float]]:
    """Returns at most `most` points of a curve, with both ends, evenly spaced along its path."""
    if len(x) > most:
        path = np.append(0.0, np.cumsum(abs(np.diff(x)) + abs(np.diff(y))))
        keep = np.searchsorted(path, np.linspace(0, path[-1], most), side="left")
        keep = np.unique(np.append(np.minimum(keep, len(x) - 1), [0, len(x) - 1]))
        # both ends are in: the last of the places between makes room where there is one too many
        keep = keep if len(keep) <= most else np.delete(keep, -2)
        x, y = x[keep], y[keep]
    return [float(value) for value in x], [float(value) for value in y]
