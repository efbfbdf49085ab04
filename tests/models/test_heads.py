"""Pooling by segment and position, and the head of classes."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxsft.models.heads import ClassHead, VocabHead, pool

LENGTHS = [[3, 2], [4], []]  # of the texts of each row


def batch(width, left):
    """States, segments and positions of the same texts in rows of some width, padded in front or behind."""
    rng = np.random.default_rng(0)
    x, segments, positions = rng.normal(size=(3, width, 4)), np.zeros((3, width), np.int32), np.zeros((3, width), np.int32)
    texts = {}
    for row, lengths in enumerate(LENGTHS):
        at = width - sum(lengths) if left else 0
        for number, n in enumerate(lengths):
            text = texts[row, number] = np.random.default_rng([row, number]).normal(size=(n, 4))
            x[row, at : at + n], segments[row, at : at + n], positions[row, at : at + n] = text, number + 1, np.arange(n)
            at += n
    return x.astype(np.float32), segments, positions, texts


@pytest.mark.parametrize("how", ["mean", "first", "last"])
@pytest.mark.parametrize("width, left", [(5, False), (9, False), (9, True)])
def test_pool(how, width, left):  # guards E11, C2
    """Whatever the padding holds; texts that are not there give zeros."""
    x, segments, positions, texts = batch(width, left)
    found = np.asarray(pool(x, segments, positions, 2, how))
    assert found.shape == (3, 2, 4)
    take = {"mean": lambda t: t.mean(0), "first": lambda t: t[0], "last": lambda t: t[-1]}[how]
    for row, number in np.ndindex(3, 2):
        expected = take(texts[row, number]) if (row, number) in texts else np.zeros(4)
        np.testing.assert_allclose(found[row, number], expected, rtol=1e-6, atol=1e-7)


def test_heads_by_hand():
    x = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    head = ClassHead(4, 5, "fp32")
    params = nn.meta.unbox(head.init(jax.random.key(0), x)["params"])
    params["bias"] = np.arange(5.0, dtype=np.float32)
    np.testing.assert_allclose(head.apply({"params": params}, x), x @ params["dense"]["w"] + np.arange(5), rtol=1e-5, atol=1e-6)
    vocab = VocabHead(4, 6, "fp32")
    params = nn.meta.unbox(vocab.init(jax.random.key(0), x)["params"])
    np.testing.assert_allclose(vocab.apply({"params": params}, x), x @ params["w"], rtol=1e-5, atol=1e-6)
