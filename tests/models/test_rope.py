"""Rotary positions: a rotation by hand, and each way to a longer context against its formula."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config.model import ModelConfig, RopeScaling
from jaxsft.models import rope

x64 = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
CONFIG = ModelConfig(head_dim=8)
PLAIN = rope.frequencies(10000.0, 8, RopeScaling(), np.float64)[0]


@x64
def test_rope_is_a_rotation_that_knows_distances_only():
    """Lengths stay; a product of query and key depends on how far apart they are; position 0 is the
    identity; by hand for one pair.
    """
    q, k = RNG.normal(size=(2, 8))
    turn = lambda x, p: np.asarray(
        rope.rotate(x[None, None, None], rope.table(CONFIG, jnp.array([[p]]), np.dtype(np.float64)))
    )[0, 0, 0]
    np.testing.assert_allclose(turn(q, 0), q)
    assert np.linalg.norm(turn(q, 17)) == pytest.approx(np.linalg.norm(q), rel=1e-12)
    products = [turn(q, p + 5) @ turn(k, p) for p in (0, 3, 100, 1000)]
    np.testing.assert_allclose(products, products[0], rtol=1e-10)
    assert abs(turn(q, 6) @ turn(k, 0) - products[0]) > 1e-3
    angle = 3 * 10000.0 ** (-2 / 8)  # the second of four pairs, (x[1], x[5]), at position 3
    found = turn(q, 3)
    np.testing.assert_allclose(found[1], q[1] * np.cos(angle) - q[5] * np.sin(angle))
    np.testing.assert_allclose(found[5], q[5] * np.cos(angle) + q[1] * np.sin(angle))


@x64
def test_a_fraction_of_the_dimensions_is_rotated():
    config = dataclasses.replace(CONFIG, rope_fraction=0.5)
    x = RNG.normal(size=(1, 3, 2, 8))
    found = np.asarray(
        rope.rotate(x, rope.table(config, jnp.arange(3)[None], np.dtype(np.float64)))
    )
    np.testing.assert_array_equal(found[..., 4:], x[..., 4:])
    four = dataclasses.replace(CONFIG, head_dim=4)
    np.testing.assert_allclose(
        found[..., :4],
        rope.rotate(x[..., :4], rope.table(four, jnp.arange(3)[None], np.dtype(np.float64))),
    )


@x64
def test_neighbours_turn_as_halves_do_in_another_order():
    x, order = RNG.normal(size=(1, 3, 2, 8)), np.r_[0:8:2, 1:8:2]
    tables = rope.table(CONFIG, jnp.arange(3)[None], np.dtype(np.float64))
    found = np.asarray(rope.rotate(x, tables, "neighbours"))
    np.testing.assert_allclose(found[..., order], rope.rotate(x[..., order], tables))
    angle = 2 * 10000.0 ** (-2 / 8)  # of the second pair, dimensions 2 and 3, at position 2
    wanted = x[0, 2, 0, 2] * np.cos(angle) - x[0, 2, 0, 3] * np.sin(angle)
    assert found[0, 2, 0, 2] == pytest.approx(wanted, rel=1e-12)


def test_linear_and_ntk():
    """Positions are divided; or the base grows so that the slowest frequency is divided and the
    fastest is not touched.
    """
    linear = rope.frequencies(10000.0, 8, RopeScaling("linear", 4.0), np.float64)[0]
    np.testing.assert_allclose(linear, PLAIN / 4)
    ntk = rope.frequencies(10000.0, 8, RopeScaling("ntk", 4.0), np.float64)[0]
    assert ntk[0] == PLAIN[0] == 1 and ntk[-1] == pytest.approx(PLAIN[-1] / 4)


def test_llama3_by_wave_length():
    scaling = RopeScaling("llama3", factor=8.0, original=64, low=1.0, high=4.0)
    found, high = rope.frequencies(10000.0, 8, scaling, np.float64)
    for mine, old in zip(found, PLAIN, strict=True):
        turns = 64 * old / (2 * math.pi)  # in the original context
        share = min(max((turns - 1) / 3, 0), 1)
        assert mine == pytest.approx(old * (share + (1 - share) / 8))
    assert high == 1 and found[0] == PLAIN[0] and found[-1] == pytest.approx(PLAIN[-1] / 8)


def test_yarn_keeps_the_fast_and_stretches_the_slow():
    dims = 32
    plain = rope.frequencies(10000.0, dims, RopeScaling(), np.float64)[0]
    found, high = rope.frequencies(
        10000.0, dims, RopeScaling("yarn", 4.0, original=256), np.float64
    )
    assert high == pytest.approx(0.1 * math.log(4) + 1)
    turns = 256 * plain / (2 * math.pi)
    assert found[turns > 32.5] == pytest.approx(plain[turns > 32.5]) and (turns > 32.5).any()
    slow = turns < 0.5
    assert found[slow] == pytest.approx(plain[slow] / 4) and slow.any()
    assert ((plain / found)[1:] >= (plain / found)[:-1] - 1e-12).all()
    assert (
        rope.frequencies(
            10000.0, dims, RopeScaling("yarn", 4.0, original=256, attention=0.7), np.float64
        )[1]
        == 0.7
    )


def test_longrope_divides_each_frequency():
    factors = (1.0, 1.5, 2.0, 3.0)
    found, high = rope.frequencies(
        10000.0, 8, RopeScaling("longrope", 4.0, original=64, factors=factors), np.float64
    )
    np.testing.assert_allclose(found, PLAIN / factors)
    assert high == pytest.approx(math.sqrt(1 + math.log(4) / math.log(64)))
