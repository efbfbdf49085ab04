"""Losses that know how often each label is, by their formulas, one label at a time; and their
counts on the way from the training rows to the compiled step.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.losses import get
from jaxsft.tasks.classify import Classify
from tests.conftest import bench, make_config

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(0, 3, (20, 4)), RNG.integers(0, 4, 20)
COUNTS = np.array([50, 20, 5, 1])


def log_softmax(z):
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def effective(beta):
    return np.array([(1 - beta) / (1 - beta**n) for n in COUNTS])


def scaled(weights):
    """1 in the mean over the training rows."""
    return weights * COUNTS.sum() / (COUNTS * weights).sum()


def ldam(z, y, largest_margin, reweight_after, reweight_beta, step):
    z = z.copy()
    z[y] -= largest_margin * COUNTS.min() ** 0.25 / COUNTS[y] ** 0.25
    late = scaled(effective(reweight_beta))[y] if step >= reweight_after else 1
    return -late * log_softmax(z)[y]


LDAM = {"largest_margin": 2.0, "reweight_after": 10, "reweight_beta": 0.99}
FORMULAS = {
    "inverse": (
        "inverse_frequency",
        {"inverse_power": 1.0},
        lambda z, y, inverse_power: -COUNTS.sum() / (4 * COUNTS[y]) * log_softmax(z)[y],
    ),
    "root": (
        "inverse_frequency",
        {"inverse_power": 0.5},
        lambda z, y, inverse_power: -scaled(COUNTS**-0.5)[y] * log_softmax(z)[y],
    ),
    "effective": (
        "effective_number",
        {"effective_beta": 0.9},
        lambda z, y, effective_beta: -scaled(effective(0.9))[y] * log_softmax(z)[y],
    ),
    "adjusted": (
        "logit_adjusted",
        {"adjustment": 1.5},
        lambda z, y, adjustment: -log_softmax(z + adjustment * np.log(COUNTS / COUNTS.sum()))[y],
    ),
    "ldam, early": ("ldam", {**LDAM, "step": 9}, ldam),
    "ldam, late": ("ldam", {**LDAM, "step": 10}, ldam),
}


def values(name, logits, labels, share=0.0, **given):
    given = {"label_smoothing": share, "class_counts": COUNTS, "step": np.inf} | given
    return get(name).values(logits, labels, given)


@pytest.mark.parametrize("case", FORMULAS)
def test_by_the_formula(case):
    name, given, formula = FORMULAS[case]
    right = [formula(z, y, **given) for z, y in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(values(name, LOGITS, LABELS, **given), right, rtol=1e-10)


@pytest.mark.parametrize(
    "name, given",
    [
        ("inverse_frequency", {"inverse_power": 0.0}),
        ("effective_number", {"effective_beta": 0.0}),
        ("logit_adjusted", {"adjustment": 0.0}),
        ("ldam", {"largest_margin": 0.0, "reweight_after": 5, "reweight_beta": 0.9, "step": 4}),
    ],
)
def test_each_has_cross_entropy_as_its_limit(name, given):
    right = values("cross_entropy", LOGITS, LABELS, 0.1)
    np.testing.assert_allclose(values(name, LOGITS, LABELS, 0.1, **given), right, rtol=1e-12)


def test_a_label_without_a_row_has_finite_values():
    for name, given, _ in FORMULAS.values():
        given = given | {"class_counts": np.array([7, 3, 0, 2])}
        f = lambda z, name=name, given=given: values(name, z, LABELS, **given).sum()
        value, gradient = jax.value_and_grad(f)(LOGITS)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_the_counts_are_those_of_the_training_rows():
    b = bench("classify", 10, task={"loss": "inverse_frequency"})
    given = [record.label for record in b.batches.split.records]
    assert b.parts.task.state["counts"] == [given.count(label) for label in b.parts.task.labels]
    assert b.parts.task.numbers_in_program and "counts" not in b.parts.task.digest["state"]
    assert "counts" not in bench("classify", 10).parts.task.state


def test_a_model_without_counts_says_so():
    task = bench("classify", 10, task={"loss": "ldam"}).parts.task
    other = Classify(task.config, task.tokenizer, {"labels": task.labels})
    with pytest.raises(
        ConfigError, match=r"task\.loss=ldam: this model does not know how many training"
    ):
        assert other.head_loss


def test_the_step_is_that_of_the_training():
    """A weight that begins at step 2 changes the third step, and not those before it."""
    task = {"loss": "ldam", "largest_margin": 0.0, "reweight_beta": 0.9}
    late, never = (
        bench("classify", 10, task=task | {"reweight_after": after}, train={"batch_size": 3})
        for after in ("2steps", "100steps")
    )
    weights = lambda b, steps: jax.tree.leaves(b.run(steps)[0].trainable)
    same = lambda steps: all(
        np.array_equal(x, y)
        for x, y in zip(weights(late, steps), weights(never, steps), strict=True)
    )
    assert same(2) and not same(3)


def test_after_training_the_shares_are_taken_from_the_logits_that_predict():
    """The loss stays that of the logits as they are, and so do the weights."""
    plain, corrected = (
        bench("classify", 10, task={"prior_correction": factor}) for factor in (0.0, 1.5)
    )
    counts = np.array(corrected.parts.task.state["counts"])
    found = [b.evaluate(*b.apart, b.batches[0], b.hyper) for b in (plain, corrected)]
    (terms, columns), (other_terms, other_columns) = ((one[0][0], one[1]) for one in found)
    assert float(terms["cross_entropy"]) == float(other_terms["cross_entropy"])
    right = np.asarray(columns["logits"]) - 1.5 * np.log(counts / counts.sum())
    np.testing.assert_allclose(other_columns["logits"], right, atol=1e-6)


def test_it_is_for_labels_alone():
    with pytest.raises(ConfigError, match="expected one of mse, "):
        make_config("regress", task={"loss": "ldam"})
    with pytest.raises(ConfigError, match=r"adjustment=2.0: is read with task\.loss=logit_adj"):
        make_config("classify", task={"adjustment": 2.0})
    assert dataclasses.fields(make_config("pair", task={"loss": "ldam"}).task)
