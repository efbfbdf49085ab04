"""Heteroscedastic regression by its formula, and on the way to predictions with deviations."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxsft.errors import ConfigError
from jaxsft.losses import get
from tests.conftest import bench, make_config

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
OUTPUTS, Y = RNG.normal(0, 1, (30, 2)), RNG.normal(0, 2, 30)


def values(outputs, y, power):
    return get("gaussian").values(outputs, y, {"variance_power": power})


def test_it_is_the_likelihood_of_scipy():
    right = -stats.norm.logpdf(Y, OUTPUTS[:, 0], np.exp(OUTPUTS[:, 1] / 2))
    found = values(OUTPUTS, Y, 0.0) + np.log(2 * np.pi) / 2
    np.testing.assert_allclose(found, right, rtol=1e-10)
    weighed = np.exp(0.5 * OUTPUTS[:, 1]) * values(OUTPUTS, Y, 0.0)
    np.testing.assert_allclose(values(OUTPUTS, Y, 0.5), weighed, rtol=1e-10)


def test_with_a_power_of_one_means_are_learnt_as_by_half_the_square():
    """The weight is no part of the gradient (eq. 5)."""
    slope = jax.grad(lambda outputs: values(outputs, Y, 1.0).sum())(OUTPUTS)
    np.testing.assert_allclose(slope[:, 0], OUTPUTS[:, 0] - Y, rtol=1e-10)


def test_its_minimum_is_mean_and_variance():
    y = RNG.normal(3, 2, 1000)
    slope = jax.grad(lambda z: values(np.ones((1000, 1)) * z, y, 0.0).sum())
    np.testing.assert_allclose(slope(np.array([y.mean(), np.log(y.var())])), 0, atol=1e-9)


def test_the_head_gives_two_numbers_for_each_target():
    b = bench("regress", 8, task={"loss": "gaussian"})
    assert b.parts.task.width == 2 and b.params["head"]["out"]["w"].shape[1] == 4
    state, _ = b.run(2)
    assert int(state.step) == 2 and not int(state.skipped)
    _, columns = b.evaluate(state.trainable, b.apart[1], b.batches[0], b.hyper)
    assert columns["predicted"].shape == columns["variance"].shape
    split, task = b.batches.split, b.parts.task
    own = {name: np.full((split.examples, 2), 4.0) for name in ("predicted", "variance")}
    line = next(task.predictions(split, own, None))
    for i, name in enumerate(task.targets):
        mean, deviation = (one[i] for one in task.scale)
        assert line["prediction"][name] == pytest.approx(4 * deviation + mean)
        assert line["deviation"][name] == pytest.approx(2 * deviation)


@pytest.mark.parametrize("task", ["classify", "multilabel", "pair"])
def test_other_tasks_refuse_it(task):
    with pytest.raises(ConfigError, match=r"task\.loss=gaussian: expected one of"):
        make_config(task, task={"loss": "gaussian"})
