"""Losses that noise in labels moves less than cross-entropy, by their formulas, one label at a
time.
"""

import jax
import numpy as np
import pytest

from jaxsft.losses import get
from tests.conftest import bench

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(0, 3, (20, 4)), RNG.integers(0, 4, 20)
EXTREME = np.array([[1e4, -1e4, 0.0], [0.0, 1e4, -1e4]])


def probabilities(z):
    e = np.exp(z - z.max())
    return e / e.sum()


FORMULAS = {
    "generalised_cross_entropy": (
        {"gce_q": 0.7},
        lambda p, y, gce_q: (1 - p[y] ** gce_q) / gce_q,
    ),
    "symmetric_cross_entropy": (
        {"sce_alpha": 0.1, "sce_beta": 2.0, "sce_log_zero": -4.0},
        lambda p, y, sce_alpha, sce_beta, sce_log_zero: (
            -sce_alpha * np.log(p[y])
            - sce_beta * sum(q * (sce_log_zero if c != y else 0.0) for c, q in enumerate(p))
        ),
    ),
    "soft_bootstrap": (
        {"soft_beta": 0.9},
        lambda p, y, soft_beta: (
            -sum((soft_beta * (c == y) + (1 - soft_beta) * q) * np.log(q) for c, q in enumerate(p))
        ),
    ),
    "hard_bootstrap": (
        {"hard_beta": 0.8},
        lambda p, y, hard_beta: -hard_beta * np.log(p[y]) - (1 - hard_beta) * np.log(p.max()),
    ),
    "poly": (
        {"poly_epsilon": 2.0},
        lambda p, y, poly_epsilon: -np.log(p[y]) + poly_epsilon * (1 - p[y]),
    ),
}


def values(name, logits, labels, share=0.0, **scalars):
    return get(name).values(logits, labels, {"label_smoothing": share} | scalars)


@pytest.mark.parametrize("name", FORMULAS)
def test_by_the_formula(name):
    scalars, formula = FORMULAS[name]
    right = [formula(probabilities(z), y, **scalars) for z, y in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(values(name, LOGITS, LABELS, **scalars), right, rtol=1e-10)


@pytest.mark.parametrize(
    "name, scalars",
    [
        ("generalised_cross_entropy", {"gce_q": 1e-9}),
        ("symmetric_cross_entropy", {"sce_alpha": 1.0, "sce_beta": 0.0, "sce_log_zero": -4.0}),
        ("soft_bootstrap", {"soft_beta": 1.0}),
        ("hard_bootstrap", {"hard_beta": 1.0}),
        ("poly", {"poly_epsilon": 0.0}),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_each_has_cross_entropy_as_its_limit(name, scalars, share):
    found = values(name, LOGITS, LABELS, share, **scalars)
    right = values("cross_entropy", LOGITS, LABELS, share)
    np.testing.assert_allclose(found, right, rtol=1e-6)


def test_a_q_of_one_is_half_the_absolute_error():
    found = values("generalised_cross_entropy", LOGITS, LABELS, gce_q=1.0)
    p = np.array([probabilities(z) for z in LOGITS])
    np.testing.assert_allclose(found, np.abs(np.eye(4)[LABELS] - p).sum(1) / 2, rtol=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_certain_predictions_have_finite_gradients(name):
    scalars = FORMULAS[name][0]
    for labels in (np.array([0, 1]), np.array([2, 2])):
        f = lambda z, labels=labels: values(name, z, labels, **scalars).sum()
        value, gradient = jax.value_and_grad(f)(EXTREME)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_wrong_label_pulls_less_the_surer_the_model_is():
    """The reason for all of them: the gradient by the logit of a label that the model excludes."""
    z = np.array([[6.0, 0.0, 0.0]])
    pull = lambda name, scalars: abs(
        jax.grad(lambda z: values(name, z, np.array([1]), **scalars).sum())(z)[0, 1]
    )
    plain = pull("cross_entropy", {})
    for name in ("generalised_cross_entropy", "soft_bootstrap", "hard_bootstrap"):
        assert pull(name, FORMULAS[name][0]) < plain


def test_each_is_an_option_of_tasks_with_a_label():
    for name, (scalars, _) in FORMULAS.items():
        b = bench("classify", 8, task={"loss": name, **scalars})
        assert list(b.hyper["terms"]) == [name]
        assert {one: float(b.hyper[one]) for one in scalars} == pytest.approx(scalars)
