"""Cross-entropy over a vocabulary: by hand, and in chunks."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxsft import losses
from jaxsft.config.schema import MeshConfig
from jaxsft.losses.terms import smoothing, tokens
from jaxsft.sharding import mesh as meshes

RNG = np.random.default_rng(0)
H, W, T = RNG.normal(size=(2, 7, 4)), RNG.normal(size=(4, 9)), RNG.integers(0, 9, (2, 7))
x64 = pytest.mark.usefixtures("x64")


@x64
def test_by_hand():  # guards C15, A11
    """Three words with probabilities 1/2, 1/4 and 1/4 (Z = 8), and with equal ones: the target
    stands at its own place, nothing is shifted here.
    """
    w = np.log([[4.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    stats = tokens.token_stats(
        np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), w, np.array([[0, 2, 1]]), precision="fp32"
    )
    np.testing.assert_allclose(stats.nll, [[np.log(2), np.log(4), np.log(3)]], rtol=1e-12)
    np.testing.assert_allclose(stats.log_z, [[np.log(8), np.log(8), np.log(3)]], rtol=1e-12)
    np.testing.assert_allclose(
        stats.uniform, [[5 / 3 * np.log(2), 5 / 3 * np.log(2), np.log(3)]], rtol=1e-12
    )
    assert stats.correct.tolist() == [[True, False, False]]
    np.testing.assert_allclose(
        tokens.z_loss(stats), [[np.log(8) ** 2, np.log(8) ** 2, np.log(3) ** 2]], rtol=1e-12
    )
    np.testing.assert_allclose(
        smoothing.expected(stats.nll, stats.uniform, {"label_smoothing": 0.1})[0, 1],
        0.9 * np.log(4) + 0.1 * 5 / 3 * np.log(2),
        rtol=1e-12,
    )


@x64
def test_it_is_the_loss_of_the_registry():
    """One cross-entropy for tokens and for classes, smoothed or not."""
    stats = tokens.token_stats(H, W, T, precision="fp32")
    for epsilon in (0.0, 0.2):
        scalars = {"label_smoothing": epsilon}
        np.testing.assert_allclose(
            smoothing.expected(stats.nll, stats.uniform, scalars),
            losses.get("cross_entropy").values(H @ W, T, scalars),
            rtol=1e-12,
        )


@x64
@pytest.mark.parametrize("chunk", [1, 3, 7, 13, 14, 100])
def test_chunks_change_nothing(chunk):  # guards A12, G5
    """Values and both gradients of every part, for sizes that divide the tokens and that do not;
    and of what a model does to its logits.
    """
    weights, bias = RNG.normal(size=(3, 2, 7)), RNG.normal(size=9)

    def run(chunk):
        def value(h, w):
            stats = tokens.token_stats(
                h,
                w,
                T,
                precision="fp32",
                chunk=chunk,
                bias=bias,
                cap=2.0,
            )
            return (
                weights[0] * stats.nll
                + weights[1] * tokens.z_loss(stats)
                + weights[2] * stats.uniform
            ).sum(), stats

        return jax.jit(jax.grad(value, (0, 1), has_aux=True))(H, W)

    (grads, stats), (expected_grads, expected) = run(chunk), run("none")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13),
        (grads, stats[:3]),
        (expected_grads, expected[:3]),
    )
    np.testing.assert_array_equal(stats.correct, expected.correct)


@x64
@pytest.mark.parametrize(
    "shape", [(2, 2, 1, 2), (1, 8, 1, 1), (1, 1, 1, 8), (2, 1, 1, 1), (1, 2, 2, 2)]
)
@pytest.mark.parametrize("chunk", ["none", 3])
def test_a_mesh_changes_nothing(shape, chunk):
    """Rows over two axes, the vocabulary over the third, or whole where it does not divide it."""
    rng = np.random.default_rng(1)
    vocab = 16 if shape[3] != 2 else 18
    h, w, bias = (rng.normal(size=s) for s in ((8, 6, 4), (4, vocab), (vocab,)))
    t, weights = rng.integers(0, vocab, (8, 6)), rng.normal(size=(3, 8, 6))

    def run(mesh):
        def value(h, w, bias):
            how = {"precision": "fp32", "chunk": chunk, "cap": 3.0, "mesh": mesh}
            stats = tokens.token_stats(h, w, t, bias=bias, **how)
            of = (stats.nll, tokens.z_loss(stats), stats.uniform)
            return sum((a * b).sum() for a, b in zip(weights, of, strict=True)), stats

        return jax.jit(jax.grad(value, (0, 1, 2), has_aux=True))(h, w, bias)

    mesh = meshes.make_mesh(MeshConfig(**dict(zip(meshes.AXES, shape, strict=True))))
    for found, right in zip(jax.tree.leaves(run(mesh)), jax.tree.leaves(run(None)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-13)


def test_a_mesh_reduces_the_gradient_of_the_matrix_once():
    """Not once a chunk: in no loop is an array of the matrix's size reduced or gathered."""
    mesh = meshes.make_mesh(MeshConfig(data=1, fsdp=8, tensor=1))
    place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
    shapes = [((8, 64, 16), np.float32), ((16, 96), np.float32), ((8, 64), np.int32)]
    places = [place("fsdp"), place("fsdp", None), place("fsdp")]
    args = [jax.ShapeDtypeStruct(*s, sharding=p) for s, p in zip(shapes, places, strict=True)]
    how = {"precision": "fp32", "chunk": 8, "mesh": mesh}
    value = lambda h, w, t: tokens.token_stats(h, w, t, **how).nll.sum()
    text = jax.jit(jax.grad(value, (0, 1)), out_shardings=(*places[:2],)).lower(*args)
    text = text.compile().as_text()
    parts = text.split("\n\n")
    assert " while(" in text
    with_collectives = [one for one in parts if re.search(r" all-(gather|reduce)\(", one)]
    assert [one.startswith("ENTRY") for one in with_collectives] == [True]


