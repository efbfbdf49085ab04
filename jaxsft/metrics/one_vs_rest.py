"""Scores of one label a row that look at each label against all others.

Of a label, `hit` counts the rows where it is predicted and right, `predicted` and `gold` those that
are given it and that have it; 0/0 is 0 as in scikit-learn. `macro` averages over the labels that
occur, gold or predicted; `weighted` by gold counts; `micro` is of their counts added up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Cells, Metric, Outputs, namespace, ratio, scored
from jaxsft.metrics.classification import AVERAGES, confusion, counts

Counts = tuple[Any, Any, Any, Any]  # hit, predicted, gold, rows: [..., labels], rows alike
BETAS = (0.5, 2)


def jaccard(hit: Any, predicted: Any, gold: Any, rows: Any) -> Any:
    """Computes intersection over union (Jaccard, 1912)."""
    return ratio(hit, predicted + gold - hit, 0.0)


def specificity(hit: Any, predicted: Any, gold: Any, rows: Any) -> Any:
    """Computes the share of rows of other labels that are not given this one."""
    return ratio(rows - gold - predicted + hit, rows - gold, 0.0)


def fowlkes_mallows(hit: Any, predicted: Any, gold: Any, rows: Any) -> Any:
    """Computes the geometric mean of precision and recall (Fowlkes and Mallows, 1983)."""
    return ratio(hit, namespace(hit).sqrt(predicted * gold), 0.0)


def f_beta(beta: float) -> Callable[..., Any]:
    """Returns the F score in which recall counts beta times as much as precision (van Rijsbergen,
    1979).
    """
    square = beta * beta

    def score(hit: Any, predicted: Any, gold: Any, rows: Any) -> Any:
        return ratio((1 + square) * hit, square * gold + predicted, 0.0)

    return score


SCORES: dict[str, dict[str, Callable[..., Any]]] = {  # by metric
    "f_beta": {f"f{beta}": f_beta(beta) for beta in BETAS},
    "specificity": {"specificity": specificity},
    "jaccard": {"jaccard": jaccard},
    "fowlkes_mallows": {"fowlkes_mallows": fowlkes_mallows},
}


def averages(name: str, score: Callable[..., Any], parts: Counts, occurs: Any) -> dict[str, Any]:
    """Returns `NAME_macro`, `NAME_micro`, `NAME_weighted` of a score of counts `[..., labels]`."""
    xp, gold, value = namespace(parts[0]), parts[2], score(*parts)
    return {
        f"{name}_macro": ratio(xp.where(occurs, value, 0).sum(-1), occurs.sum(-1), 0.0),
        f"{name}_micro": score(*(xp.where(occurs, x, 0).sum(-1) for x in parts)),
        f"{name}_weighted": ratio((value * gold).sum(-1), gold.sum(-1), 0.0),
    }


def of_matrix(matrix: Any) -> Counts:
    """Returns the four counts of every label of a matrix `[..., gold, predicted]`."""
    hit, predicted, gold = counts(matrix)
    return hit, predicted, gold, namespace(hit).zeros_like(gold) + gold.sum(-1)[..., None]


def _nan(gold: Any) -> Any:
    """Returns 1, or NaN without rows."""
    return ratio(gold.sum(-1), gold.sum(-1))


def _metric(name: str) -> Metric:
    """Makes the metric of one or more scores of `SCORES`."""

    def value(matrix: Any) -> dict[str, Any]:
        parts = of_matrix(matrix)
        occurs, out = parts[1] + parts[2] > 0, {}
        for key, score in SCORES[name].items():
            out |= averages(key, score, parts, occurs)
        return {key: number * _nan(parts[2]) for key, number in out.items()}

    def each(matrix: Any) -> dict[str, Any]:
        parts = of_matrix(matrix)
        found = {key: score(*parts) for key, score in SCORES[name].items()}
        return {"support": parts[2]} | found

    return Metric(
        names=tuple(f"{key}_{average}" for key in SCORES[name] for average in AVERAGES),
        needs=("label", "predicted"),
        observe=confusion,
        value=value,
        each=each,
        table=name,
        counts=("support",),
    )


def recalls(matrix: Any) -> dict[str, Any]:
    """Computes means of recall over the labels that some row has: `balanced_accuracy`, arithmetic
    (Brodersen et al., 2010), and `g_mean`, geometric (Kubat and Matwin, 1997).
    """
    xp = namespace(matrix)
    hit, _, gold = counts(matrix)
    there, recall = gold > 0, ratio(hit, gold, 0.0)
    number = there.sum(-1)
    logs = xp.log(xp.where(there & (recall > 0), recall, 1)).sum(-1)
    geometric = xp.exp(ratio(logs, number))
    return {
        "balanced_accuracy": ratio(recall.sum(-1), number),
        "g_mean": xp.where((there & (recall == 0)).any(-1), 0, geometric),
    }


def two_labels(outputs: Outputs, metric: str, instead: str) -> None:
    """Raises ConfigError unless there are two labels, the second of which is the positive one."""
    if len(outputs.labels) != 2:
        raise ConfigError(
            f"evaluation.metrics=[{metric}]: needs two labels, of which the second is the positive"
            f" one; there are {len(outputs.labels)}; use {instead}"
        )


def _binary_cells(outputs: Outputs) -> Cells:
    two_labels(outputs, "binary_scores", "label_scores")
    return confusion(outputs)


BINARY = ("precision", "recall", "f1", "specificity", "jaccard", "fowlkes_mallows", "g_mean")


def binary(matrix: Any) -> dict[str, Any]:
    """Computes scores of the second of two labels, the positive one. `g_mean` is the geometric mean
    of its recall (sensitivity) and specificity.
    """
    parts = tuple(x[..., 1] for x in of_matrix(matrix))
    found = scored(*parts[:3]) | {
        "specificity": specificity(*parts),
        "jaccard": jaccard(*parts),
        "fowlkes_mallows": fowlkes_mallows(*parts),
    }
    found["g_mean"] = namespace(matrix).sqrt(found["recall"] * found["specificity"])
    nan = ratio(parts[3], parts[3])
    return {f"{name}_binary": found[name] * nan for name in BINARY}


METRICS = {name: _metric(name) for name in SCORES} | {
    "recall_means": Metric(
        ("balanced_accuracy", "g_mean"), ("label", "predicted"), confusion, recalls
    ),
    "binary_scores": Metric(
        tuple(f"{name}_binary" for name in BINARY), ("label", "predicted"), _binary_cells, binary
    ),
}
