"""The best threshold is the best of all that there are."""

import numpy as np
import pytest
from hypothesis import given, settings

from jaxsft.metrics import thresholds
from tests.metrics.test_ranking_curves import rows

sklearn = pytest.importorskip("sklearn.metrics")


def f1(positive, given_label):
    return sklearn.f1_score(positive, given_label, zero_division=0)


def youden(positive, given_label):
    return given_label[positive].mean() - given_label[~positive].mean()


@settings(max_examples=100, deadline=None)
@given(rows(both=True))
def test_no_threshold_is_better(case):
    positive, score = case
    every = [*np.unique(score), np.inf]
    for best, quality in ((thresholds.best_f1, f1), (thresholds.best_youden, youden)):
        found = best(positive, score)
        top = max(quality(positive, score >= t) for t in every)
        assert quality(positive, score >= found) == pytest.approx(top, abs=1e-12)


def test_it_lies_between_the_scores_that_it_separates():
    positive, score = np.array([True, True, False, False]), np.array([0.9, 0.6, 0.4, 0.1])
    for best in (thresholds.best_f1, thresholds.best_youden):
        assert best(positive, score) == 0.5
        near = np.array([np.nextafter(1, 2), 1.0])
        assert best(np.array([True, False]), near) == near[0]
    # every row is given the label where that is best
    assert thresholds.best_f1(np.array([True, False, True]), np.array([0.3, 0.2, 0.1])) == 0.1


def test_rows_of_one_kind_do_not_determine_it():
    for positive in (np.ones(3, bool), np.zeros(3, bool), np.zeros(0, bool)):
        score = np.linspace(0, 1, len(positive))
        for best in (thresholds.best_f1, thresholds.best_youden):
            assert best(positive, score) == 0.5 and best(positive, score, 0.3) == 0.3
