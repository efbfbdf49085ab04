"""Losses of numbers: the quantile loss against scikit-learn, log cosh by its formula."""

import jax
import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from jaxsft.losses import get
from tests.conftest import bench

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(0, 2, 30), RNG.normal(0, 2, 30)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile(quantile):
    found = get("quantile").values(X, Y, {"quantile": quantile})
    assert found.mean() == pytest.approx(mean_pinball_loss(Y, X, alpha=quantile), rel=1e-12)


@pytest.mark.parametrize("quantile", [0.2, 0.8])
def test_its_minimum_is_the_quantile(quantile):
    y = RNG.exponential(size=501)
    values = get("quantile").values
    slope = jax.grad(lambda c: values(np.ones(501) * c, y, {"quantile": quantile}).sum())
    at = np.quantile(y, quantile)
    assert slope(at - 0.05) < 0 < slope(at + 0.05)


def test_log_cosh():
    values = get("log_cosh").values
    np.testing.assert_allclose(values(X, Y, {}), np.log(np.cosh(X - Y)), rtol=1e-10, atol=1e-15)
    far = values(np.array([1e6, -1e6]), np.zeros(2), {})
    np.testing.assert_allclose(far, 1e6 - np.log(2), rtol=1e-12)


def test_both_are_options_of_numbers():
    b = bench("regress", 8, task={"loss": "quantile", "quantile": 0.9})
    assert b.hyper["quantile"] == pytest.approx(0.9)
    for loss in ("quantile", "log_cosh"):
        state, _ = bench("regress", 8, task={"loss": loss}).run(2)
        assert int(state.step) == 2 and not int(state.skipped)
