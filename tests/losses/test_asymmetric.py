"""The asymmetric loss by its formula, at its limits, and as an option of a task."""

import jax
import numpy as np
import pytest

from jaxsft.losses import get
from tests.conftest import bench

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, T = RNG.normal(0, 2, 40), RNG.integers(0, 2, 40).astype(float)


def values(x, t, positive=0.0, negative=4.0, margin=0.05):
    scalars = {"positive_gamma": positive, "negative_gamma": negative, "negative_margin": margin}
    return get("asymmetric").values(x, t, scalars)


@pytest.mark.parametrize("positive, negative, margin", [(0, 4, 0.05), (1, 2, 0.0), (2, 1, 0.2)])
def test_by_the_formula(positive, negative, margin):
    def one(x, t):
        p = 1 / (1 + np.exp(-x))
        lowered = max(p - margin, 0.0)
        there = (1 - p) ** positive * np.log(p)
        return -there if t else -(lowered**negative) * np.log(1 - lowered)

    right = [one(x, t) for x, t in zip(X, T, strict=True)]
    np.testing.assert_allclose(values(X, T, positive, negative, margin), right, rtol=1e-9)


def test_without_its_options_it_is_binary_cross_entropy():
    right = get("binary_cross_entropy").values(X, T, {})
    np.testing.assert_allclose(values(X, T, 0.0, 0.0, 0.0), right, rtol=1e-10)


def test_a_label_that_is_not_there_counts_nothing_below_the_margin():
    assert (np.asarray(values(np.array([-5.0, -3.0]), np.zeros(2), margin=0.05)) == 0).all()


def test_certain_predictions_have_finite_gradients():
    x = np.array([1e4, -1e4, 0.0])
    for t in (np.zeros(3), np.ones(3)):
        for options in ((0, 4, 0.05), (2, 2, 0.0), (0, 0, 0.0)):
            f = lambda x, t=t, options=options: values(x, t, *options).sum()
            value, gradient = jax.value_and_grad(f)(x)
            assert np.isfinite(value) and np.isfinite(gradient).all()


def test_it_is_an_option_of_tasks_with_sets_of_labels():
    b = bench("multilabel", 8, task={"loss": "asymmetric", "negative_gamma": 3.0})
    assert b.hyper["negative_gamma"] == 3 and list(b.hyper["terms"]) == ["asymmetric"]
    state, _ = b.run(2)
    assert int(state.step) == 2 and not int(state.skipped)
