"""Sums over pairs of rows: by loops over all pairs, and by scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import ranking

sklearn = pytest.importorskip("sklearn.metrics")


@st.composite
def columns(draw):
    """A score with ties, positive rows and weights, of some rows and columns."""
    rows, count = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    score = rng.integers(0, draw(st.integers(1, 8)), (rows, count)) / 4
    weights = rng.random(rows) * (rng.random(rows) < 0.8)
    if draw(st.booleans()):
        weights = (weights > 0).astype(float)
    return score, rng.random((rows, count)) < draw(st.sampled_from([0, 0.3, 0.7, 1])), weights


@settings(max_examples=100, deadline=None)
@given(columns())
def test_sums_are_those_of_all_pairs(case):
    score, positive, weights = case
    found = ranking.summed(score, positive, weights)
    for c in range(score.shape[1]):
        s, p, q = score[:, c], weights * positive[:, c], weights * ~positive[:, c]
        above, equal = s[:, None] > s, s[:, None] == s
        np.testing.assert_allclose(found["wins"][c], p @ (above + equal / 2) @ q, atol=1e-12)
        hits, every = (above | equal).T @ p, (above | equal).T @ weights
        precision = np.divide(hits, every, out=np.zeros(len(s)), where=every > 0)
        np.testing.assert_allclose(found["precision"][c], p @ precision, atol=1e-12)
        np.testing.assert_allclose(found["positive"][c], p.sum(), atol=1e-12)
        np.testing.assert_allclose(found["negative"][c], q.sum(), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(columns())
@pytest.mark.filterwarnings("ignore")
def test_areas_are_those_of_scikit_learn(case):
    score, positive, weights = case
    sums = ranking.summed(score, positive, weights)
    area, precision = ranking.auroc(sums), ranking.average_precision(sums)
    for c in range(score.shape[1]):
        there = weights > 0
        if len(set(positive[there, c])) == 2:
            args = (positive[there, c], score[there, c])
            wanted = sklearn.roc_auc_score(*args, sample_weight=weights[there])
            assert area[c] == pytest.approx(wanted, abs=1e-12)
        else:
            assert np.isnan(area[c])
        if positive[there, c].any():
            wanted = (
                sklearn.average_precision_score(*args, sample_weight=weights[there])
                if (len(set(positive[there, c])) == 2)
                else 1
            )
            assert precision[c] == pytest.approx(wanted, abs=1e-12)
        else:
            assert np.isnan(precision[c])


def test_rows_of_equal_weights_and_an_order_give_the_same():
    """The two ways that the host counts, of thousands of rows, in float32 and float64."""
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        score = np.round(rng.normal(size=(5000, 2)), 2).astype(dtype)
        positive, weights = rng.random((5000, 2)) < 0.1, (rng.random(5000) < 0.9).astype(float)
        quick, slow = (ranking.summed(score, positive, w) for w in (weights, 2 * weights))
        for name, factor in (("wins", 4), ("precision", 2), ("positive", 2), ("negative", 2)):
            np.testing.assert_allclose(factor * quick[name], slow[name], rtol=1e-12)


def test_items_of_rows_take_the_weights_of_their_rows():
    rng = np.random.default_rng(1)
    row, weights = rng.integers(0, 10, 60), rng.random(10)
    score, positive = rng.integers(0, 9, (60, 1)), rng.random((60, 1)) < 0.5
    for w in (weights, (weights > 0.5).astype(float)):
        found = ranking.summed(score, positive, w, row)
        for name, value in ranking.summed(score, positive, w[row]).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(columns(), st.integers(0, 10**6))
def test_pairs_are_those_of_a_loop(case, seed):
    score, _, weights = case
    label = np.random.default_rng(seed).integers(0, score.shape[1], len(score))
    found = ranking.pairs(score, label, weights)
    for a in range(score.shape[1]):
        s = score[:, a]
        order = (s[:, None] > s) + (s[:, None] == s) / 2
        for b in range(score.shape[1]):
            wanted = (weights * (label == a)) @ order @ (weights * (label == b))
            assert found[a, b] == pytest.approx(wanted, abs=1e-12)


def test_ties_are_counted_in_both_worlds():
    values = np.array([[5.0, 5, 3, 1, 1, 1], [2, 2, 2, 2, 2, 2]])
    for xp in (np, jnp):
        first, end = ranking.tied(xp.asarray(values))
        assert first.tolist() == [[0, 0, 2, 3, 3, 3], [0] * 6]
        assert end.tolist() == [[2, 2, 3, 6, 6, 6], [6] * 6]
    assert [x.shape for x in ranking.tied(np.zeros((2, 0)))] == [(2, 0)] * 2


def test_means_leave_out_what_is_undefined():
    value, support = np.array([0.5, np.nan, 1.0]), np.array([3.0, 7, 1])
    assert ranking.means(value, support) == (0.75, (1.5 + 1) / 4)
    assert np.isnan(ranking.means(value * np.nan, support)).all()
