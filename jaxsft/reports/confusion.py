"""Confusion matrices: which classes were taken for which, and the examples behind a cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft.errors import DataError
from jaxsft.rundir import number, read_json


def read_confusion(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Returns the labels and the counts `[true, predicted]` of a confusion file.

    Raises DataError if it holds something else.
    """
    content = read_json(path)
    try:
        labels, matrix = (
            [str(label) for label in content["labels"]],
            np.array(content["matrix"], dtype=float),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected labels and a matrix of counts ({type(error).__name__}: {error})"
        ) from error
    if not labels or matrix.shape != (len(labels), len(labels)):
        raise DataError(
            f"{path}: expected a matrix of {len(labels)} x {len(labels)} counts (found shape"
            f" {matrix.shape})"
        )
    return labels, matrix


def confusions(labels: Sequence[str], matrix: np.ndarray) -> list[tuple[str, str, int]]:
    """Returns (true, predicted, count) of confused classes, the most frequent first."""
    return [(labels[i], labels[j], int(matrix[i, j])) for i, j in most_confused(matrix)]


def most_confused(matrix: np.ndarray) -> list[tuple[int, int]]:
    """Returns (true, predicted) class numbers that were confused, the most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)]


def shares(matrix: np.ndarray) -> np.ndarray:
    """Returns each row divided by its sum; a class that never occurs gives NaN."""
    totals = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0)


@dataclass(frozen=True)
class ConfusionCell:
    """One cell of a confusion matrix.

    Its count there, how many lines the predictions file has for it, and some of these lines.
    """

    true: int
    predicted: int
    count: int
    found: int
    examples: list[Mapping[str, Any]]


def behind(
    labels: Sequence[str],
    matrix: np.ndarray,
    rows: Iterable[Mapping[str, Any]],
    cells: Sequence[tuple[int, int]],
    most: int,
) -> list[ConfusionCell]:
    """Returns the cells with up to `most` examples each.

    The most certain mistakes come first, and the least certain of what is right.

    Args:
        rows: the lines of `predictions/<split>.jsonl`.
        cells: (true, predicted) class numbers.
    """
    number_of = {label: i for i, label in enumerate(labels)}
    lines: dict[tuple[int, int], list[Mapping[str, Any]]] = {cell: [] for cell in cells}
    for row in rows:
        place = (
            number_of.get(str(row.get("label")), -1),
            number_of.get(str(row.get("prediction")), -1),
        )
        if place in lines:
            lines[place].append(row)
    out = []
    for (i, j), found in lines.items():
        order = sorted(
            found, key=lambda row: (1 if i == j else -1) * number(row.get("probability", 0))
        )
        out.append(ConfusionCell(i, j, int(matrix[i, j]), len(found), order[:most]))
    return out


def per_class(labels: Sequence[str], matrix: np.ndarray) -> list[dict[str, Any]]:
    """Returns the scores of each class, the lowest F1 first; NaN is 0 / 0.

    They are label, support, times predicted, precision, recall and F1.
    """
    right, support, guessed = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    divide = lambda top, bottom: np.divide(
        top, bottom, out=np.full(len(labels), np.nan), where=bottom > 0
    )
    precision, recall, f1 = (
        divide(right, guessed),
        divide(right, support),
        divide(2 * right, support + guessed),
    )
    order = np.lexsort((np.arange(len(labels)), np.nan_to_num(f1, nan=2.0)))
    columns = {
        "support": support.astype(int),
        "predicted": guessed.astype(int),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
    return [
        {"number": int(i), "label": labels[i]}
        | {name: values[i].item() for name, values in columns.items()}
        for i in order
    ]
