"""Schedules against Optax's and by hand. The golden curves guard H1 (the rate is a function of the
optimizer step alone) and H4 (sizes of WSD).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsft.errors import ConfigError
from jaxsft.optim.schedules import SCHEDULES, unit


def curve(name, warmup, total, last=None, **kwargs):
    """The values at 0 ... last, with every number but the name traced."""
    steps = jnp.arange((total if last is None else last) + 1)

    def one(step, warmup, total, kwargs):
        return unit(name, step, warmup, total, **kwargs)

    return np.asarray(
        jax.jit(jax.vmap(one, in_axes=(0, None, None, None)))(steps, warmup, total, kwargs)
    )


def optax_curve(schedule, last):
    return np.asarray(jax.vmap(schedule)(jnp.arange(last + 1)))


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_optax(final):
    expected = optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100, final)
    np.testing.assert_allclose(
        curve("cosine", 10, 100, 120, final=final), optax_curve(expected, 120), atol=2e-7
    )
    np.testing.assert_allclose(
        curve("cosine", 0, 50, final=final),
        optax_curve(optax.cosine_decay_schedule(1.0, 50, final), 50),
        atol=2e-7,
    )


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_linear_is_optax(final):
    expected = optax.join_schedules(
        [optax.linear_schedule(0, 1, 10), optax.linear_schedule(1, final, 90)], [10]
    )
    np.testing.assert_allclose(
        curve("linear", 10, 100, 120, final=final), optax_curve(expected, 120), atol=2e-7
    )


def test_constant_is_optax():
    np.testing.assert_allclose(
        curve("constant", 10, 100),
        optax_curve(optax.warmup_constant_schedule(0, 1, 10), 100),
        atol=2e-7,
    )


@pytest.mark.parametrize("final", [0.0, 0.25])
def test_wsd_is_optax(final):  # guards H4
    parts = [
        optax.linear_schedule(0, 1, 10),
        optax.constant_schedule(1.0),
        optax.linear_schedule(1, final, 20),
    ]
    expected = optax.join_schedules(parts, [10, 80])
    np.testing.assert_allclose(
        curve("wsd", 10, 100, 110, decay=20, final=final), optax_curve(expected, 110), atol=2e-7
    )


def test_wsd_by_hand():  # guards H4
    np.testing.assert_allclose(
        curve("wsd", 2, 10, 11, decay=4), [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    )
    np.testing.assert_allclose(curve("wsd", 0, 4, decay=0), [1, 1, 1, 1, 1])  # no decay: constant
    # longer than there is room for
    np.testing.assert_allclose(curve("wsd", 2, 6, decay=100), [0, 0.5, 1, 0.75, 0.5, 0.25, 0])


def test_inverse_sqrt_by_hand():
    found = curve("inverse_sqrt", 4, 100)
    np.testing.assert_allclose(found[:5], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found[4:], np.sqrt(4 / np.arange(4, 101)), rtol=1e-6)
    np.testing.assert_allclose(curve("inverse_sqrt", 0, 3), 1 / np.sqrt([1, 2, 3, 4]), rtol=1e-6)


FINAL = {"constant": 1.0, "linear": 0.1, "cosine": 0.1, "inverse_sqrt": np.sqrt(0.1), "wsd": 0.1}


@pytest.mark.parametrize("name", SCHEDULES)
def test_documented_points(name):  # guards H1
    found = curve(name, 10, 100, 300, final=0.1, decay=30)
    assert found[0] == 0 and found[10] == 1
    np.testing.assert_allclose(found[100], FINAL[name], rtol=1e-6)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 0), (0, 1), (5, 5), (9, 5), (0, 7)])
def test_degenerate_lengths_are_finite(name, warmup, total):
    found = curve(name, warmup, total, 12, decay=3)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found[:warmup], np.arange(warmup) / max(warmup, 1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32, jnp.float32])
def test_always_float32(dtype):
    found = unit(
        "cosine",
        jnp.asarray(3, dtype),
        jnp.asarray(0, dtype),
        jnp.asarray(7, dtype),
        final=jnp.asarray(0, dtype),
    )
    assert found.dtype == jnp.float32 and found.shape == ()
    np.testing.assert_allclose(found, 0.5 * (1 + np.cos(np.pi * 3 / 7)), rtol=1e-6)


def test_late_steps_are_exact():
    """At three million steps a bfloat16 or a badly ordered formula is off by percents."""
    np.testing.assert_allclose(unit("linear", 2_999_999, 1000, 3_000_000), 1 / 2_999_000, rtol=1e-6)


def test_trials_of_other_lengths_share_a_program():
    traces = []

    @jax.jit
    @jax.vmap
    def both(step, warmup, total, decay):
        traces.append(1)
        return unit("wsd", step, warmup, total, decay=decay)

    args = jnp.array([7, 7]), jnp.array([0, 10]), jnp.array([10, 20]), jnp.array([5, 5])
    np.testing.assert_allclose(both(*args), [0.6, 0.7], rtol=1e-6)
    both(*(x + 1 for x in args))
    assert len(traces) == 1


def test_unknown_name():
    with pytest.raises(
        ConfigError,
        match="cosin: unknown; choose one of constant, cosine, inverse_sqrt, linear, wsd",
    ):
        unit("cosin", 0, 0, 1)
