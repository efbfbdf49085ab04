"""Attention against a softmax in numpy, and the blocked path against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.models import attention, blocked
from jaxsft.models.attention import TokenInfo
from jaxsft.models.score_options import ScoreOptions
from tests.conftest import short

x64 = pytest.mark.usefixtures("x64")


def rows(lengths, width):
    """Tokens of rows, each a list of the lengths of its texts; what is left is padding."""
    segments, positions = (
        np.zeros((len(lengths), width), np.int32),
        np.zeros((len(lengths), width), np.int32),
    )
    for row, texts in enumerate(lengths):
        at = 0
        for number, n in enumerate(texts, 1):
            segments[row, at : at + n], positions[row, at : at + n] = number, np.arange(n)
            at += n
    return TokenInfo(segments, positions)


def qkv(batch, queries, keys, heads, kv_heads, n=4, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(batch, s, h, n))
        for s, h in ((queries, heads), (keys, kv_heads), (keys, kv_heads))
    ]


def how(causal, softcap=None, n=4):
    return ScoreOptions(causal, n**-0.5, softcap)


def by_hand(q, k, v, query, key, causal, window=None, softcap=None):
    """One query and head at a time; 0 where a query has no key."""
    out = np.zeros(q.shape)
    group = q.shape[2] // k.shape[2]
    for b, s, h in np.ndindex(q.shape[:3]):
        there = [
            t
            for t in range(k.shape[1])
            if query.segment_ids[b, s] == key.segment_ids[b, t] != 0
            and (not causal or key.positions[b, t] <= query.positions[b, s])
            if window is None or abs(int(key.positions[b, t]) - int(query.positions[b, s])) < window
        ]
        if there:
            score = np.array([q[b, s, h] @ k[b, t, h // group] for t in there]) / np.sqrt(
                q.shape[3]
            )
            score = score if softcap is None else softcap * np.tanh(score / softcap)
            weight = np.exp(score - score.max())
            out[b, s, h] = (weight / weight.sum()) @ v[b, there, h // group]
    return out


@x64
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads, kv_heads", [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("path", ["reference", "blocked"])
def test_softmax_by_hand(path, heads, kv_heads, causal, monkeypatch):  # guards B1, B3
    """Several texts a row, an empty row, padding, grouped queries."""
    monkeypatch.setattr(blocked, "BLOCK", 4)
    where = rows([[5, 3, 2], [11], []], 11)
    q, k, v = qkv(3, 11, 11, heads, kv_heads)
    found = attention.PATHS[path](q, k, v, where, where, how(causal), "fp32")
    np.testing.assert_allclose(
        found, by_hand(q, k, v, where, where, causal), rtol=1e-12, atol=1e-13
    )


@x64
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "texts, width, heads, kv_heads",
    [
        ([[7, 9, 1], [17], [3]], 19, 4, 2),
        ([[13], [5, 8]], 13, 2, 2),
        ([[1]], 1, 1, 1),
        ([[16, 16]], 32, 2, 1),
    ],
)
# guards B1, B5
def test_blocks_change_neither_output_nor_gradient(
    texts, width, heads, kv_heads, causal, monkeypatch
):
    monkeypatch.setattr(blocked, "BLOCK", 8)
    where = rows(texts, width)
    arrays = qkv(len(texts), width, width, heads, kv_heads)
    weight = np.random.default_rng(1).normal(size=arrays[0].shape)

    def run(path):
        out = lambda *x: path(*x, where, where, how(causal), "fp32")
        value = lambda *x: (weight * jnp.sin(out(*x))).sum()
        return jax.jit(lambda x: (out(*x), jax.grad(value, (0, 1, 2))(*x)))(arrays)

    (out, grads), (expected, expected_grads) = (
        run(attention.PATHS["blocked"]),
        run(attention.reference),
    )
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    for found, wanted in zip(grads, expected_grads, strict=True):
        assert (found.dtype == np.float64 and np.abs(wanted).max() > 1e-2) or width == 1
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-13)


@x64
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window, softcap", short([(3, None), (None, 0.7), (4, 1.5)], (4, 1.5)))
def test_windows_and_soft_caps_by_hand(window, softcap, causal, monkeypatch):
    """On both paths, with their gradients; a traced window, as a scan over layers gives it."""
    monkeypatch.setattr(blocked, "BLOCK", 4)
    where = rows([[9, 4], [13]], 13)
    arrays = qkv(2, 13, 13, 4, 2)
    weight = np.random.default_rng(1).normal(size=arrays[0].shape)

    def run(path):
        def out(arrays, window):
            return path(*arrays, where, where, how(causal, softcap), "fp32", window)

        value = lambda arrays, window: (weight * jnp.sin(out(arrays, window))).sum()
        return jax.jit(lambda *args: (out(*args), jax.grad(value)(*args)))(
            arrays, None if window is None else np.int32(window)
        )

    (out, grads), (expected, expected_grads) = (
        run(attention.PATHS["blocked"]),
        run(attention.reference),
    )
    np.testing.assert_allclose(
        expected, by_hand(*arrays, where, where, causal, window, softcap), rtol=1e-12, atol=1e-13
    )
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    for found, wanted in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-13)


@x64
def test_large_scores_do_not_overflow(monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", 4)
    where = rows([[9]], 9)
    q, k, v = qkv(1, 9, 9, 1, 1)
    for path in attention.PATHS.values():
        found = path(q * 1e3, k * 1e3, v, where, where, how(True), "fp32")
        np.testing.assert_allclose(
            found, by_hand(q * 1e3, k * 1e3, v, where, where, True), rtol=1e-9
        )


@x64
@pytest.mark.parametrize("path", ["reference", "blocked"])
def test_fewer_queries_than_keys(path, monkeypatch):
    """As in generation: the last queries alone give what they give among all."""
    monkeypatch.setattr(blocked, "BLOCK", 4)
    where = rows([[10], [7]], 10)
    q, k, v = qkv(2, 10, 10, 4, 2)
    run = attention.PATHS[path]
    last = TokenInfo(*(x[:, 5:7] for x in where[:2]))
    np.testing.assert_allclose(
        run(q[:, 5:7], k, v, last, where, how(True), "fp32"),
        run(q, k, v, where, where, how(True), "fp32")[:, 5:7],
        rtol=1e-12,
    )


def test_bf16_is_near():
    where = rows([[40, 24]], 64)
    arrays = [x.astype(np.float32) for x in qkv(1, 64, 64, 2, 2)]
    for path in attention.PATHS.values():
        found = path(*arrays, where, where, how(True), "bf16")
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, attention.reference(*arrays, where, where, how(True), "fp32"), atol=0.03
        )


def temporaries(path, length):
    """Bytes that the compiled gradient holds beside its arguments and results."""
    where = rows([[length // 2, length // 2]], length)
    shape = jax.ShapeDtypeStruct((1, length, 2, 4), np.float32)
    gradient = jax.grad(
        lambda q, k, v: path(q, k, v, where, where, how(True), "fp32").sum(), (0, 1, 2)
    )
    return (
        jax.jit(gradient).lower(shape, shape, shape).compile().memory_analysis().temp_size_in_bytes
    )


def test_memory_of_blocks_is_linear():
    small, large = (temporaries(attention.PATHS["blocked"], n) for n in (512, 1024))
    assert large < 3 * small
    square = [temporaries(attention.reference, n) for n in (512, 1024)]
    assert square[1] > 3.5 * square[0] and large < square[1] / 4


def test_auto_is_blocked_where_scores_would_be_many():
    assert (
        attention.choose("auto", 512, 512) == "blocked"
        and attention.choose("auto", 512, 511) == attention.choose("auto", 1, 2048) == "reference"
    )
    assert attention.choose("reference", 4096, 4096) == "reference"
