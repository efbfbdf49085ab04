"""The pieces of a block against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import linen as nn

from jaxsft.models.activations import ACTIVATIONS
from jaxsft.models.dropout import Dropout, apply_dropout, neftune
from jaxsft.models.initialisers import fan_in_normal
from jaxsft.models.layers import MLP, Linear, Norm
from jaxsft.products import contract

x64 = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)


@x64
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm(kind):
    x = RNG.normal(2.0, 3.0, (2, 3, 8))
    params = {"scale": RNG.normal(size=8), "bias": RNG.normal(size=8)}
    if kind == "rms":
        expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"]
        del params["bias"]
    else:
        expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + 1e-6
        ) * params["scale"] + params["bias"]
    assert set(nn.meta.unbox(Norm(kind).init(jax.random.key(0), x)["params"])) == set(params)
    np.testing.assert_allclose(Norm(kind).apply({"params": params}, x), expected, rtol=1e-12)
    assert np.isfinite(Norm(kind).apply({"params": params}, np.zeros((1, 8)))).all()


def test_norm_of_bfloat16_is_computed_in_float32():
    x = jnp.asarray(RNG.normal(size=(4, 64)), jnp.bfloat16)
    found = Norm("rms").apply({"params": {"scale": jnp.ones(64)}}, x)
    assert found.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), wide / np.sqrt((wide**2).mean(-1, keepdims=True)), rtol=2**-8
    )


def test_the_gradient_of_a_transposed_matrix_in_bfloat16_runs_on_any_cpu():
    """That of a tied head: XLA folded the transpose into a product that only CPUs with AMX have."""
    x, w = (
        jnp.asarray(RNG.normal(size=(2, 8, 16)), jnp.float32),
        jnp.asarray(RNG.normal(size=(24, 16)), jnp.float32),
    )
    gradient = lambda precision: jax.jit(
        jax.grad(lambda w: (contract("bsd,dv->bsv", x, w.T, precision) ** 2).sum())
    )(w)
    np.testing.assert_allclose(gradient("bf16"), gradient("fp32"), rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    "equation, x_shape, w_shape",
    [
        ("bsd,df->bsf", (2, 5, 32), (32, 7)),
        ("bshn,hnd->bsd", (2, 5, 4, 8), (4, 8, 6)),
        ("bkgsn,bktn->bkgst", (1, 2, 2, 3, 16), (1, 2, 4, 16)),
    ],
)
def test_products_in_bfloat16(equation, x_shape, w_shape):  # guards A12, H6
    """Output and both gradients are float32, and those of fp32 within the rounding of bfloat16
    (2^-8 of the sum of magnitudes).
    """
    x, w = (RNG.normal(size=s).astype(np.float32) for s in (x_shape, w_shape))
    g = RNG.normal(size=jnp.einsum(equation, x, w).shape).astype(np.float32)
    results = {}
    for precision in ("fp32", "bf16"):
        out, pull = jax.vjp(
            lambda x, w, precision=precision: contract(equation, x, w, precision), x, w
        )
        results[precision] = (out, *pull(g))
    np.testing.assert_allclose(results["fp32"][0], np.einsum(equation, x, w), rtol=1e-5, atol=1e-5)
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    sums = [
        np.einsum(e, abs(a), abs(b))
        for e, a, b in (
            (equation, x, w),
            (f"{out},{right}->{left}", g, w),
            (f"{left},{out}->{right}", x, g),
        )
    ]
    for found, expected, size in zip(results["bf16"], results["fp32"], sums, strict=True):
        assert found.dtype == expected.dtype == np.float32
        error = np.abs(found - expected) / size
        assert 0 < error.max() < 2**-7
    # float16 ends at 65504
    wide, pull = jax.vjp(lambda x, w: contract(equation, x, w, "bf16"), x * 1e6, w)
    assert np.isfinite(wide).all() and all(np.isfinite(d).all() for d in pull(g * 1e6))


@x64
def test_fp32_keeps_float64():
    x, w = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5))
    found = contract("bd,df->bf", x, w, "fp32")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, x @ w, rtol=1e-14)


@x64
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(activation, gated):
    x = RNG.normal(size=(2, 3, 4))
    module = MLP(6, gated, activation, "fp32", 1.0)
    params = jax.tree.map(
        lambda p: p.astype(np.float64), nn.meta.unbox(module.init(jax.random.key(0), x)["params"])
    )
    act = {
        "silu": lambda y: y / (1 + np.exp(-y)),
        "gelu": lambda y: 0.5 * y * (1 + scipy.special.erf(y / np.sqrt(2))),
        "gelu_tanh": lambda y: 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))),
        "relu": lambda y: np.maximum(y, 0),
        "tanh": np.tanh,
        "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
        "relu2": lambda y: np.maximum(y, 0) ** 2,
        "relu6": lambda y: np.clip(y, 0, 6),
        "leaky_relu": lambda y: np.where(y < 0, 0.01 * y, y),
        "mish": lambda y: y * np.tanh(np.log1p(np.exp(y))),
        "hardswish": lambda y: y * np.clip(y + 3, 0, 6) / 6,
        "quick_gelu": lambda y: y / (1 + np.exp(-1.702 * y)),
        "gelu_10": lambda y: np.clip(0.5 * y * (1 + scipy.special.erf(y / np.sqrt(2))), -10, 10),
        "laplace": (
            lambda y: 0.5 * (1 + scipy.special.erf((y - 0.707107) / (0.282095 * np.sqrt(2))))
        ),
        "sqrtsoftplus": lambda y: np.sqrt(np.log1p(np.exp(y))),
        "linear": lambda y: y,
    }[activation]
    up = x @ params["up"]["w"]
    hidden = act(x @ params["gate"]["w"]) * up if gated else act(up)
    assert ("gate" in params) == gated
    np.testing.assert_allclose(
        module.apply({"params": params}, x), hidden @ params["down"]["w"], rtol=1e-10, atol=1e-12
    )


def test_initial_weights_have_the_deviation_of_their_fan_in():
    w = np.asarray(fan_in_normal(2, 0.5)(jax.random.key(0), (8, 16, 512), np.float32))
    assert (
        w.std() == pytest.approx(0.5 / np.sqrt(8 * 16), rel=0.01)
        and abs(w).max() <= 2 * 0.5 / np.sqrt(128) / 0.8796 + 1e-6
    )
    y = Linear("bsd,df->bsf", (256, 512), ("embed", "mlp"), "fp32").init_with_output(
        jax.random.key(1), jax.random.normal(jax.random.key(2), (1, 64, 256))
    )[0]
    assert np.asarray(y).std() == pytest.approx(1, rel=0.03)


def test_dropout():
    """The rate, the mean, 0 and nothing; a mask belongs to a row's key and to its site."""
    keys, x = jax.random.split(jax.random.key(0), 4), jnp.ones((4, 100, 50))
    y = np.asarray(apply_dropout(x, Dropout(jnp.float32(0.3), keys), 0))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.01) and y.mean() == pytest.approx(
        1, abs=0.02
    )
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-4)
    np.testing.assert_array_equal(apply_dropout(x, Dropout(jnp.float32(0), keys), 0), x)
    assert apply_dropout(x, None, 0) is x
    np.testing.assert_array_equal(
        apply_dropout(x[1:3], Dropout(jnp.float32(0.3), keys[1:3]), 0), y[1:3]
    )
    assert (y[0] != y[1]).any() and (
        np.asarray(apply_dropout(x, Dropout(jnp.float32(0.3), keys), 1)) != y
    ).any()


