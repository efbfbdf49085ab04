"""Kendall's tau-b: that of scipy, and of all pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import rank_correlation
from jaxsft.metrics.base import measure
from jaxsft.metrics.by_name import METRICS
from tests.metrics.test_number_errors import many, outputs_of, rows

stats = pytest.importorskip("scipy.stats")


def wanted(gold, predicted):
    there = np.isfinite(gold)
    return stats.kendalltau(gold[there], predicted[there]).statistic


@settings(max_examples=100, deadline=None)
@given(rows())
@pytest.mark.filterwarnings("ignore")
def test_tau_is_that_of_scipy(case):
    found = measure(METRICS["kendall"], outputs_of(*case))["kendall_tau_b"]
    assert found == pytest.approx(wanted(*case), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_tau_of_thousands_of_rows(digits):
    """With many ties and with none; the mean over targets."""
    (a, p), (b, q) = (tuple(np.round(x, digits) for x in many(seed)) for seed in (0, 1))
    outputs = outputs_of(np.stack([a, b], -1), np.stack([p, q], -1))
    found = measure(METRICS["kendall"], outputs)["kendall_tau_b"]
    assert found == pytest.approx((wanted(a, p) + wanted(b, q)) / 2, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 33), st.integers(1, 40), st.integers(0, 10**6))
def test_inversions_are_those_of_all_pairs(size, ranks, seed):
    rng = np.random.default_rng(seed)
    rank, mass = rng.integers(0, min(ranks, max(size, 1)), size), rng.random((2, size))
    before = np.arange(size)[:, None] < np.arange(size)
    expected = [w @ (before & (rank[:, None] > rank)) @ w for w in mass]
    np.testing.assert_allclose(rank_correlation.inversions(rank, mass), expected, atol=1e-12)


def test_what_does_not_vary_has_no_tau():
    one, rising = np.ones(5), np.arange(5.0)
    of = lambda gold, predicted: measure(METRICS["kendall"], outputs_of(gold, predicted))
    assert math.isnan(of(one, rising)["kendall_tau_b"])
    assert math.isnan(of(rising, one)["kendall_tau_b"])
    assert math.isnan(of(rising[:1], rising[:1])["kendall_tau_b"])
    assert math.isnan(of(rising, np.where(rising == 2, np.nan, rising))["kendall_tau_b"])
    assert of(rising, rising)["kendall_tau_b"] == 1 == -of(rising, -rising)["kendall_tau_b"]
