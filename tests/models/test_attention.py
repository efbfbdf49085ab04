"""Attention against a softmax in numpy, and the blocked path against the reference."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsft.config.schema import MeshConfig
from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo, backends, blocked, reference, splash
from jaxsft.models.attention.needs import AttentionNeeds
from jaxsft.models.attention.score_options import ScoreOptions
from jaxsft.sharding import mesh as meshes
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
    found = backends.BACKENDS[path].run(q, k, v, where, where, how(causal), "fp32")
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
        run(blocked.run),
        run(reference.run),
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
        run(blocked.run),
        run(reference.run),
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
    for path in (reference.run, blocked.run):
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
    run = backends.BACKENDS[path].run
    last = TokenInfo(*(x[:, 5:7] for x in where[:2]))
    np.testing.assert_allclose(
        run(q[:, 5:7], k, v, last, where, how(True), "fp32"),
        run(q, k, v, where, where, how(True), "fp32")[:, 5:7],
        rtol=1e-12,
    )


def test_bf16_is_near():
    where = rows([[40, 24]], 64)
    arrays = [x.astype(np.float32) for x in qkv(1, 64, 64, 2, 2)]
    for path in (reference.run, blocked.run):
        found = path(*arrays, where, where, how(True), "bf16")
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found, reference.run(*arrays, where, where, how(True), "fp32"), atol=0.03
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
    small, large = (temporaries(blocked.run, n) for n in (512, 1024))
    assert large < 3 * small
    square = [temporaries(reference.run, n) for n in (512, 1024)]
    assert square[1] > 3.5 * square[0] and large < square[1] / 4


def asked(**changes):
    """What a causal model with grouped queries asks for in training."""
    own = {"queries": 1024, "keys": 1024, "heads": 4, "kv_heads": 2, "head_dim": 8, "own": True}
    how_much = {"how": how(True), "precision": "bf16", "static_window": None, "has_window": False}
    return AttentionNeeds(**own | how_much | changes)


def test_auto_is_blocked_where_scores_would_be_many():
    few = [{"queries": 512, "keys": 511}, {"queries": 1, "keys": 2048}]
    for platform in ("cpu", "gpu", "tpu"):
        for sizes in few:
            assert backends.choose("auto", asked(**sizes), platform) == "reference"
    assert backends.choose("auto", asked(queries=512, keys=512), "cpu") == "blocked"
    assert backends.choose("auto", asked(), "gpu") == "blocked"
    assert backends.choose("reference", asked(queries=4096, keys=4096), "tpu") == "reference"


def test_auto_on_tpu_is_splash_unless_it_refuses():
    refused = [
        {"own": False},
        {"queries": 1000, "keys": 1000},
        {"has_window": True},
        {"precision": "fp32"},
        {"context": 16},  # 64 tokens a device
    ]
    assert backends.choose("auto", asked(), "tpu") == "splash"
    assert backends.choose("auto", asked(context=8), "tpu") == "splash"
    assert backends.choose("auto", asked(has_window=True, static_window=9), "tpu") == "splash"
    for changes in refused:
        assert backends.choose("auto", asked(**changes), "tpu") == "blocked"
        if changes == {"own": False}:  # decoding after a training with it
            assert backends.choose("splash", asked(**changes), "tpu") == "blocked"
            continue
        with pytest.raises(ConfigError, match=r"model\.attention=splash: "):
            backends.choose("splash", asked(**changes), "tpu")
    with pytest.raises(ConfigError, match="the platform cpu"):
        backends.choose("splash", asked(), "cpu")


@pytest.mark.parametrize(
    "causal, window, softcap",
    [
        (True, None, None),
        *(
            pytest.param(causal, *rest, marks=pytest.mark.slow)
            for causal, *rest in ((False, None, None), (True, 40, None), (False, 40, None))
        ),
        *(pytest.param(causal, None, 2.0, marks=pytest.mark.slow) for causal in (True, False)),
    ],
)
def test_splash_equals_the_reference_on_packed_rows(causal, window, softcap):
    where = rows([[70, 120, 50], [256]], 256)
    q, k, v = (jnp.asarray(x, jnp.float32) for x in qkv(2, 256, 256, 4, 2, n=16))
    g = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.float32)

    def run(path):
        f = lambda q, k, v: path(q, k, v, where, where, how(causal, softcap, 16), "fp32", window)
        return jax.value_and_grad(lambda *x: (f(*x) * g).sum(), (0, 1, 2))(q, k, v)

    # the kernel multiplies in bfloat16 passes on a TPU, in float32 when it is interpreted
    (value, gradient) = run(functools.partial(splash.run, interpret=True))
    (wanted, wanted_gradient) = run(reference.run)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for found, right in zip(gradient, wanted_gradient, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)


def in_layers(path, length, depth=2):
    """Bytes that a gradient through a scan over layers holds beside its arguments and results."""
    where = rows([[length // 2, length // 2]], length)
    shape = jax.ShapeDtypeStruct((1, length, 2, 4), np.float32)

    def loss(x):
        layer = lambda x, _: (x + path(x, x, x, where, where, how(True), "fp32"), None)
        return jax.lax.scan(layer, x, None, length=depth)[0].sum()

    return jax.jit(jax.grad(loss)).lower(shape).compile().memory_analysis().temp_size_in_bytes


def test_memory_of_blocks_is_linear_in_a_scan_over_layers():
    # The gradient of a scan computes what depends on no layer before it: the masks of all blocks.
    sizes = [in_layers(blocked.run, n) for n in (512, 1024, 2048)]
    assert sizes[1] < 2.5 * sizes[0] and sizes[2] < 2.5 * sizes[1], sizes


def test_each_device_computes_its_own_rows_and_heads():
    where = rows([[700, 300], [1000], [500, 400], [600]], 1024)
    where = TokenInfo(*(jnp.asarray(x) for x in where[:2]))
    q, k, v = (jnp.asarray(x, jnp.float32) for x in qkv(4, 1024, 1024, 4, 2, n=8))
    mesh = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    wish = asked(precision="fp32", how=how(True, n=8))
    path = backends.attend("blocked", wish, mesh)

    def gradient(path):
        f = lambda q, k, v: (path(q, k, v, where, where, how(True, n=8), "fp32") ** 2).sum()
        return jax.grad(f, (0, 1, 2))

    place = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, "tensor"))
    program = jax.jit(gradient(path), out_shardings=place).lower(
        *(jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for x in (q, k, v))
    )
    program = program.compile()
    assert not re.search(r"all-gather|all-reduce|all-to-all", program.as_text())
    found = program(*(jax.device_put(x, place) for x in (q, k, v)))
    for one, right in zip(found, jax.jit(gradient(reference.run))(q, k, v), strict=True):
        np.testing.assert_allclose(one, right, atol=1e-4)
