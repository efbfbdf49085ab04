"""More errors of numbers: those of scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics import number_errors
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

sklearn = pytest.importorskip("sklearn.metrics")


def outputs_of(gold, predicted):
    arrays = {"targets": gold, "predictions": predicted}
    return Outputs(np.arange(len(gold)), arrays, ["a"])


@st.composite
def rows(draw):
    """Numbers with ties, some targets missing, at least one there."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    gold = rng.integers(0, draw(st.integers(1, 9)), draw(st.integers(1, 40))).astype(float)
    predicted = np.round(gold + rng.normal(size=len(gold)), draw(st.integers(0, 3)))
    gold[1:][rng.random(len(gold) - 1) < 0.2] = math.nan
    return gold, predicted


def many(seed):
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=5001) * 3 + 100
    return np.where(rng.random(5001) < 0.1, np.nan, gold), gold + rng.normal(size=5001)


def wanted(gold, predicted):
    there = np.isfinite(gold)
    g, p = gold[there], predicted[there]
    pinball = {q: sklearn.mean_pinball_loss(g, p, alpha=q) for q in number_errors.QUANTILES}
    return {
        **{f"pinball_{q}": value for q, value in pinball.items()},
        "max_error": sklearn.max_error(g, p),
        "median_absolute_error": sklearn.median_absolute_error(g, p),
        "explained_variance": (
            math.nan if np.ptp(g) == 0 else sklearn.explained_variance_score(g, p)
        ),
    }


@settings(max_examples=100, deadline=None)
@given(rows())
def test_errors_are_those_of_scikit_learn(case):
    found = measure(METRICS["number_errors"], outputs_of(*case))
    assert found == pytest.approx(wanted(*case), abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_rows_of_two_targets(seed):
    (a, p), (b, q) = many(seed), many(seed + 10)
    metric = METRICS["number_errors"]
    outputs = outputs_of(np.stack([a, b], -1), np.stack([p, q], -1))
    table = metric.each(metric.reduce(metric.observe(outputs), np.ones(len(a))))
    each = [wanted(a, p), wanted(b, q)]
    for name, value in measure(metric, outputs).items():
        np.testing.assert_allclose(table[name], [x[name] for x in each], rtol=1e-9)
        assert value == pytest.approx(np.mean([x[name] for x in each]), rel=1e-9)
    np.testing.assert_array_equal(table["rows"], [np.isfinite(a).sum(), np.isfinite(b).sum()])


def test_the_median_of_repeated_rows():
    rng = np.random.default_rng(0)
    x, times = rng.integers(0, 9, (30, 2)) / 2, rng.integers(0, 4, (30, 2))
    found = number_errors.median(x, times.astype(float))
    expected = [np.median(np.repeat(x[:, i], times[:, i])) for i in range(2)]
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(number_errors.median(x, np.zeros((30, 2)))).all()
