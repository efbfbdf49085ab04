"""Pooling by segment and position, and the heads of whole texts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import PairHead, SpanHead, TextHead, VocabHead, attend, pool
from jaxsft.models.layers import Norm

LENGTHS = [[3, 2], [4], []]  # of the texts of each row


def batch(width, left):
    """States, segments and positions of the same texts in rows of some width, padded in front or
    behind.
    """
    rng = np.random.default_rng(0)
    x, segments, positions = (
        rng.normal(size=(3, width, 4)),
        np.zeros((3, width), np.int32),
        np.zeros((3, width), np.int32),
    )
    texts = {}
    for row, lengths in enumerate(LENGTHS):
        at = width - sum(lengths) if left else 0
        for number, n in enumerate(lengths):
            text = texts[row, number] = np.random.default_rng([row, number]).normal(size=(n, 4))
            x[row, at : at + n], segments[row, at : at + n], positions[row, at : at + n] = (
                text,
                number + 1,
                np.arange(n),
            )
            at += n
    return x.astype(np.float32), segments, positions, texts


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


QUERY = np.array([0.5, -1.0, 2.0, 0.3], np.float32)
TAKE = {
    "mean": lambda t: t.mean(0),
    "max": lambda t: t.max(0),
    "first": lambda t: t[0],
    "last": lambda t: t[-1],
    "attention": lambda t: softmax(t @ QUERY / 2) @ t,
}


@pytest.mark.parametrize("how", TAKE)
@pytest.mark.parametrize("width, left", [(5, False), (9, False), (9, True)])
def test_pool(how, width, left):  # guards E11, C2
    """Whatever the padding holds; texts that are not there give zeros."""
    x, segments, positions, texts = batch(width, left)
    found = (
        attend(x, segments, 2, QUERY)
        if how == "attention"
        else pool(x, segments, positions, 2, how)
    )
    assert found.shape == (3, 2, 4)
    for row, number in np.ndindex(3, 2):
        expected = TAKE[how](texts[row, number]) if (row, number) in texts else np.zeros(4)
        np.testing.assert_allclose(found[row, number], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", TAKE)
def test_gradients_of_a_pool_are_finite_and_stay_in_their_text(how):  # guards B2
    x, segments, positions, _ = batch(9, False)
    run = lambda x: (
        attend(x, segments, 2, QUERY)
        if how == "attention"
        else pool(x, segments, positions, 2, how)
    )[0, 0].sum()
    found = np.asarray(jax.grad(run)(x))
    assert (
        np.isfinite(found).all()
        and found[segments == 1].any()
        and not found[1:].any()
        and not found[0][segments[0] != 1].any()
    )


def params_of(head, x):
    params = nn.meta.unbox(head.init(jax.random.key(0), x)["params"])
    return jax.tree.map(
        lambda w: np.random.default_rng(w.size).normal(size=w.shape).astype(np.float32), params
    )


@pytest.mark.parametrize(
    "activation, function",
    [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0)), ("gelu", None)],
)
def test_heads_by_hand(activation, function):
    x, segments, positions, texts = batch(9, False)
    where, pooled = (
        TokenInfo(segments, positions),
        np.stack([texts[0, 0].mean(0), texts[0, 1].mean(0)]).astype(np.float32),
    )
    head = TextHead(4, 5, "fp32")
    p = params_of(head, x)
    assert {k: sorted(v) for k, v in p.items()} == {"out": ["b", "w"]}
    np.testing.assert_allclose(
        head.apply({"params": p}, x, where, 2)[0],
        pooled @ p["out"]["w"] + p["out"]["b"],
        rtol=1e-5,
        atol=1e-5,
    )
    head = TextHead(4, 5, "fp32", form="dense", activation=activation, bias=False)
    p = params_of(head, x)
    assert {k: sorted(v) for k, v in p.items()} == {"dense": ["w"], "out": ["w"]}
    # BERT's, not the tanh approximation
    exact = lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
    hidden = (function or exact)(pooled @ p["dense"]["w"])
    np.testing.assert_allclose(
        head.apply({"params": p}, x, where, 2)[0], hidden @ p["out"]["w"], rtol=1e-5, atol=1e-5
    )
    vocab = VocabHead(4, 6, "fp32")
    p = params_of(vocab, x)
    np.testing.assert_allclose(vocab.apply({"params": p}, x), x @ p["w"], rtol=1e-5, atol=1e-5)


def test_a_head_over_tokens_by_hand():
    """`norm(activation(dense x))`, then the outputs; of a text the same behind its pooling."""
    x, segments, positions, texts = batch(9, False)
    norm = Norm("layer", 1e-5, bias=False, parent=None)
    head = SpanHead(4, "fp32", "normed", "relu", norm)
    p = params_of(head, x)
    assert (
        p.keys() == {"dense", "norm", "out"}
        and p["norm"].keys() == {"scale"}
        and p["dense"].keys() == {"w", "b"}
    )

    def layers(v, p):
        y = np.maximum(v @ p["dense"]["w"] + p["dense"]["b"], 0)
        y = (
            (y - y.mean(-1, keepdims=True))
            / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
            * p["norm"]["scale"]
        )
        return y @ p["out"]["w"] + p["out"]["b"]

    np.testing.assert_allclose(
        head.apply({"params": p}, jnp.asarray(x)), layers(x, p), rtol=1e-4, atol=1e-5
    )
    whole = TextHead(4, 5, "fp32", form="normed", activation="relu", norm=norm)
    p = params_of(whole, x)
    found = whole.apply({"params": p}, x, TokenInfo(segments, positions), 2)[0, 0]
    np.testing.assert_allclose(
        found, layers(texts[0, 0].mean(0).astype(np.float32), p), rtol=1e-4, atol=1e-5
    )


def test_two_vectors_by_hand():
    """(u, v, |u - v|) of neighbours; without outputs the vectors themselves, and nothing to
    learn."""
    x, segments, positions, texts = batch(9, False)
    where, (u, v) = TokenInfo(segments, positions), (texts[0, k].mean(0) for k in (0, 1))
    head = PairHead(4, 3, "fp32")
    p = params_of(head, x)
    expected = np.concatenate([u, v, abs(u - v)]) @ p["out"]["w"] + p["out"]["b"]
    np.testing.assert_allclose(
        head.apply({"params": p}, x, where, 2)[0, 0], expected, rtol=1e-5, atol=1e-5
    )
    bare = PairHead(4, 0, "fp32")
    assert (
        bare.weightless
        and not PairHead(4, 0, "fp32", pool="attention").weightless
        and not head.weightless
    )
    np.testing.assert_allclose(
        bare.apply({"params": {}}, jnp.asarray(x), where, 2)[0], [u, v], rtol=1e-5, atol=1e-6
    )
