"""Weights in few bits, against transcriptions of their formulas in float64."""

import functools
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft import quantised
from jaxsft.products import contract

SHAPE = (2, 24, 3, 8)  # layers, inputs, outputs


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    return rng.normal(size=SHAPE).astype(np.float32) * rng.uniform(0.1, 3, (2, 24, 3, 1))


def rows_of(layer):
    """[outputs, inputs], flattened."""
    return np.asarray(layer, np.float32).astype(np.float64).reshape(24, 24).T.reshape(-1)


def test_values_of_nf4_are_quantiles_of_the_normal_distribution():
    """Appendix E of the paper: 8 quantiles above zero, 7 below, zero, over the largest."""
    inverse, offset = NormalDist().inv_cdf, 0.9677083
    above = [inverse(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-inverse(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    values = np.sort([*below, 0.0, *above]) / max(above)
    np.testing.assert_allclose(quantised.NF4, values, atol=2e-7)


def nf4(flat):
    """The paper's section 3, with the scales of blocks quantised again."""
    blocks = np.pad(flat, (0, -flat.size % 64)).reshape(-1, 64)
    largest = np.abs(blocks).max(1)
    values = quantised.NF4.astype(np.float64)
    codes = np.abs(blocks[..., None] / largest[:, None, None] - values).argmin(-1)
    mean = float(jnp.bfloat16(largest.mean()))
    outer = np.abs(largest - mean).max()  # fewer than 256 of them
    dynamic = quantised.dynamic_values().astype(np.float64)
    of_scales = np.abs(((largest - mean) / outer)[:, None] - dynamic).argmin(-1)
    scales = dynamic[of_scales] * outer + mean
    return codes, (values[codes] * scales[:, None]).reshape(-1)[: flat.size], blocks, largest


def absmax(flat, size, most, dtype):
    blocks = flat.reshape(-1, size)
    largest = np.abs(blocks).max(1)
    scale = (largest / most).astype(dtype).astype(np.float64)[:, None]
    return np.clip(np.round(blocks / scale), -most, most) * scale


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_weights_in_few_bits_are_those_of_the_formulas(weights, kind):
    make = lambda w: (held := quantised.quantise(w, kind, 1, stacked=True), held.dense())
    held, found = jax.jit(make)(weights.astype(np.float32))
    assert held.shape == SHAPE and held.size == weights.size
    for layer in range(2):
        flat = rows_of(weights[layer])
        if kind == "nf4":
            codes, wanted, blocks, largest = nf4(flat)
            high, low = np.asarray(held.codes[layer]) >> 4, np.asarray(held.codes[layer]) & 15
            np.testing.assert_array_equal(np.stack([high, low], -1).reshape(codes.shape), codes)
            # no number is further from its own than half of the widest gap between two values
            with_own = np.abs(quantised.NF4[codes] * largest[:, None] - blocks)
            assert (with_own <= 0.1520 * largest[:, None]).all()
        elif kind == "int8":
            wanted = absmax(flat, 24, 127, np.float32).reshape(-1)
        else:
            wanted = absmax(flat, 32, 7, np.float16).reshape(-1)
        np.testing.assert_allclose(rows_of(found[layer]), wanted, rtol=1e-5, atol=1e-6)


def test_bits_of_a_weight_are_those_that_are_documented():
    like = jax.ShapeDtypeStruct((768, 3072), jnp.float32)
    for kind, bits in (("int8", 8 + 32 / 768), ("int4", 4 + 16 / 32), ("nf4", 4.127)):
        held = jax.eval_shape(lambda w, k=kind: quantised.quantise(w, k, 1, False), like)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held))
        assert 8 * size / like.size == pytest.approx(bits, abs=1e-3)


@functools.cache
def several(kind):
    """What one program makes of a matrix with zeros, and of two embeddings and their rows."""

    def make(w, *tables):
        out = [quantised.quantise(w, kind, 1, False).dense()]
        for table in tables:
            held = quantised.quantise(table, kind, 0, False)
            out += [held.rows(jnp.array([[8, 0], [3, 3]])), held.dense()]
        return out

    w = np.zeros((64, 2), np.float32)
    w[:, 1] = np.linspace(-1, 1, 64)
    rng = np.random.default_rng(1)
    tables = [rng.normal(size=(9, n)).astype(np.float32) for n in (64, 40)]
    return [np.asarray(x) for x in jax.jit(make)(w, *tables)]


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_zeros_and_the_ends_of_the_range_are_exact(kind):
    found = several(kind)[0]
    np.testing.assert_array_equal(found[:, 0], 0)
    np.testing.assert_allclose(found[[0, 63], 1], [-1, 1], rtol=1e-3)


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_rows_of_an_embedding_are_those_of_the_whole(kind):
    """Of whole blocks, and of rows that share a block."""
    for rows, whole in zip(several(kind)[1::2], several(kind)[2::2], strict=True):
        np.testing.assert_array_equal(rows, whole[np.array([[8, 0], [3, 3]])])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_product_keeps_the_codes_for_its_backward_pass(weights, precision):
    """Value and gradient are those of the widened weight; no residual is as large as that."""
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 24)), jnp.float32)
    held = jax.jit(lambda w: quantised.quantise(w, "nf4", 1, False))(weights[0].astype(np.float32))
    run = jax.jit(lambda w: jax.vjp(lambda x: contract("bsd,dhn->bshn", x, w, precision), x))
    (y, back), (wanted, wanted_back) = run(held), run(jax.jit(quantised.widen)(held))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    given, wanted = back(y)[0], wanted_back(y)[0]
    np.testing.assert_allclose(given, wanted, rtol=1e-2 if precision == "bf16" else 1e-5, atol=1e-5)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(back) if hasattr(leaf, "nbytes")]
    assert sum(sizes) < held.size  # bytes: a quarter of the weight in float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_gradient_of_narrow_states_is_narrow(weights, precision):
    """As `model.activations=bf16` has them."""
    w = quantised.quantise(jnp.asarray(weights[0]), "nf4", 1, False)
    x = jnp.ones((1, 2, 24), jnp.bfloat16)
    found = jax.grad(lambda x: contract("bsd,dhn->bshn", x, w, precision).sum())(x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(
        found.astype(jnp.float32)[0, 0], w.dense().sum((1, 2)), rtol=0.02, atol=0.1
    )
