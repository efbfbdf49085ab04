"""Terms beside the loss of a head, by their formulas and in a step: R-Drop, supervised contrast,
unlikelihood.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.errors import ConfigError
from jaxsft.losses.terms import supervised_contrastive, two_passes, unlikelihood
from tests.conftest import bench, make_config

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# --- two passes
# --------------------------------------------------------------------------------------------------
def test_divergence_by_the_formula():
    one, other = RNG.normal(0, 2, (2, 10, 4))
    p, q = softmax(one), softmax(other)
    there, back = (p * np.log(p / q)).sum(-1), (q * np.log(q / p)).sum(-1)
    np.testing.assert_allclose(two_passes.divergence(one, other), (there + back) / 2, rtol=1e-10)


def test_two_passes_differ_in_their_dropout():
    model = {"dropout": 0.4}
    b = bench("classify", 9, model=model, task={"r_drop": 2.0})
    assert {name: float(w) for name, w in b.hyper["terms"].items()} == {
        "cross_entropy": 1.0,
        "r_drop": 2.0,
    }
    _, sums = b.run(1)
    assert float(sums.terms["r_drop"]) > 0
    terms = b.evaluate(*b.apart, b.batches[0], b.hyper)[0][0]
    assert float(terms["r_drop"]) == 0  # nothing is dropped
    _, still = b.run(1, dropout=np.float32(0))
    assert float(still.terms["r_drop"]) == pytest.approx(0, abs=1e-12)
    plain = bench("classify", 9, model={"dropout": 0.4}).run(1, dropout=np.float32(0))[1]
    assert float(still.terms["cross_entropy"]) == pytest.approx(
        float(plain.terms["cross_entropy"]), rel=1e-12
    )
    with pytest.raises(ConfigError, match=r"model\.dropout.*both passes are one"):
        make_config("classify", task={"r_drop": 1.0})


# --- supervised contrast
# --------------------------------------------------------------------------------------------------
def test_supervised_contrast_by_the_formula():
    vectors, labels = RNG.normal(0, 1, (2, 4, 5)), np.array([[0, 1, 0, 2], [1, 0, 3, 0]])
    present = np.array([[True, True, True, True], [True, True, True, False]])
    u = [v / np.linalg.norm(v) for v in vectors.reshape(8, 5)]
    label, there = labels.ravel(), present.ravel()

    def one(i):
        others = [a for a in range(8) if a != i and there[a]]
        same = [a for a in others if label[a] == label[i]]
        if not there[i] or not same:
            return 0.0
        z = sum(np.exp(u[i] @ u[a] / 0.3) for a in others)
        return -sum(np.log(np.exp(u[i] @ u[p] / 0.3) / z) for p in same) / len(same)

    found = supervised_contrastive.values(vectors, labels, present, 0.3)
    np.testing.assert_allclose(found.ravel(), [one(i) for i in range(8)], rtol=1e-10)


def test_supervised_contrast_moves_the_backbone_and_not_the_head():
    task = {"supervised_contrastive": 1.0}
    b = bench("classify", 9, task=task)
    only = {**b.hyper, "terms": {"cross_entropy": 0.0, "supervised_contrastive": 1.0}}
    state, sums = b.run(1, **only)
    assert float(sums.terms["supervised_contrastive"]) > 0
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), state.trainable, b.params)
    assert changed["embed"]["tokens"]["w"] and not any(jax.tree.leaves(changed["head"]))
    _, columns = b.evaluate(*b.apart, b.batches[0], b.hyper)
    assert "loss.supervised_contrastive" not in columns  # no sum over rows
    with pytest.raises(ConfigError, match="its sum over micro-batches is another loss"):
        make_config("classify", task=task, train={"accumulate": 2})
    with pytest.raises(ConfigError, match=r"contrast_temperature=1.0: is read with"):
        make_config("classify", task={"contrast_temperature": 1.0})


# --- unlikelihood
# --------------------------------------------------------------------------------------------------
TARGETS = np.array([[5, 6, 5, 7, 5, 6, 7, 0]])
WEIGHTS = np.array([[0, 1, 1, 1, 1, 1, 1, 0.0]])  # the first is of a prompt, the last padding
SEGMENTS = np.array([[1, 1, 1, 1, 1, 2, 2, 0]])


def candidates_of(i):
    """The trained words before place i of its text, each once, without the one that is right."""
    before = [
        j
        for j in range(i)
        if WEIGHTS[0, j] > 0 and SEGMENTS[0, j] == SEGMENTS[0, i] and WEIGHTS[0, i]
    ]
    return {TARGETS[0, j] for j in before} - {TARGETS[0, i]}


def test_candidates_are_earlier_words_each_once():
    found = np.asarray(unlikelihood.candidates(TARGETS, WEIGHTS, SEGMENTS))[0]
    words = [[TARGETS[0, j] for j in np.flatnonzero(line)] for line in found]
    assert [sorted(line) for line in words] == [sorted(candidates_of(i)) for i in range(8)]
    assert sorted(words[4]) == [6, 7] and words[6] == [6]


def test_unlikelihood_by_the_formula():
    logits = RNG.normal(0, 2, (1, 8, 9))
    p = softmax(logits)[0]
    log_p = np.log(p)[None][:, :, TARGETS[0]]
    found = unlikelihood.values(log_p, unlikelihood.candidates(TARGETS, WEIGHTS, SEGMENTS))
    right = [-sum(np.log(1 - p[i, c]) for c in candidates_of(i)) for i in range(8)]
    np.testing.assert_allclose(found[0], right, rtol=1e-10)


def test_a_certain_repetition_has_a_finite_gradient():
    barred = jnp.ones((1, 2, 2), bool)
    f = lambda x: unlikelihood.values(x, barred).sum()
    value, gradient = jax.value_and_grad(f)(jnp.zeros((1, 2, 2)))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("tied", [True, False])
def test_unlikelihood_in_a_step_is_that_of_whole_logits(tied):
    model = {"tied": tied, "logit_scale": 0.5}
    b = bench("chat", 4, longest=24, model=model, loss={"unlikelihood": 0.5})
    batch, params = b.batches[0], b.params
    found = b.evaluate(*b.apart, batch, b.hyper)[0][0]["unlikelihood"]
    task, model = b.parts.task, b.parts.model
    hidden = task.hidden(model, params, batch, None)
    log_p = jax.nn.log_softmax(model.logits(params, hidden))
    log_p = jnp.take_along_axis(
        log_p, jnp.broadcast_to(batch.targets[:, None, :], log_p.shape[:2] + log_p.shape[1:2]), -1
    )
    barred = unlikelihood.candidates(batch.targets, batch.loss_weight, batch.segment_ids)
    right = (unlikelihood.values(log_p, barred) * batch.loss_weight).sum()
    assert barred.any()
    np.testing.assert_allclose(found, right, rtol=1e-9)
    with pytest.raises(ConfigError, match=r"loss\.unlikelihood=0.5: is read"):
        make_config("classify", loss={"unlikelihood": 0.5})
