"""Losses that know which labels are taken for which, or leave out what they cannot believe."""

import jax
import numpy as np
import pytest

from jaxsft.data import transition_file
from jaxsft.errors import ConfigError, DataError
from jaxsft.losses import get
from jaxsft.rundir import write_json
from tests.conftest import bench, make_config

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(0, 3, (20, 3)), RNG.integers(0, 3, 20)
MATRIX = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.3, 0.4]])  # a line of each true label


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(logits, labels, share=0.0, matrix=MATRIX):
    scalars = {"label_smoothing": share, "transition": matrix}
    return get("forward_correction").values(logits, labels, scalars)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_forward_correction_by_the_formula(share):
    seen = softmax(LOGITS) @ MATRIX
    target = (1 - share) * np.eye(3)[LABELS] + share / 3
    np.testing.assert_allclose(
        forward(LOGITS, LABELS, share), -(target * np.log(seen)).sum(-1), rtol=1e-10
    )


def test_forward_correction_without_noise_is_cross_entropy():
    right = get("cross_entropy").values(LOGITS, LABELS, {"label_smoothing": 0.0})
    np.testing.assert_allclose(forward(LOGITS, LABELS, matrix=np.eye(3)), right, rtol=1e-10)
    extreme = np.array([[1e4, -1e4, 0.0]])
    for label in range(3):
        f = lambda z, label=label: forward(z, np.array([label])).sum()
        value, gradient = jax.value_and_grad(f)(extreme)
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_its_minimum_is_the_true_distribution():
    """Theorem 2: where labels are noisy by T, the best prediction is that of clean labels."""
    clean = np.array([0.6, 0.3, 0.1])
    noisy = clean @ MATRIX
    risk = lambda z: sum(noisy[y] * forward(z[None], np.array([y]))[0] for y in range(3))
    np.testing.assert_allclose(jax.grad(risk)(np.log(clean)), 0, atol=1e-12)
    assert np.abs(jax.grad(risk)(np.log(noisy))).max() > 0.01


def test_the_matrix_comes_from_a_file_in_the_order_of_the_labels(tmp_path):
    path = tmp_path / "transition.json"
    names = ["good", "bad", "fair"]
    write_json(path, {"labels": names, "matrix": MATRIX.tolist()})
    task = {"loss": "forward_correction", "transition": str(path)}
    b = bench("classify", 9, task=task)
    found = b.parts.task.state["transition"]
    order = [names.index(label) for label in b.parts.task.labels]
    np.testing.assert_array_equal(found, MATRIX[np.ix_(order, order)])
    state, _ = b.run(2)
    assert int(state.step) == 2 and not int(state.skipped)
    with pytest.raises(ConfigError, match=r"task\.transition.*how often each label is taken"):
        make_config("classify", task={"loss": "forward_correction"})
    with pytest.raises(ConfigError, match=r"transition=.*: is read with task\.loss=forward_corr"):
        make_config("classify", task={"transition": str(path)})


@pytest.mark.parametrize(
    "content, message",
    [
        ({"labels": ["a", "c"], "matrix": [[1, 0], [0, 1]]}, "its labels are not those"),
        ({"labels": ["a", "b"], "matrix": [[1, 0]]}, "`matrix` is no table of 2 x 2"),
        ({"labels": ["a", "b"], "matrix": [[1, "x"], [0, 1]]}, "`matrix` is no table of 2 x 2"),
        ({"labels": ["a", "b"], "matrix": [[0.5, 0.1], [0, 1]]}, "do not add up to 1"),
    ],
)
def test_a_file_that_is_no_matrix(tmp_path, content, message):
    path = tmp_path / "transition.json"
    write_json(path, content)
    with pytest.raises(DataError, match=message):
        transition_file.read(str(path), ["a", "b"])


def test_small_loss_leaves_out_the_rows_that_are_least_believed():
    each = -np.log(softmax(LOGITS)[np.arange(20), LABELS])
    weights = np.ones(20)
    weights[3] = 0  # no text
    weights[4] = 2.0
    found = lambda step, left_out: np.asarray(
        get("small_loss").values(
            LOGITS,
            LABELS,
            {
                "label_smoothing": 0.0,
                "left_out": left_out,
                "left_out_after": 10,
                "step": step,
                "weights": weights,
            },
        )
    )
    there = weights > 0
    np.testing.assert_allclose(found(0, 0.4)[there], each[there], rtol=1e-10)
    np.testing.assert_allclose(found(np.inf, 0.4)[there], each[there], rtol=1e-10)
    for step, share in ((5, 0.2), (10, 0.4), (99, 0.4)):
        order = [i for i in np.argsort(each) if there[i]]
        kept = order[: int(np.ceil((1 - share) * 19))]
        right = np.zeros(20)
        right[kept] = each[kept] * weights.sum() / weights[kept].sum()
        np.testing.assert_allclose(found(step, 0.4) * there, right, rtol=1e-10)


def test_small_loss_is_refused_where_batches_are_cut():
    with pytest.raises(ConfigError, match=r"train\.accumulate.*all rows of a batch"):
        make_config("classify", task={"loss": "small_loss"}, train={"accumulate": 2})
