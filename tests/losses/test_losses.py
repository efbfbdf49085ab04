"""Losses by name against scikit-learn, numpy and each other."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxsft.config.option import option
from jaxsft.errors import ConfigError
from jaxsft.losses import LOSSES, Loss, get
from jaxsft.tasks.specs import SPECS

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(0, 3, (20, 4)), RNG.integers(0, 4, 20)
X, Y = RNG.normal(0, 2, 30), RNG.normal(0, 2, 30)


def values(name, outputs, targets, **scalars):
    return get(name).values(
        outputs, targets, {"label_smoothing": 0.0, "huber_delta": 1.0} | scalars
    )


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_cross_entropy():
    found = values("cross_entropy", LOGITS, LABELS)
    np.testing.assert_allclose(found, -np.log(softmax(LOGITS)[np.arange(20), LABELS]), rtol=1e-12)
    assert found.mean() == pytest.approx(
        sklearn.log_loss(LABELS, softmax(LOGITS), labels=range(4)), rel=1e-12
    )
    np.testing.assert_allclose(
        values("cross_entropy", np.log([[0.5, 0.25, 0.25]]), np.array([1])),
        [np.log(4)],
        rtol=1e-12,
    )


def test_log_loss_is_cross_entropy():
    assert get("log_loss") is get("cross_entropy")


def test_binary_cross_entropy():
    targets = RNG.integers(0, 2, 30)
    found = values("binary_cross_entropy", X, targets)
    p = 1 / (1 + np.exp(-X))
    assert found.mean() == pytest.approx(sklearn.log_loss(targets, p), rel=1e-12)
    soft = RNG.uniform(size=30)
    np.testing.assert_allclose(
        values("binary_cross_entropy", X, soft),
        -soft * np.log(p) - (1 - soft) * np.log(1 - p),
        rtol=1e-10,
    )


def test_two_classes_are_the_difference_of_their_logits():
    two, labels = LOGITS[:, :2], LABELS % 2
    np.testing.assert_allclose(
        values("cross_entropy", two, labels),
        values("binary_cross_entropy", two[:, 1] - two[:, 0], labels.astype(float)),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    "name, expected", [("mse", sklearn.mean_squared_error), ("mae", sklearn.mean_absolute_error)]
)
def test_errors(name, expected):
    found = values(name, X, Y)
    assert found.shape == X.shape and found.mean() == pytest.approx(expected(Y, X), rel=1e-12)


def test_huber():
    """By hand on both sides of delta, continuous with its slope, and its limits."""
    huber = lambda x, y, delta: values("huber", x, y, huber_delta=delta)
    np.testing.assert_allclose(
        huber(np.array([0.5, -0.5, 3.0, -3.0]), np.zeros(4), 2.0), [0.125, 0.125, 4.0, 4.0]
    )
    slope = jax.vmap(jax.grad(huber), (0, None, None))
    np.testing.assert_allclose(
        slope(np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 1.999, 2.001, 9.0]), 0.0, 2.0),
        [-2, -2, -1, 0, 1, 1.999, 2, 2],
    )
    np.testing.assert_allclose(huber(X, Y, 1e6), values("mse", X, Y) / 2, rtol=1e-12)
    np.testing.assert_allclose(huber(X, Y, 1e-9) / 1e-9, values("mae", X, Y), rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_smoothing_is_a_mixture_with_uniform(epsilon):  # guards A4
    """Loss and gradient: softmax minus the mixed target."""
    target = (1 - epsilon) * np.eye(4)[LABELS] + epsilon / 4
    np.testing.assert_allclose(
        values("cross_entropy", LOGITS, LABELS, label_smoothing=epsilon),
        -(target * np.log(softmax(LOGITS))).sum(-1),
        rtol=1e-12,
    )
    gradient = jax.grad(
        lambda z: values("cross_entropy", z, LABELS, label_smoothing=epsilon).sum()
    )(LOGITS)
    np.testing.assert_allclose(gradient, softmax(LOGITS) - target, atol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_large_logits_do_not_overflow(name):
    with jax.enable_x64(False):
        logits, target = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32), np.array([0, 0])
        if name == "binary_cross_entropy":
            logits, target = logits[:, 0], np.ones(2, np.float32)
        value, gradient = jax.value_and_grad(lambda z: values(name, z, target).sum())(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert value == pytest.approx(2e4 if name == "cross_entropy" else 1e4)


def adds(name):
    """A loss whose values are those of each text; others say that they compare the texts of a
    batch.
    """
    return not any(needed[0] == "train.accumulate=1" for needed in LOSSES[name].needs)


@pytest.mark.parametrize("name", [name for name in LOSSES if adds(name)])
def test_no_loss_divides(name):  # guards A5
    """Doubling the batch leaves every value as it is: nothing knows of the batch."""
    a = {
        "labels": (LOGITS, LABELS),
        "normals": (LOGITS[:, :2], LABELS.astype(float)),
    }.get(LOSSES[name].targets, (X, np.abs(Y) % 1))
    scalars = {name: one.default for name, one in LOSSES[name].own_options.items()}
    inputs = {"class_counts": np.arange(1, 5), "transition": np.full((4, 4), 0.25), "step": 3}
    scalars |= inputs | {"reweight_after": 0}  # a duration, which the step is given in steps
    once, twice = (values(name, *x, **scalars) for x in (a, [np.concatenate([x, x]) for x in a]))
    assert once.shape == a[1].shape
    np.testing.assert_array_equal(np.concatenate([once, once]), twice)


def test_names():
    others = ("together", "nothing", "normals")
    fitting = {name for name in LOSSES if LOSSES[name].targets not in others}
    assert fitting == set(SPECS["classify"].losses)
    with pytest.raises(
        ConfigError,
        match=r"task\.loss=hinge: unknown loss; there are asymmetric, binary_cross_entropy, ",
    ):
        get("hinge")


def test_a_loss_that_says_something_wrong():
    with pytest.raises(ConfigError, match="unknown; there are labels, "):
        Loss(lambda *_: 0, "classes")
    with pytest.raises(ConfigError, match=r"inputs='ids'\): unknown; there are class_counts, "):
        Loss(lambda *_: 0, "labels", inputs=("ids",))

    @dataclasses.dataclass(frozen=True)
    class Untraced:
        gamma: float = option(2.0, "of a loss")

    with pytest.raises(ConfigError, match="the option gamma of a loss is not traced"):
        Loss(lambda *_: 0, "labels", Untraced)


def test_losses_are_known_without_jax():
    """Their names, options and what they read."""
    code = (
        "import sys; from jaxsft.losses import LOSSES; from jaxsft.config import compose;"
        " print(sorted((n, LOSSES[n].own_scalars) for n in LOSSES)); compose.choices();"
        " assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