@x64
def test_neftune_is_as_strong_as_the_paper_says():
    """Uniform on [-1, 1] alpha / sqrt(length x D), by the length of each text; a row's noise is its
    own; without training noise, the identity.
    """
    segments = np.array([[1] * 48 + [2] * 16, [1] * 64])
    x, keys = np.zeros((2, 64, 256)), jax.random.split(jax.random.key(0), 2)
    noise = Dropout(jnp.float32(0.3), keys, neftune=jnp.float32(5))
    y = np.asarray(neftune(x, noise, segments))
    for part, length in ((y[0, :48], 48), (y[0, 48:], 16), (y[1], 64)):
        high = 5 / np.sqrt(length * 256)
        assert (
            0.99 * high < np.abs(part).max() <= high
            and part.std() == pytest.approx(high / np.sqrt(3), rel=0.03)
            and abs(part.mean()) < 0.02 * high
        )
    np.testing.assert_array_equal(
        neftune(x[1:], Dropout(jnp.float32(0.3), keys[1:], neftune=jnp.float32(5)), segments[1:]),
        y[1:],
    )
    assert (
        neftune(x, None, segments) is x
        and neftune(x, Dropout(jnp.float32(0.3), keys), segments) is x
    )


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norms_of_bf16_are_computed_in_float32(kind):
    """Only what goes in and what comes out is rounded."""
    x = jax.random.normal(jax.random.key(0), (4, 64), jnp.bfloat16) + 3
    norm = Norm(kind)
    params = nn.meta.unbox(norm.init(jax.random.key(1), x))
    wide = norm.apply(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(norm.apply(params, x), wide.astype(jnp.bfloat16))
