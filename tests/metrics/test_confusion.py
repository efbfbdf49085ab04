"""The confusion matrix of one label a row, and its scores, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxsft.metrics import classification
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.classification import AVERAGES
from tests.metrics.properties import check

METRIC = classification.METRICS["label_scores"]
RNG = np.random.default_rng(0)
GOLD = {
    "all classes": (RNG.integers(0, 4, 60), RNG.integers(0, 4, 60), 4),
    "one never predicted, one never there": (RNG.integers(0, 3, 60), RNG.choice([0, 1, 3], 60), 4),
    "two that do not occur": (RNG.choice([1, 3], 30), RNG.choice([1, 3], 30), 5),
    "all wrong": (np.zeros(5, int), np.ones(5, int), 2),
    "one row": (np.array([2]), np.array([2]), 3),
}


def outputs(gold, predicted, classes):
    arrays = {"label": gold, "predicted": predicted}
    return Outputs(np.arange(len(gold)), arrays, [str(i) for i in range(classes)])


@pytest.mark.parametrize("case", GOLD)
def test_scores_are_those_of_scikit_learn(case):  # guards E4
    gold, predicted, classes = GOLD[case]
    found = measure(METRIC, outputs(*GOLD[case]))
    state = METRIC.reduce(METRIC.observe(outputs(*GOLD[case])), np.ones(len(gold)))
    np.testing.assert_array_equal(
        state, sklearn.confusion_matrix(gold, predicted, labels=range(classes))
    )
    assert found["rows"] == len(gold)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(gold, predicted), abs=1e-15)
    for average in AVERAGES:
        expected = sklearn.precision_recall_fscore_support(
            gold, predicted, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(
            [found[f"{m}_{average}"] for m in ("precision", "recall", "f1")], expected, atol=1e-14
        )


def test_rows_that_do_not_count_are_left_out():
    gold, predicted, classes = GOLD["all classes"]
    keep = RNG.random(60) < 0.5
    of = METRIC.reduce(METRIC.observe(outputs(gold, predicted, classes)), keep.astype(float))
    np.testing.assert_array_equal(
        of, sklearn.confusion_matrix(gold[keep], predicted[keep], labels=range(classes))
    )
    nothing = METRIC.value(np.zeros_like(of))
    assert nothing["rows"] == 0 and np.isnan(nothing["accuracy"])


def test_weights_and_compiled_programs():
    check(METRIC, outputs(*GOLD["one never predicted, one never there"]))
