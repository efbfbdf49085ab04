"""Scores of numbers: those of scikit-learn and scipy; and ranks of partners."""

import math

import numpy as np
import pytest

from jaxsft.metrics import retrieval
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS
from jaxsft.metrics.regression import NUMBERS, ranks

sklearn = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")
METRIC = METRICS["number_scores"]


def outputs_of(gold, predicted):
    return Outputs(np.arange(len(gold)), {"targets": gold, "predictions": predicted}, ["a"])


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_libraries(seed):  # guards E4
    """With ties, and rows whose target is missing."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 5, 50).astype(float)
    predicted = np.round(gold + rng.normal(size=50), 1)
    gold[::7] = math.nan
    there = np.isfinite(gold)
    outputs = outputs_of(gold, predicted)
    found, g, p = measure(METRIC, outputs), gold[there], predicted[there]
    assert tuple(found) == NUMBERS == METRIC.names
    expected = [
        sklearn.mean_squared_error(g, p),
        sklearn.root_mean_squared_error(g, p),
        sklearn.mean_absolute_error(g, p),
        sklearn.r2_score(g, p),
    ]
    expected += [stats.pearsonr(g, p).statistic, stats.spearmanr(g, p).statistic]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-10)
    once = np.ones((len(p), 1))
    np.testing.assert_array_equal(ranks(p[:, None], once)[:, 0], stats.rankdata(p))
    table = METRIC.each(METRIC.reduce(METRIC.observe(outputs), np.ones(len(gold))))
    assert table["rows"] == [there.sum()]


def test_what_does_not_vary_has_no_correlation():
    found = measure(METRIC, outputs_of(np.ones(4), np.arange(4.0)))
    assert (
        all(math.isnan(found[name]) for name in ("r2", "pearson", "spearman"))
        and found["mse"] == 1.5
    )
    found = measure(METRIC, outputs_of(np.full(3, math.nan), np.zeros(3)))
    assert all(math.isnan(x) for x in found.values())


def test_ranks_of_partners(monkeypatch):
    """By sorting all candidates of a query; chunk by chunk; vectors that are alike find nothing."""
    monkeypatch.setattr(retrieval, "CHUNK", 4)
    rng = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    u = unit(rng.normal(size=(11, 6)))
    v = unit(u + 0.8 * rng.normal(size=(11, 6)))
    expected = [1 + int(np.sum(np.delete(v, i, 0) @ u[i] > v[i] @ u[i])) for i in range(11)]
    assert retrieval.ranks(u, v).tolist() == expected and max(expected) > 1
    found = measure(
        METRICS["retrieval_scores"], Outputs(np.arange(11), {"rank": retrieval.ranks(u, v)})
    )
    assert found["mrr"] == pytest.approx(np.mean(1 / np.array(expected))) and found[
        "recall_at_1"
    ] == np.mean(np.array(expected) == 1)
    assert retrieval.ranks(np.ones((3, 1)), np.ones((3, 1))).tolist() == [3, 3, 3]
