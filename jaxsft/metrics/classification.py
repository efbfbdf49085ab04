"""Scores of one label a row, of a confusion matrix. Definitions are scikit-learn's (0/0 is 0)."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics.base import Cells, Metric, Outputs, averaged, namespace, ratio, scored

AVERAGES = ("macro", "micro", "weighted")
SCORES = tuple(f"{m}_{a}" for m in ("precision", "recall", "f1") for a in AVERAGES)


def confusion(outputs: Outputs) -> Cells:
    """Returns the cell `[gold, predicted]` of each row."""
    classes = len(outputs.labels)
    return Cells.of(outputs["label"], outputs["predicted"], shape=(classes, classes))


def counts(matrix: Any) -> tuple[Any, Any, Any]:
    """Returns how often each label is right, predicted and gold, `[..., labels]` each."""
    xp = namespace(matrix)
    return xp.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-2), matrix.sum(-1)


def value(matrix: Any) -> dict[str, Any]:
    """Computes accuracy, and precision, recall and F1: macro, micro, weighted by support.

    Macro averages over the labels that occur. `micro` of single labels is the accuracy.
    """
    hit, predicted, gold = counts(matrix)
    total = gold.sum(-1)
    nan = ratio(total, total)  # 1, or NaN without rows
    scores = averaged(hit, predicted, gold, (gold + predicted) > 0)
    return {"accuracy": ratio(hit.sum(-1), total), "rows": total} | {
        name: score * nan for name, score in scores.items()
    }


def each(matrix: Any) -> dict[str, Any]:
    """Computes support, number of predictions, precision, recall and F1 of every label."""
    hit, predicted, gold = counts(matrix)
    return {"support": gold, "predicted": predicted} | scored(hit, predicted, gold)


METRICS = {
    "label_scores": Metric(
        names=("accuracy", "rows", *SCORES),
        needs=("label", "predicted"),
        observe=confusion,
        value=value,
        each=each,
        confusion=True,
        counts=("rows", "support", "predicted"),
    )
}
