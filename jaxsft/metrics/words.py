"""Scores of tagged words: how many are right, and each tag by itself."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics.base import Cells, Metric, Outputs, averaged, ratio, scored
from jaxsft.metrics.classification import SCORES


def confusion(outputs: Outputs) -> dict[str, Cells]:
    """Returns the cell `[gold, predicted]` of each word, and how many have each gold tag, predicted
    or not: a word of a row that was dropped has no prediction, and counts as wrong.
    """
    tags, row = len(outputs.labels), outputs["word.row"]
    gold, predicted = outputs["word.tag"], outputs["word.predicted"]
    return {
        "matrix": Cells.of(gold, predicted, shape=(tags, tags), row=row),
        "gold": Cells.of(gold, shape=(tags,), row=row),
    }


def _counts(state: dict[str, Any]) -> tuple[Any, Any, Any]:
    matrix = state["matrix"]
    return matrix.diagonal(axis1=-2, axis2=-1), matrix.sum(-2), state["gold"]


def accuracy(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the share of right words."""
    hit, _, gold = _counts(state)
    return {"accuracy": ratio(hit.sum(-1), gold.sum(-1)), "words": gold.sum(-1)}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes precision, recall and F1 of words: micro, weighted, macro over tags that occur."""
    hit, predicted, gold = _counts(state)
    scores = averaged(hit, predicted, gold, (gold + predicted) > 0)
    return {f"word_{name}": score for name, score in scores.items()}


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, number of predictions, precision, recall and F1 of every tag."""
    hit, predicted, gold = _counts(state)
    return {"support": gold, "predicted": predicted} | scored(hit, predicted, gold)


_NEEDS = ("word.row", "word.tag", "word.predicted")
METRICS = {
    "word_accuracy": Metric(
        ("accuracy", "words"), _NEEDS, confusion, accuracy, confusion=True, counts=("words",)
    ),
    "word_scores": Metric(
        tuple(f"word_{name}" for name in SCORES),
        _NEEDS,
        confusion,
        value,
        each=each,
        counts=("support", "predicted"),
        scheme="none",
    ),
}
