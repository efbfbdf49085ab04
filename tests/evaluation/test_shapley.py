"""Shapley values and LIME against games whose answer is known."""

import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.evaluation import shapley

SLOPES = np.array([2.0, -1.0, 0.5, 3.0, 0.0])


def additive(keeps):
    return keeps @ SLOPES + 0.7


def gloves(keeps):
    """One left glove and two right ones: a pair is worth 1. Shapley values 4/6, 1/6, 1/6."""
    return (keeps[:, 0] & (keeps[:, 1] | keeps[:, 2])).astype(float)


def curved(keeps):
    x = keeps @ SLOPES
    return np.tanh(x) + keeps[:, 0] * keeps[:, 3]


def test_exact_values():
    np.testing.assert_allclose(shapley.exact(additive, 5), SLOPES, atol=1e-12)
    np.testing.assert_allclose(shapley.exact(gloves, 3), [4 / 6, 1 / 6, 1 / 6], atol=1e-12)
    with pytest.raises(ConfigError, match="2\\*\\*40 coalitions"):
        shapley.exact(additive, 40)


@pytest.mark.parametrize("game", [additive, curved])
def test_estimates_equal_exact_values(game):
    exact = shapley.exact(game, 5)
    np.testing.assert_allclose(shapley.kernel(game, 5, 1000, 0), exact, atol=1e-9)
    np.testing.assert_allclose(shapley.kernel(game, 5, 24, 0), exact, atol=0.4)
    sampled = shapley.sampled(game, 5, 4000, 0)
    np.testing.assert_allclose(sampled, exact, atol=0.05)
    whole = np.diff(game(np.array([[False] * 5, [True] * 5])))[0]
    for found in (sampled, shapley.kernel(game, 5, 24, 1)):
        assert found.sum() == pytest.approx(whole, abs=1e-9)


def test_one_player_has_all():
    assert shapley.kernel(lambda keeps: 3.0 * keeps[:, 0], 1, 10, 0) == pytest.approx([3])
    assert shapley.exact(lambda keeps: 3.0 * keeps[:, 0], 1) == pytest.approx([3])


def test_lime_finds_the_slopes_of_a_linear_score():
    np.testing.assert_allclose(shapley.lime(additive, 5, 500, 0), SLOPES, atol=0.02)


def test_kernel_equals_the_library():
    shap = pytest.importorskip("shap")
    explainer = shap.KernelExplainer(lambda x: curved(x > 0.5), np.zeros((1, 5)))
    theirs = explainer.shap_values(np.ones((1, 5)), nsamples=1000)[0]
    np.testing.assert_allclose(shapley.kernel(curved, 5, 1000, 0), theirs, atol=1e-6)
