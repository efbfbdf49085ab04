"""The focal loss by hand, at its limits, and as an option of a task."""

import jax
import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.losses import get
from tests.conftest import bench, make_config

LABELS = np.array([0, 2, 1])
LOGITS = np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])


def focal(logits, gamma, share=0.0):
    return get("focal").values(logits, LABELS, {"focal_gamma": gamma, "label_smoothing": share})


@pytest.mark.usefixtures("x64")
def test_by_hand():
    p = np.array([0.5, 0.7, 0.3])
    np.testing.assert_allclose(focal(LOGITS, 2.0), -((1 - p) ** 2) * np.log(p), rtol=1e-12)
    slope = jax.grad(lambda z: focal(z, 2.0)[0])(LOGITS)[0]
    step = 1e-6 * np.eye(3)
    for i in range(3):
        up, down = (float(focal(LOGITS + sign * step[i], 2.0)[0]) for sign in (1, -1))
        assert float(slope[i]) == pytest.approx((up - down) / 2e-6, rel=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_without_gamma_it_is_cross_entropy(share):
    expected = get("cross_entropy").values(LOGITS, LABELS, {"label_smoothing": share})
    np.testing.assert_allclose(focal(LOGITS, 0.0, share), expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_smoothed_by_hand():
    p = np.array([0.5, 0.25, 0.25])
    each = -((1 - p) ** 2) * np.log(p)
    expected = 0.9 * each[0] + 0.1 * each.mean()
    np.testing.assert_allclose(focal(LOGITS, 2.0, 0.1)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_certain_label_has_a_finite_gradient(gamma):
    logits = np.array([[1e4, -1e4, 0], [0, 0, -1e4], [1e4, 0, 0]], np.float32)
    value, gradient = jax.value_and_grad(lambda z: focal(z, gamma).sum())(logits)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_it_is_an_option_of_tasks_with_a_label():
    b = bench("classify", 8, task={"loss": "focal", "focal_gamma": 1.0})
    assert b.hyper["focal_gamma"] == 1 and list(b.hyper["terms"]) == ["focal"]
    state, _ = b.run(2)
    assert int(state.step) == 2 and not int(state.skipped)
    message = r"focal_gamma=1.0: is read with task\.loss=focal only"
    with pytest.raises(ConfigError, match=message):
        make_config("classify", task={"loss": "mse", "focal_gamma": 1.0})
    with pytest.raises(ConfigError, match="expected one of mse, gaussian, huber, mae, quantile"):
        make_config("regress", task={"loss": "focal"})