def test_chunks_are_of_one_size():
    """65 tokens in chunks of at most 64 are two of 33, not of 64."""
    shapes = [(2, 65, 8), (8, 96), (2, 65)]
    h, w, t = (
        jax.ShapeDtypeStruct(s, d)
        for s, d in zip(shapes, (np.float32,) * 2 + (np.int32,), strict=True)
    )
    program = jax.make_jaxpr(
        lambda h, w, t: tokens.token_stats(h, w, t, precision="fp32", chunk=128).nll
    )(h, w, t)
    assert "f32[2,33,96]" in str(program) and "f32[2,64,96]" not in str(program)


def test_chunks_hold_fewer_logits():  # guards E6
    """The compiled gradient of 2,048 tokens over 1,024 words never holds all logits."""
    h, w, t = (
        jax.ShapeDtypeStruct(s, d)
        for s, d in (((2, 1024, 8), np.float32), ((8, 1024), np.float32), ((2, 1024), np.int32))
    )

    def temporaries(chunk):
        gradient = jax.grad(
            lambda h, w, t: tokens.token_stats(h, w, t, precision="fp32", chunk=chunk).nll.sum(),
            (0, 1),
        )
        return jax.jit(gradient).lower(h, w, t).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64) < 2048 * 1024 * 4 / 4 < temporaries("none")


def test_sizes_of_chunks():
    assert (
        tokens.chunk_rows("none", 10**9, 10**6) is None
        and tokens.chunk_rows(5, 10, 3) == 5
        and tokens.chunk_rows(10, 10, 3) is None
    )
    few, many = (tokens.CPU.plain_logits // 1024 + more for more in (0, 1))
    assert (
        tokens.chunk_rows("auto", few, 1024) is None
        and tokens.chunk_rows("auto", many, 1024) == tokens.CPU.chunk_logits // 1024
    )
    assert tokens.chunk_rows("auto", 1000, 10**6) == 128


def test_low_logits_are_summed_in_float32():  # guards A12
    logits = jax.numpy.asarray(RNG.normal(size=(3, 4096)), jax.numpy.bfloat16)
    stats = tokens.from_logits(logits, np.zeros(3, np.int32))
    wide = np.asarray(logits, np.float64)
    assert stats.nll.dtype == np.float32
    np.testing.assert_allclose(stats.log_z, np.log(np.exp(wide).sum(-1)), rtol=1e-6)
