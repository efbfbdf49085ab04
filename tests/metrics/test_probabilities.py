"""Scores of logits: those of scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxsft.metrics import probabilities
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

sklearn = pytest.importorskip("sklearn.metrics")
special = pytest.importorskip("scipy.special")
NAMES = ("log_loss", "brier_score", "top_k_accuracy")


def outputs_of(logits, label):
    logits, label = np.asarray(logits), np.asarray(label)
    labels = [f"l{i}" for i in range(logits.shape[1])]
    return Outputs(np.arange(len(label)), {"logits": logits, "label": label}, labels)


def all_of(outputs, names=NAMES):
    return {k: v for name in names for k, v in measure(METRICS[name], outputs).items()}


@st.composite
def rows(draw):
    """Logits with ties."""
    size, count = draw(st.integers(1, 30)), draw(st.integers(3, 8))
    values = st.integers(-8, 8).map(lambda x: x / 2)
    logits = draw(arrays.arrays(np.float64, (size, count), elements=values))
    label = draw(arrays.arrays(np.int64, (size,), elements=st.integers(0, count - 1)))
    return logits, label


def many(seed, labels=12, count=20_000, dtype=np.float64):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels - 1, count)
    logits = rng.normal(size=(count, labels)) * 2 + 3 * (np.arange(labels) == label[:, None])
    return logits.astype(dtype), label


def compare(logits, label, tolerance=1e-9):
    p, every = special.softmax(logits.astype(np.float64), -1), range(logits.shape[1])
    one_hot = label[:, None] == np.arange(logits.shape[1])
    wanted = {
        "log_loss": sklearn.log_loss(label, p, labels=every),
        "brier_score": ((p - one_hot) ** 2).sum(-1).mean(),
    }
    for k in (3, 5):
        wanted[f"top_{k}_accuracy"] = sklearn.top_k_accuracy_score(label, logits, k=k, labels=every)
    found = all_of(outputs_of(logits, label))
    assert found.keys() == wanted.keys()
    for name, number in wanted.items():
        assert found[name] == pytest.approx(number, abs=tolerance), name


@settings(max_examples=60, deadline=None)
@given(rows())
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_scikit_learn(case):
    compare(*case)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(2))
def test_scores_of_thousands_of_rows(seed, dtype):
    """More than a block of them; in float32 too."""
    compare(*many(seed, dtype=dtype), tolerance=1e-9 if dtype == np.float64 else 1e-6)


def test_the_brier_score_of_two_labels_is_twice_that_of_one():
    logits, label = many(0, labels=2, count=500)
    label = label + (np.arange(500) % 2)  # `many` leaves the last label out
    p = special.softmax(logits, -1)
    found = all_of(outputs_of(logits, label), ("brier_score",))
    assert found["brier_score"] == pytest.approx(2 * sklearn.brier_score_loss(label, p[:, 1]))


def test_what_is_impossible_costs_infinitely_much_and_what_is_no_number_is_none():
    logits = np.array([[0.0, -np.inf, 1], [1, 2, 3]])
    assert all_of(outputs_of(logits, [1, 2]))["log_loss"] == math.inf
    assert all_of(outputs_of(logits, [0, 2]))["log_loss"] < 1
    logits[0, 1] = np.nan
    for number in all_of(outputs_of(logits, [0, 2])).values():
        assert math.isnan(number)
    sound = all_of(outputs_of(logits[1:], [2]))
    outputs = outputs_of(logits, [0, 2])
    for name in NAMES:  # a row of weight 0 may be anything
        metric = METRICS[name]
        state = metric.reduce(metric.observe(outputs), np.array([0.0, 1]))
        expected = {key: pytest.approx(sound[key], rel=1e-12) for key in metric.names}
        assert metric.value(state) == expected
    found = all_of(outputs_of(logits, [-1, 2]))
    assert found == pytest.approx(sound, rel=1e-12)  # so may one without a label


@pytest.mark.parametrize("shift", [0, 60, -200])
def test_large_logits_lose_nothing(shift):
    """Beside those that `exp` takes as they are."""
    logits, label = many(5, count=3000, dtype=np.float32)
    found, expected = (all_of(outputs_of(x, label)) for x in (logits + shift, logits))
    assert found == pytest.approx(expected, abs=1e-6)


def test_logits_of_half_precision_are_widened():
    logits, label = many(3, dtype=np.float16)
    assert all_of(outputs_of(logits, label)) == all_of(outputs_of(logits.astype(np.float32), label))


def test_logarithms_of_probabilities_lie_label_by_label():
    logits, _ = many(4)
    found = probabilities.log_probabilities(logits)
    np.testing.assert_allclose(found, special.log_softmax(logits, -1), atol=1e-12)
    assert found[:, 0].flags.contiguous
    assert (probabilities.log_probabilities(np.full((2, 3), 1e4)) == -math.log(3)).all()
