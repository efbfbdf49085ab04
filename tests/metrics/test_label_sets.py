"""Scores of several labels a text: those of scikit-learn."""

import numpy as np
import pytest

from jaxsft.metrics import label_sets
from jaxsft.metrics.base import Outputs, measure

sklearn = pytest.importorskip("sklearn.metrics")


def cells(seed, rows=40, count=5):
    rng = np.random.default_rng(seed)
    gold, given = rng.random((rows, count)) < 0.3, rng.random((rows, count)) < 0.4
    gold[:, 1] = False  # a label that no row has
    given[:, 2] = False  # one that is never given
    gold[3], given[3] = False, False  # a row without any, and nothing given
    return gold, given


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed):  # guards E4
    gold, given = cells(seed)
    outputs = Outputs(np.arange(40), {"labels": gold, "given": given}, list("abcde"))
    metric = label_sets.METRICS["label_set_scores"]
    found = measure(metric, outputs)
    assert set(found) == set(metric.names) and found["rows"] == 40
    scores = lambda average: sklearn.precision_recall_fscore_support(
        gold, given, average=average, zero_division=0
    )
    for average in ("macro", "micro", "weighted", "samples"):
        names = [f"{m}_{average}" for m in ("precision", "recall", "f1")]
        np.testing.assert_allclose([found[n] for n in names], scores(average)[:3], rtol=1e-12)
    assert found["subset_accuracy"] == pytest.approx(sklearn.accuracy_score(gold, given))
    assert found["hamming_loss"] == pytest.approx(sklearn.hamming_loss(gold, given))
    table = metric.each(metric.reduce(metric.observe(outputs), np.ones(40)))
    columns = [table[name] for name in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(columns, scores(None), rtol=1e-12)
    assert table["given"].tolist() == given.sum(0).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_tuned_threshold_has_the_best_f1_there_is(seed):
    rng = np.random.default_rng(seed)
    gold = rng.random((30, 4)) < 0.4
    p = np.round(np.clip(0.5 * gold + rng.random((30, 4)) * 0.6, 0, 1), 1)  # many are equal
    gold[:, 2], gold[:, 3] = False, True
    found = label_sets.best_thresholds(gold, p, 0.5)
    for i in (0, 1):
        f1 = lambda t: sklearn.f1_score(gold[:, i], p[:, i] >= t, zero_division=0)
        assert f1(found[i]) == pytest.approx(max(f1(t) for t in np.arange(0, 1.05, 0.05)))
        assert found[i] not in p[:, i]  # between the values, not on one
    assert found[2] == found[3] == 0.5  # the rows say nothing of these
