"""Scores of several labels a text: those of scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0, 0.3, 1]))
@pytest.mark.filterwarnings("ignore")
def test_overlap_is_that_of_scikit_learn(rows, count, seed, share):
    rng = np.random.default_rng(seed)
    gold, given_labels = rng.random((rows, count)) < share, rng.random((rows, count)) < 0.4
    compare_overlap(gold, given_labels)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.filterwarnings("ignore")
def test_overlap_of_thousands_of_rows(seed):
    compare_overlap(*cells(seed, rows=10_000, count=9))


def compare_overlap(gold, given_labels):
    arrays = {"labels": gold, "given": given_labels}
    outputs = Outputs(np.arange(len(gold)), arrays, [str(i) for i in range(gold.shape[1])])
    metric = label_sets.METRICS["label_set_jaccard"]
    found = measure(metric, outputs)
    if gold.shape[1] == 1:  # scikit-learn takes one column for labels that exclude each other
        pad = lambda x: np.concatenate([x, np.zeros_like(x)], -1)
        gold, given_labels, averages = pad(gold), pad(given_labels), ("micro", "samples")
    else:
        averages = ("macro", "micro", "weighted", "samples")
        wanted = sklearn.jaccard_score(gold, given_labels, average=None, zero_division=0)
        table = metric.each(metric.reduce(metric.observe(outputs), np.ones(len(gold))))
        np.testing.assert_allclose(table["jaccard"], wanted, rtol=1e-12)
    for average in averages:
        wanted = sklearn.jaccard_score(gold, given_labels, average=average, zero_division=0)
        assert found[f"jaccard_{average}"] == pytest.approx(wanted, abs=1e-12)
