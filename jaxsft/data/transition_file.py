"""A file that says how often each label is taken for each: `{"labels": [...], "matrix": [[...]]}`,
with a line of the matrix for each true label, the probability of each label that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsft import documents
from jaxsft.errors import DataError


def read(path: str, labels: Sequence[str]) -> list[list[float]]:
    """Returns the matrix in the order of the labels.

    Raises DataError for a file that has other labels, or no probabilities.
    """
    found = documents.read_json(Path(path), DataError, dict)
    named, matrix = found.get("labels"), found.get("matrix")
    if not isinstance(named, list) or sorted(map(str, named)) != sorted(labels):
        raise DataError(
            f"{path}: its labels are not those of the training rows ({len(labels)}:"
            f" {', '.join(labels[:5])}); write the file of the same data"
        )
    try:
        p = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        p = np.zeros(0)
    if p.shape != (len(labels), len(labels)) or not np.isfinite(p).all() or p.min() < 0:
        raise DataError(f"{path}: `matrix` is no table of {len(labels)} x {len(labels)} numbers")
    if not np.allclose(p.sum(1), 1, atol=1e-3):
        raise DataError(
            f"{path}: the probabilities of a line of `matrix` do not add up to 1; a line is of one"
            " true label"
        )
    order = [list(map(str, named)).index(label) for label in labels]
    return p[np.ix_(order, order)].tolist()
