"""The cumulative link model by its formula, and as an option of a task."""

import jax
import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.models.ordinal_head import log_probabilities
from tests.conftest import LABELS, bench, make_config

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_by_the_formula():
    score, raw = RNG.normal(0, 3, 20), RNG.normal(0, 1, 4)
    gaps = np.log1p(np.exp(raw[1:]))
    edges = raw[0] - gaps.sum() / 2 + np.array([0, *np.cumsum(gaps)])
    below = np.array([[0, *logistic(edges - f), 1] for f in score])
    found = log_probabilities(score, raw)
    assert found.shape == (20, 5)
    np.testing.assert_allclose(np.exp(found), np.diff(below, axis=1), rtol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, rtol=1e-12)


def test_two_labels_are_a_logistic_regression():
    found = log_probabilities(np.array([0.7]), np.array([0.2]))
    np.testing.assert_allclose(np.exp(found[0, 1]), logistic(0.7 - 0.2), rtol=1e-12)


def test_far_scores_have_finite_gradients():
    f = lambda score, raw: log_probabilities(score, raw).sum()
    for score in (np.array([1e4]), np.array([-1e4])):
        value, gradients = jax.value_and_grad(f, argnums=(0, 1))(score, np.zeros(3))
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_the_head_has_one_score_and_thresholds_and_they_move():
    b = bench("classify", 9, task={"ordinal": True, "labels": list(LABELS)})
    shapes = jax.tree.map(lambda x: x.shape, b.params["head"])
    assert shapes == {"out": {"w": (16, 1), "b": (1,)}, "thresholds": (2,)}
    state, _ = b.run(2)
    assert not int(state.skipped)
    before, after = b.params["head"]["thresholds"], state.trainable["head"]["thresholds"]
    assert (np.asarray(before) != np.asarray(after)).all()
    _, columns = b.evaluate(state.trainable, b.apart[1], b.batches[0], b.hyper)
    np.testing.assert_allclose(np.exp(columns["logits"]).sum(-1), 1, rtol=1e-6)


def test_the_order_must_be_said():
    with pytest.raises(ConfigError, match=r"task\.labels.*their order is that of the classes"):
        make_config("classify", task={"ordinal": True})
    with pytest.raises(ConfigError, match="logarithms of probabilities"):
        make_config("classify", task={"ordinal": True, "labels": ["a", "b"], "loss": "mse"})
