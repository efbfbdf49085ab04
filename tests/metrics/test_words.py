"""Scores of tagged words against scikit-learn."""

import itertools

import numpy as np
import pytest

from jaxsft.metrics import words
from jaxsft.metrics.base import measure
from jaxsft.metrics.classification import AVERAGES
from tests.metrics.properties import check
from tests.metrics.tagged import tagged

ACCURACY, SCORES = words.METRICS["word_accuracy"], words.METRICS["word_scores"]


def test_a_text_of_which_nothing_was_predicted_counts():  # guards D6
    gold, predicted = [["B-A", "O"], ["B-A", "I-A"]], [["B-A", "O"], None]
    outputs = tagged(gold, predicted, "iob2")
    assert measure(ACCURACY, outputs) == {"accuracy": 0.5, "words": 4}
    # a row that does not count leaves its words out
    state = ACCURACY.reduce(ACCURACY.observe(outputs), np.array([1.0, 0.0]))
    assert ACCURACY.value(state) == {"accuracy": 1.0, "words": 2}
    state = ACCURACY.reduce(ACCURACY.observe(outputs), np.zeros(2))
    assert np.isnan(ACCURACY.value(state)["accuracy"])


def test_words_by_class():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    gold, predicted = (
        [["NVAX"[i] for i in rng.integers(0, 3 + k, 7)] for _ in range(9)] for k in (0, 1)
    )
    outputs = tagged(gold, predicted, "none", list("ANVX"))
    ours = check(SCORES, outputs)
    flat = [list(itertools.chain.from_iterable(x)) for x in (gold, predicted)]
    for average in AVERAGES:
        expected = sklearn.precision_recall_fscore_support(*flat, average=average, zero_division=0)
        np.testing.assert_allclose(
            [ours[f"word_{m}_{average}"] for m in ("precision", "recall", "f1")], expected[:3]
        )
    found = check(ACCURACY, outputs)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(*flat))
