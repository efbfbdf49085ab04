"""Scores of dependency trees: how many words have the right head, and the right relation to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft.metrics.base import Cells, Metric, Outputs, ratio, scored

_NEEDS = (
    "word.row",
    "word.head",
    "word.predicted_head",
    "word.relation",
    "word.predicted_relation",
    "is_tree",
)


def _right(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Returns which words have the right head, and which the right relation, whatever the head."""
    head = outputs["word.head"] == outputs["word.predicted_head"]
    return head, outputs["word.relation"] == outputs["word.predicted_relation"]


def _sums(outputs: Outputs, **of_word: np.ndarray) -> dict[str, np.ndarray]:
    """Adds numbers of words up by row."""
    row, count = outputs["word.row"], len(outputs)
    return {name: np.bincount(row, x, count) for name, x in of_word.items()}


def observe(outputs: Outputs) -> dict[str, Any]:
    """Counts the right words of each row, and whether its heads make a tree."""
    head, relation = _right(outputs)
    root = outputs["word.head"] == 0
    return _sums(
        outputs,
        words=np.ones(len(head)),
        uas=head,
        las=head & relation,
        label_accuracy=relation,
        root=root,
        root_accuracy=root & head,
    ) | {"trees": outputs["is_tree"], "rows": np.ones(len(outputs))}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the share of words with the right head (UAS), with the right head and relation
    (LAS) and with the right relation; of roots that are found; and of rows with a tree.
    """
    of_words = {name: ratio(state[name], state["words"]) for name in ("uas", "las")}
    return {
        **of_words,
        "label_accuracy": ratio(state["label_accuracy"], state["words"]),
        "root_accuracy": ratio(state["root_accuracy"], state["root"]),
        "trees": ratio(state["trees"], state["rows"]),
        "words": state["words"],
    }


def observe_without_punctuation(outputs: Outputs) -> dict[str, Any]:
    """Counts right words that are no punctuation."""
    head, relation = _right(outputs)
    keep = ~outputs["word.punctuation"]
    return _sums(outputs, words=keep, uas=keep & head, las=keep & head & relation)


def without_punctuation(state: dict[str, Any]) -> dict[str, Any]:
    """Computes UAS and LAS of the words that are no punctuation."""
    return {f"{name}_nopunct": ratio(state[name], state["words"]) for name in ("uas", "las")}


def by_relation(outputs: Outputs) -> dict[str, Cells]:
    """Returns the arcs of each relation: gold, predicted, and right in head and relation."""
    head, relation = _right(outputs)
    cells = lambda x, keep: Cells.of(
        np.where(keep, x, -1), shape=(len(outputs.labels),), row=outputs["word.row"]
    )
    gold, predicted = outputs["word.relation"], outputs["word.predicted_relation"]
    return {
        "hit": cells(gold, head & relation),
        "predicted": cells(predicted, predicted >= 0),
        "gold": cells(gold, gold >= 0),
        "matrix": Cells.of(
            gold, predicted, shape=(len(outputs.labels),) * 2, row=outputs["word.row"]
        ),
    }


def each(state: dict[str, Any]) -> dict[str, Any]:
    """Computes support, number of predictions, precision, recall and F1 of arcs by relation."""
    found = {"support": state["gold"], "predicted": state["predicted"]}
    return found | scored(state["hit"], state["predicted"], state["gold"])


def observe_upos(outputs: Outputs) -> dict[str, Any]:
    """Counts the right parts of speech of each row."""
    right = outputs["word.upos"] == outputs["word.predicted_upos"]
    return _sums(outputs, words=np.ones(len(right)), right=right)


METRICS = {
    "attachment_scores": Metric(
        ("uas", "las", "label_accuracy", "root_accuracy", "trees", "words"),
        _NEEDS,
        observe,
        value,
        counts=("words",),
    ),
    "attachment_scores_nopunct": Metric(
        ("uas_nopunct", "las_nopunct"),
        (*_NEEDS, "word.punctuation"),
        observe_without_punctuation,
        without_punctuation,
    ),
    "relation_scores": Metric(
        (),
        _NEEDS,
        by_relation,
        lambda state: {},
        each=each,
        table="relations",
        confusion=True,
        counts=("support", "predicted"),
    ),
    "upos_scores": Metric(
        ("upos_accuracy",),
        ("word.row", "word.upos", "word.predicted_upos"),
        observe_upos,
        lambda state: {"upos_accuracy": ratio(state["right"], state["words"])},
    ),
}
