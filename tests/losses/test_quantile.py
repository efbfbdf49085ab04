"""The quantile loss against scikit-learn, and as an option of a task."""

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


def test_it_is_an_option_of_numbers():
    b = bench("regress", 8, task={"loss": "quantile", "quantile": 0.9})
    assert b.hyper["quantile"] == pytest.approx(0.9)
    state, _ = b.run(2)
    assert int(state.step) == 2 and not int(state.skipped)
