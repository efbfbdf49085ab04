"""Calibration errors against loops over bins, and the temperature against a search."""

import numpy as np
import pytest
from hypothesis import given, settings

from jaxsft.errors import DataError
from jaxsft.metrics import calibration
from jaxsft.metrics.base import measure
from jaxsft.metrics.by_name import METRICS
from tests.metrics.test_probabilities import many, outputs_of, rows

special = pytest.importorskip("scipy.special")
optimize = pytest.importorskip("scipy.optimize")
sklearn = pytest.importorskip("sklearn.calibration")


def in_bins(logits, label):
    p = special.softmax(logits, -1)
    return p.max(-1), (logits.argmax(-1) == label).astype(float)


def by_loop(confidence, hit, bins):
    """Returns ECE and MCE of rows whose bins are given."""
    rows = [bins == i for i in np.unique(bins)]
    gaps = [abs(confidence[r].mean() - hit[r].mean()) for r in rows]
    return float(np.dot(gaps, [r.mean() for r in rows])), max(gaps)


def of_equal_mass(confidence):
    """Returns the bin of the middle of each group of equal rows."""
    places = np.array([[(confidence < c).sum(), (confidence <= c).sum()] for c in confidence])
    return np.minimum(15 * places.sum(-1) // (2 * len(confidence)), 14)


@settings(max_examples=60, deadline=None)
@given(rows())
def test_errors_are_those_of_a_loop(case):
    outputs, (confidence, hit) = outputs_of(*case), in_bins(*case)
    own = calibration.observe(outputs)["confidence"]  # rounding may move a limit
    np.testing.assert_allclose(own, confidence, rtol=1e-14)
    width = np.maximum(np.ceil(own * 15), 1)
    for mode, bins in (("equal_width", width), ("equal_mass", of_equal_mass(own))):
        found = measure(METRICS[f"calibration_{mode}"], outputs)
        ece, mce = by_loop(confidence, hit, bins)
        assert found[f"ece_15_{mode}"] == pytest.approx(ece, abs=1e-12)
        assert found[f"mce_15_{mode}"] == pytest.approx(mce, abs=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_the_curve_is_that_of_scikit_learn(seed):
    logits, label = many(seed, count=15_000)
    outputs, (confidence, hit) = outputs_of(logits, label), in_bins(logits, label)
    for mode, strategy in (("equal_width", "uniform"), ("equal_mass", "quantile")):
        metric = METRICS[f"calibration_{mode}"]
        table = metric.each(metric.reduce(metric.observe(outputs), np.ones(len(label))))
        there = table["rows"] > 0
        accuracy, mean = sklearn.calibration_curve(hit, confidence, n_bins=15, strategy=strategy)
        # a limit of a quantile falls on a row, which stands on one side of it or the other
        tolerance = 1e-12 if mode == "equal_width" else 3e-3
        np.testing.assert_allclose(table["accuracy"][there], accuracy, atol=tolerance)
        np.testing.assert_allclose(table["confidence"][there], mean, atol=tolerance)
        assert len(metric.rows_of(outputs)) == 15 == len(there)
    assert (table["rows"] == 1000).all()


def test_a_perfect_and_a_blind_model():
    logits = np.where(np.arange(3) == 0, 100.0, 0) * np.ones((10, 1))
    for mode in ("equal_width", "equal_mass"):
        metric = METRICS[f"calibration_{mode}"]
        right, wrong = (measure(metric, outputs_of(logits, np.full(10, i))) for i in (0, 1))
        assert set(right.values()) == {0.0} and set(wrong.values()) == {1.0}
        assert np.isnan(
            list(measure(metric, outputs_of(logits * np.nan, np.zeros(10, int))).values())
        ).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_has_the_least_log_loss(seed, scale):
    logits, label = many(seed, count=2000)
    logits = logits * scale
    found = calibration.temperature(logits, label)
    loss = lambda t: -special.log_softmax(logits / np.exp(t), -1)[np.arange(2000), label].mean()
    best = optimize.minimize_scalar(
        loss, bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-10}
    )
    assert found == pytest.approx(np.exp(best.x), rel=1e-5)
    assert loss(np.log(found)) <= best.fun + 1e-12
    numbers = calibration.before_and_after(outputs_of(logits, label), found)
    assert numbers["log_loss_scaled"] <= numbers["log_loss"]
    assert numbers["log_loss_scaled"] == pytest.approx(best.fun, abs=1e-9)
    assert {f"{name}_scaled" for name in numbers if not name.endswith("_scaled")} < set(numbers)


def test_temperatures_at_the_limits():
    logits = np.eye(3) * 2
    assert calibration.temperature(logits, np.arange(3)) == pytest.approx(0.01)
    assert calibration.temperature(logits, (np.arange(3) + 1) % 3) == pytest.approx(100)
    assert calibration.temperature(np.zeros((4, 3)), np.zeros(4, int)) == 1
    some = calibration.temperature(*many(0, count=500))
    logits, label = many(0, count=500)
    both = np.concatenate([logits, logits]), np.append(label, np.full(500, -1))
    assert calibration.temperature(*both) == some


def test_a_temperature_needs_rows():
    for logits, label in ((np.zeros((0, 3)), []), (np.full((1, 3), np.nan), [0])):
        with pytest.raises(DataError, match="needs rows with a label and finite logits"):
            calibration.temperature(logits, np.array(label, int))
