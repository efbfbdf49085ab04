"""Scores of several labels a text: those of scikit-learn."""

import numpy as np
import pytest

from jaxsft.metrics import classification, names

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
    found = classification.scores(gold, given)
    assert tuple(found) == classification.NAMES and found["rows"] == 40
    for average in names.AVERAGES:
        expected = sklearn.precision_recall_fscore_support(
            gold, given, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(
            [found[f"{m}_{average}"] for m in ("precision", "recall", "f1")], expected, rtol=1e-12
        )
    assert found["subset_accuracy"] == pytest.approx(sklearn.accuracy_score(gold, given))
    assert found["hamming_loss"] == pytest.approx(sklearn.hamming_loss(gold, given))
    expected = np.array(
        sklearn.precision_recall_fscore_support(gold, given, average=None, zero_division=0)
    )
    table = classification.per_label("abcde", gold, given, np.full(5, 0.5))
    np.testing.assert_allclose([row[4:] for row in table], expected[:3].T, rtol=1e-12)
    assert [row[1] for row in table] == expected[3].tolist() and [
        row[2] for row in table
    ] == given.sum(0).tolist()


def test_counts_add_and_leave_absent_texts_out():  # guards E1
    gold, given = cells(0)
    present = np.arange(40) % 4 > 0
    state = classification.LabelCounts.update(gold, given, present)
    parts = [
        classification.LabelCounts.update(gold[i::2], given[i::2], present[i::2]) for i in (0, 1)
    ]
    expected = sklearn.f1_score(gold[present], given[present], average="micro")
    assert (
        state.brief()["f1_micro"]
        == pytest.approx(expected)
        == parts[0].merge(parts[1]).brief()["f1_micro"]
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_tuned_threshold_has_the_best_f1_there_is(seed):
    rng = np.random.default_rng(seed)
    gold = rng.random((30, 4)) < 0.4
    p = np.round(np.clip(0.5 * gold + rng.random((30, 4)) * 0.6, 0, 1), 1)  # many are equal
    gold[:, 2], gold[:, 3] = False, True
    found = classification.best_thresholds(gold, p, 0.5)
    for i in (0, 1):
        f1 = lambda t: sklearn.f1_score(gold[:, i], p[:, i] >= t, zero_division=0)
        assert f1(found[i]) == pytest.approx(max(f1(t) for t in np.arange(0, 1.05, 0.05)))
        assert found[i] not in p[:, i]  # between the values, not on one
    assert found[2] == found[3] == 0.5  # the rows say nothing of these
