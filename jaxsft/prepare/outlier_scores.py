"""Outlier scores `[N]` of vectors `[N, D]`; more is further from the others.

What is learned is plain JSON.

A forest is kept as the arrays of its trees, the local outlier factor as its points: no pickle is
needed, and none is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.errors import DataError
from jaxsft.extras import need
from jaxsft.prepare import autoencoder
from jaxsft.prepare.impute import moments, standardised
from jaxsft.prepare.numbers import array, plain


def limits(values: np.ndarray, method: str, threshold: float) -> tuple[float, float] | None:
    """Returns the limits of a column of numbers, `[low, high]`; None where it has no spread.

    zscore: mean -+ t standard deviations; iqr: t quartile distances beyond the quartiles (Tukey
    1977); mad: a modified z-score of t, `0.6745 (x - median) / MAD` (Iglewicz and Hoaglin 1993).
    """
    if method == "zscore":
        low, high, spread = values.mean(), values.mean(), threshold * values.std()
    elif method == "iqr":
        low, high = np.quantile(values, [0.25, 0.75])
        spread = threshold * (high - low)
    else:
        low = high = np.median(values)
        spread = threshold * np.median(np.abs(values - low)) / 0.6745
    return (float(low - spread), float(high + spread)) if spread > 0 else None


def _sklearn(method: str, module: str) -> Any:
    return need(f"sklearn.{module}", f"stages.outliers.method={method}", "numeric")


# --- isolation forest
# --------------------------------------------------------------------------------------------------
def fit_forest(x: np.ndarray, *, trees: int, sample: int, seed: int) -> dict[str, Any]:
    """Fits an isolation forest of scikit-learn (Liu, Ting and Zhou 2008), as arrays.

    Per tree and node they hold the feature (-1: a leaf), the threshold, the next nodes, and of
    a leaf the expected depth.
    """
    forest = (
        _sklearn("forest", "ensemble")
        .IsolationForest(n_estimators=trees, max_samples=min(sample, len(x)), random_state=seed)
        .fit(x)
    )
    return {
        "trees": [_tree(one.tree_) for one in forest.estimators_],
        "depth": _expected_depth(np.array(min(sample, len(x)))).item(),
    }


def _tree(tree: Any) -> dict[str, list]:
    left, right = tree.children_left, tree.children_right
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # parents come before their children
        if left[node] >= 0:
            depth[[left[node], right[node]]] = depth[node] + 1
    depth = np.where(left < 0, depth + _expected_depth(tree.n_node_samples), 0)
    feature = np.where(left < 0, -1, tree.feature)
    return {
        "feature": feature.tolist(),
        "threshold": tree.threshold.tolist(),
        "left": left.tolist(),
        "right": right.tolist(),
        "depth": plain(depth),
    }


def _expected_depth(n: np.ndarray) -> np.ndarray:
    """Computes the mean depth of a failed search among n points in a binary search tree."""
    many = np.maximum(n, 3)
    return np.where(
        n <= 1,
        0.0,
        np.where(n == 2, 1.0, 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many),
    )


def forest(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Computes `2^(-mean depth / expected depth)`, in (0, 1): half is ordinary."""
    x = x.astype(np.float32)  # as the trees were grown
    depth, every = np.zeros(len(x)), np.arange(len(x))
    for tree in state["trees"]:
        feature, threshold, left, right = (
            np.array(tree[name]) for name in ("feature", "threshold", "left", "right")
        )
        node = np.zeros(len(x), np.int64)
        while (inner := feature[node] >= 0).any():
            smaller = x[every, np.maximum(feature[node], 0)] <= threshold[node]
            node = np.where(inner, np.where(smaller, left[node], right[node]), node)
        depth += np.array(tree["depth"])[node]
    return 2.0 ** -(depth / len(state["trees"]) / state["depth"])


# --- local outlier factor
# --------------------------------------------------------------------------------------------------
def fit_lof(x: np.ndarray, *, neighbours: int, points: int) -> dict[str, Any]:
    """Returns the points that others are compared with: all, or `points` evenly spaced rows.

    Raises DataError where more than `neighbours` are equal.
    """
    kept = x if len(x) <= points else x[np.arange(points) * len(x) // points]
    same = int(np.unique(kept, axis=0, return_counts=True)[1].max())
    # they would be infinitely dense, and whatever stands beside them infinitely far
    if same > neighbours:
        raise DataError(
            f"stages.outliers.method=lof: {same} training rows are equal, more than"
            f" stages.outliers.neighbours={neighbours}: there is no density; raise"
            " stages.outliers.neighbours, look at more columns, or set another method"
        )
    return {**moments(x), "points": plain(kept), "neighbours": min(neighbours, len(kept) - 1)}


def lof(x: np.ndarray, state: Mapping[str, Any], training: bool) -> np.ndarray:
    """Computes the local outlier factor over standardised columns (Breunig et al. 2000).

    1 is as dense as its neighbours, more is lonelier.

    The factors of the points come from their distances to the others. A training row that is one of
    them has that factor (`training`): as a new row it would be its own neighbour.
    """
    points = standardised(array(state["points"]), state)
    model = (
        _sklearn("lof", "neighbors")
        .LocalOutlierFactor(n_neighbors=state["neighbours"], novelty=True)
        .fit(points)
    )
    z = standardised(x, state)
    scores = -model.score_samples(z)
    if training:
        own = {p.tobytes(): -f for p, f in zip(points, model.negative_outlier_factor_, strict=True)}
        scores = np.array(
            [own.get(row.tobytes(), score) for row, score in zip(z, scores, strict=True)]
        )
    return scores


# --- distance to the middle
# --------------------------------------------------------------------------------------------------
def fit_mahalanobis(x: np.ndarray) -> dict[str, Any]:
    """Fits the mean and the inverse of the shrunk covariance (Ledoit and Wolf 2004).

    It is shrunk so that it has an inverse.
    """
    covariance, _ = _sklearn("mahalanobis", "covariance").ledoit_wolf(x)
    return {
        "centre": plain(x.mean(0)),
        "precision": plain(np.linalg.pinv(covariance, hermitian=True)),
    }


def mahalanobis(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    apart = x - array(state["centre"])
    return np.sqrt(
        np.maximum(
            np.einsum("nd,de,ne->n", apart, array(state["precision"]), apart, optimize=False), 0
        )
    )


def fit_cosine(x: np.ndarray) -> dict[str, Any]:
    return {"centre": plain(_unit(x).mean(0))}


def cosine(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Computes `1 - cos` of the angle to the mean direction, in [0, 2]; 1 for zeros."""
    return 1 - np.einsum("nd,d->n", _unit(x), _unit(array(state["centre"])))


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1)


# --- reconstruction
# --------------------------------------------------------------------------------------------------
def fit_reconstruction(x: np.ndarray, *, hidden: int, steps: int, seed: int) -> dict[str, Any]:
    state = moments(x)
    return {
        **state,
        **autoencoder.train(
            standardised(x, state), hidden=hidden, steps=steps, corrupt=0.0, seed=seed
        ),
    }


def reconstruction(x: np.ndarray, state: Mapping[str, Any]) -> np.ndarray:
    """Computes the autoencoder's mean squared error over standardised columns.

    Hawkins et al. 2002.
    """
    z = standardised(x, state)
    return ((autoencoder.reconstruct(z, state) - z) ** 2).mean(-1)
