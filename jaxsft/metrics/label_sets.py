"""Scores of any number of labels a row, and the choice of thresholds.

Definitions are scikit-learn's (0/0 is 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, averaged, namespace, ratio, scored
from jaxsft.metrics.classification import AVERAGES, SCORES
from jaxsft.metrics.one_vs_rest import averages, jaccard
from jaxsft.metrics.thresholds import best_f1

SAMPLES = ("precision_samples", "recall_samples", "f1_samples")


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row its right, given and gold labels, and what their numbers come to."""
    gold, given = outputs["labels"] > 0, outputs["given"] > 0
    hit = gold & given
    sizes = [x.sum(-1, dtype=float) for x in (hit, given, gold)]
    samples = scored(*sizes)
    return {
        "hit": hit,
        "given": given,
        "gold": gold,
        "samples": namespace(gold).stack([samples[m] for m in ("precision", "recall", "f1")], -1),
        "equal": (gold == given).all(-1),
        "wrong": (gold != given).mean(-1),
        "rows": (gold == gold).all(-1),
    }


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes precision, recall and F1, macro over all labels, micro, weighted by support, and the
    mean over rows (`samples`); the share of rows whose labels are all right (`subset_accuracy`)
    and of wrong cells (`hamming_loss`).
    """
    rows = state["rows"]
    nan = ratio(rows, rows)  # 1, or NaN without rows
    scores = averaged(state["hit"], state["given"], state["gold"], state["gold"] >= 0)
    out = {name: score * nan for name, score in scores.items()}
    for i, name in enumerate(SAMPLES):
        out[name] = ratio(state["samples"][..., i], rows)
    return out | {
        "subset_accuracy": ratio(state["equal"], rows),
        "hamming_loss": ratio(state["wrong"], rows),
        "rows": rows,
    }


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, times given, precision, recall and F1 of every label."""
    found = {"support": state["gold"], "given": state["given"]}
    return found | scored(state["hit"], state["given"], state["gold"])


def best_thresholds(gold: np.ndarray, probability: np.ndarray, default: float = 0.5) -> np.ndarray:
    """Returns the threshold of each label with the highest F1.

    It lies halfway between the two probabilities that it separates; among equals, it is the one
    that gives the label least often. A label that no row has, or every row, keeps the default,
    for the rows do not determine it.

    Args:
      gold: `[rows, L]` bool; probability: `[rows, L]`.

    Returns: `[L]` float64; a label is given from its threshold on.
    """
    columns = range(gold.shape[1])
    found = [best_f1(gold[:, i], probability[:, i], default) for i in columns]
    return np.array(found, np.float64)


def observe_overlap(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row its right, given and gold labels, and their intersection over union."""
    gold, given = outputs["labels"] > 0, outputs["given"] > 0
    hit = gold & given
    overlap = jaccard(*(x.sum(-1, dtype=float) for x in (hit, given, gold)), None)
    rows = (gold == gold).all(-1)
    return {"hit": hit, "given": given, "gold": gold, "overlap": overlap, "rows": rows}


def overlap(state: dict[str, Any]) -> dict[str, Any]:
    """Computes intersection over union of right and given labels: macro over all labels, micro,
    weighted by support, and the mean over rows (`samples`).
    """
    rows = state["rows"]
    parts = (state["hit"], state["given"], state["gold"], state["gold"])  # the last is not read
    found = averages("jaccard", jaccard, parts, state["gold"] >= 0)
    found["jaccard_samples"] = ratio(state["overlap"], rows, 0.0)
    return {name: number * ratio(rows, rows) for name, number in found.items()}


def each_overlap(state: dict[str, Any]) -> dict[str, Any]:
    """Computes intersection over union of every label."""
    return {"jaccard": jaccard(state["hit"], state["given"], state["gold"], None)}


METRICS = {
    "label_set_scores": Metric(
        names=(*SCORES, *SAMPLES, "subset_accuracy", "hamming_loss", "rows"),
        needs=("labels", "given"),
        observe=observe,
        value=value,
        each=each,
        table="labels",
        lower_is_better=("hamming_loss",),
        counts=("rows", "support", "given"),
    ),
    "label_set_jaccard": Metric(
        names=tuple(f"jaccard_{average}" for average in (*AVERAGES, "samples")),
        needs=("labels", "given"),
        observe=observe_overlap,
        value=overlap,
        each=each_overlap,
    ),
}
