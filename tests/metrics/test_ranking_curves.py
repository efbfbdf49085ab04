"""Curves for figures: those of scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import ranking_curves

sklearn = pytest.importorskip("sklearn.metrics")


@st.composite
def rows(draw, both=False):
    """Positive rows and a score with ties; with `both`, there are positive and other rows."""
    size = draw(st.integers(2 if both else 1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    positive = rng.random(size) < draw(st.sampled_from([0.2, 0.5, 0.9]))
    if both:
        positive[:2] = True, False
    return positive, rng.integers(0, draw(st.integers(1, 9)), size) / 8


@settings(max_examples=100, deadline=None)
@given(rows(), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_curves_are_those_of_scikit_learn(case, weighted):
    positive, score = case
    weights = np.random.default_rng(len(score)).integers(1, 4, len(score)) if weighted else None
    options = {"sample_weight": weights}
    wanted = sklearn.roc_curve(positive, score, drop_intermediate=False, **options)
    found = ranking_curves.roc_curve(positive, score, weights)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    found = ranking_curves.precision_recall_curve(positive, score, weights)
    wanted = sklearn.precision_recall_curve(positive, score, **options)
    for name, ours, theirs in zip(found._fields, found, wanted, strict=True):
        if name == "recall" and not positive.any():
            assert np.isnan(ours[:-1]).all()  # scikit-learn says 1 where nothing is to be found
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(rows(both=True))
def test_corners_are_the_same_curve(case):
    whole = ranking_curves.roc_curve(*case)
    found = ranking_curves.corners(whole)
    assert sklearn.auc(found.fpr, found.tpr) == pytest.approx(
        sklearn.auc(whole.fpr, whole.tpr), abs=1e-12
    )
    theirs = sklearn.roc_curve(*case, drop_intermediate=True)
    assert 2 <= len(found.fpr) <= len(theirs[0])
    assert set(zip(*found, strict=True)) <= set(zip(*whole, strict=True))


def test_rows_of_weight_zero_are_not_on_the_curve():
    positive, score = np.array([True, False, True]), np.array([0.9, 0.5, 0.1])
    found = ranking_curves.roc_curve(positive, score, np.array([1.0, 2, 0]))
    for ours, theirs in zip(found, ranking_curves.roc_curve(positive[:2], score[:2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nothing_is_a_curve_of_no_numbers():
    none = np.zeros(0)
    assert np.isnan(ranking_curves.roc_curve(none > 0, none).tpr).all()
    assert len(ranking_curves.precision_recall_curve(none > 0, none).threshold) == 0
