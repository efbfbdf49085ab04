"""Invariants of optimizers and schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsft import patterns
from jaxsft.config import optim as config
from jaxsft.optim import optimizers
from jaxsft.optim.schedules import SCHEDULES, unit
from jaxsft.sharding.weight_spec import WeightSpec
from tests.conftest import short

SPECS = {
    "layers": {
        "0": {
            "w": WeightSpec((4, 6, 5), np.float32, ("layers", "embed", "mlp"), 1),
            "scale": WeightSpec((4, 6), np.float32, ("layers", "embed")),
        }
    },
    "embedding": {"w": WeightSpec((7, 6), np.float32, ("vocab", "embed"))},
    "head": {
        "w": WeightSpec((6, 7), np.float32, ("embed", "vocab"), 1),
        "bias": WeightSpec((7,), np.float32, ("vocab",)),
    },
}
OPTIONS = short(
    [cls() for cls in config.OPTIMIZERS.values()],
    *(config.OPTIMIZERS[name]() for name in ("adamw", "muon", "adafactor")),
)
ids = list(config.OPTIMIZERS)


def values(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(dtype), SPECS)


def runner(options, lr_factors=None, steps=5, rate=0.1, specs=SPECS):
    """`run(params, grads) -> params` after some steps, in one program; `grads(seed)` makes the
    gradient of a step.
    """
    lr, decay = optimizers.factors(options, specs)
    lr = lr if lr_factors is None else lr_factors

    @jax.jit
    def program(params, several, hyper):
        def step(carry, grads):
            params, state = carry
            updates, state = optimizers.build(options, hyper, specs, lr, decay).update(
                grads, state, params
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizers.init_state(options, specs, params)), several)[
            0
        ][0]

    def run(params, grads=values):
        several = jax.tree.map(lambda *x: np.stack(x), *[grads(50 + i) for i in range(steps)])
        return program(
            params, several, {"learning_rate": jnp.asarray(rate), "weight_decay": jnp.asarray(0.3)}
        )

    return run


ROWS = {factor: np.array([1.0, 1.0, 1.0, factor]) for factor in (7, 100)}  # the last layer differs


def cut(tree):
    """The stack of four layers as two segments, of one and three layers; of arrays or specs."""

    def part(x, first, last):
        return (
            dataclasses.replace(x, shape=(last - first, *x.shape[1:]))
            if isinstance(x, WeightSpec)
            else x[first:last]
        )

    stack = tree["layers"]["0"]
    return {
        **tree,
        "layers": {
            str(a): {name: part(x, a, b) for name, x in stack.items()} for a, b in ((0, 1), (1, 4))
        },
    }


def bits(x):
    return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_zero_factor_is_frozen_to_the_bit(options):  # guards G10
    params = values(0)
    params["head"]["w"][0] = -0.0  # a sum with +0 would flip its sign
    factors = patterns.resolve(
        [("head/.*", 0.0), (r"layers/[01]/.*", 0.0)], SPECS, 1.0, option="freeze"
    )

    def grads(seed):  # what reaches a frozen weight may even be NaN
        found = values(seed)
        return {**found, "head": jax.tree.map(lambda g: g * np.nan, found["head"])}

    after = runner(options, factors)(params, grads)
    for name in ("w", "bias"):
        np.testing.assert_array_equal(bits(after["head"][name]), bits(params["head"][name]))
    for name in ("w", "scale"):
        old, new = params["layers"]["0"][name], after["layers"]["0"][name]
        np.testing.assert_array_equal(bits(new[:2]), bits(old[:2]))
        assert (
            np.isfinite(new).all()
            and (np.abs(new[2:] - old[2:]) > 0).any(axis=tuple(range(1, new.ndim))).all()
        )
    assert np.any(after["embedding"]["w"] != params["embedding"]["w"])


@pytest.mark.parametrize(
    "options",
    [config.OPTIMIZERS["adamw"](learning_rate=3e-4), config.OPTIMIZERS["muon"]()],
    ids=lambda o: o.name,
)
def test_a_zero_rate_and_no_decay_change_nothing(options):  # guards G10
    params = values(0)
    jax.tree.map(np.testing.assert_array_equal, runner(options, rate=0.0)(params), params)


@pytest.mark.parametrize("options", OPTIONS, ids=ids)
def test_rate_groups_take_effect(options):  # guards G6
    """The first update is proportional to the factor, layer by layer, whatever the optimizer."""
    with jax.enable_x64(True):
        params = values(0, np.float64)
        factors = patterns.resolve(
            [("embedding/w", 2.0), (r"layers/1/.*", 0.25), (r"layers/3/w", 5.0)],
            SPECS,
            1.0,
            option="optim.lr_groups",
        )

        def grads(seed):
            return values(seed, np.float64)

        plain = jax.tree.map(jnp.subtract, runner(options, steps=1)(params, grads), params)
        grouped = jax.tree.map(
            jnp.subtract, runner(options, factors, steps=1)(params, grads), params
        )
        ratio = jax.tree.map(
            lambda a, b: np.median(np.asarray(a / b).reshape(len(a), -1), axis=1), grouped, plain
        )
        np.testing.assert_allclose(ratio["embedding"]["w"], 2, rtol=1e-9)
        np.testing.assert_allclose(ratio["head"]["w"], 1, rtol=1e-9)
        np.testing.assert_allclose(ratio["layers"]["0"]["w"], [1, 0.25, 1, 5], rtol=1e-9)
        np.testing.assert_allclose(ratio["layers"]["0"]["scale"], [1, 0.25, 1, 1], rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        config.OPTIMIZERS["adafactor"](min_size_to_factor=4),
        config.OPTIMIZERS["lamb"](),
        config.OPTIMIZERS["muon"](),
    ],
    ids=lambda o: o.name,
)
def test_layers_do_not_see_each_other(options):
    """Another layer's gradient and weights change nothing here, and splitting a stack into two
    segments changes nothing at all.
    """
    with jax.enable_x64(True):

        def grads(seed):
            return values(seed, np.float64)

        params = values(0, np.float64)
        run = runner(options)
        base = run(params, grads)

        def louder(seed):
            found = grads(seed)
            found["layers"]["0"] = {
                name: g * ROWS[100].reshape(-1, *[1] * (g.ndim - 1))
                for name, g in found["layers"]["0"].items()
            }
            return found

        other = {
            **params,
            "layers": {
                "0": {
                    name: p * ROWS[7].reshape(-1, *[1] * (p.ndim - 1))
                    for name, p in params["layers"]["0"].items()
                }
            },
        }
        found = run(other, louder)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[:3], b[:3], rtol=1e-9, atol=1e-12),
            found["layers"],
            base["layers"],
        )

        split = runner(options, specs=cut(SPECS))(cut(params), lambda seed: cut(grads(seed)))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), split, cut(base)
        )


def test_muon_orthogonalises_each_layer():
    """All singular values of one layer's update are near 1, however different the layers' gradients
    are in size.
    """
    factors = jax.tree.map(lambda _: 1.0, SPECS), jax.tree.map(lambda _: 0.0, SPECS)
    params, grads = values(0), values(1)
    grads["layers"]["0"]["w"] *= np.array([1e-3, 1, 30, 1e3], np.float32)[:, None, None]
    tx = optimizers.build(
        config.OPTIMIZERS["muon"](), {"learning_rate": 1.0, "weight_decay": 0.0}, SPECS, *factors
    )
    updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(grads, params)
    singular = np.linalg.svd(np.asarray(updates["layers"]["0"]["w"]), compute_uv=False)
    assert singular.min() > 0.4 and singular.max() < 1.4


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_warmup_is_none(name):  # guards H2
    assert unit(name, 0, 0, 100, decay=10) == 1
    assert jax.jit(lambda warmup: unit(name, 0, warmup, 100, decay=10))(0) == 1  # traced too


def test_wsd_has_the_asked_sizes():  # guards H4
    for warmup, total, decay in [(5, 50, 10), (0, 20, 20), (3, 17, 1)]:
        rates = np.array(
            [unit("wsd", step, warmup, total, decay=decay) for step in range(total + 1)]
        )
        assert (rates < 1).nonzero()[0].tolist() == [
            *range(warmup),
            *range(total - decay + 1, total + 1),
        ]
        assert rates[total] == 0


def test_the_rate_depends_on_the_optimizer_step_alone():  # guards H1
    """The optimizer keeps no rate and no schedule: the same state and hyper give the same update,
    however often the program ran before.
    """
    options, params = config.OPTIMIZERS["adamw"](learning_rate=3e-4), values(0)
    lr, decay = optimizers.factors(options, SPECS)
    state = optimizers.init_state(options, SPECS, params)

    @jax.jit
    def size(step):
        tx = optimizers.build(
            options,
            {"learning_rate": unit("linear", step, 2, 10), "weight_decay": 0.0},
            SPECS,
            lr,
            decay,
        )
        return optimizers.global_norm(tx.update(params, state, params)[0])

    sizes = [float(size(step)) for step in (1, 2, 6)]
    np.testing.assert_allclose(np.array(sizes) / sizes[1], [0.5, 1, 0.5], rtol=1e-5)


def test_frozen_updates_are_minus_zero():  # guards G10
    """XLA drops an addition of +0 inside a program, but outside of one it turns a weight of -0 into
    +0.
    """
    factors = jax.tree.map(lambda _: 0.0, SPECS)
    tx = optimizers.build(
        config.OPTIMIZERS["sgd"](), {"learning_rate": 0.1}, SPECS, factors, factors
    )
    updates, _ = tx.update(values(1), tx.init(values(0)), values(0))
    assert all(np.all(np.asarray(u) == 0) and np.signbit(u).all() for u in jax.tree.leaves(updates))
