"""Every optimizer against plain Optax on unstacked parameters, in float64: one array per layer,
matrices as matrices.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from omegaconf import OmegaConf

from jaxsft.config import optim as config
from jaxsft.errors import ConfigError
from jaxsft.optim import optimizers
from jaxsft.sharding.weight_spec import WeightSpec

LR, WD, STEPS = 0.03, 0.2, 4


def spec(shape, axes, inputs=0):
    return WeightSpec(shape, np.float64, axes, inputs)


SPECS = {
    "embedding": {"w": spec((11, 6), ("vocab", "embed"))},
    "layers": {
        "0": {
            "q": {
                "w": spec((2, 6, 2, 4), ("layers", "embed", "heads", "head_dim"), 1),
                "b": spec((2, 2, 4), ("layers", "heads", "head_dim")),
            },
            "out": {"w": spec((2, 2, 4, 6), ("layers", "heads", "head_dim", "embed"), 2)},
            "norm": {"scale": spec((2, 6), ("layers", "embed"))},
        },
        "2": {"out": {"w": spec((1, 2, 4, 6), ("layers", "heads", "head_dim", "embed"), 2)}},
    },
    "head": {"w": spec((6, 11), ("embed", "vocab"), 1)},
    "classes": {"w": spec((6, 5), ("embed", "classes"), 1), "bias": spec((5,), ("classes",))},
}
FEW = {
    "layers": {"0": {key: SPECS["layers"]["0"][key] for key in ("out", "norm")}},
    "head": SPECS["head"],
}
MUON = {"layers.0.q.w", "layers.0.out.w", "layers.2.out.w", "classes.w"}
DECAYING = MUON | {"embedding.w", "head.w"}
OPTIONS = {
    "sgd": [
        config.OPTIMIZERS["sgd"](),
        config.OPTIMIZERS["sgd"](nesterov=True),
        config.OPTIMIZERS["sgd"](momentum=0.0),
    ],
    "adam": [config.OPTIMIZERS["adam"]()],
    "adamw": [config.OPTIMIZERS["adamw"](learning_rate=3e-4, b2=0.95)],
    "adagrad": [config.OPTIMIZERS["adagrad"]()],
    "adafactor": [
        config.OPTIMIZERS["adafactor"](min_size_to_factor=4),
        config.OPTIMIZERS["adafactor"](min_size_to_factor=4, scale_by_parameter=False),
    ],
    "lion": [config.OPTIMIZERS["lion"]()],
    "lamb": [config.OPTIMIZERS["lamb"]()],
    "muon": [
        config.OPTIMIZERS["muon"](),
        config.OPTIMIZERS["muon"](consistent_rms=0.2, nesterov=False, ns_steps=3),
    ],
}
ALL = [options for several in OPTIONS.values() for options in several]
ids = [f"{o.name}{i}" for several in OPTIONS.values() for i, o in enumerate(several)]


def values(seed, dtype=np.float64, scale=1.0, specs=None):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: (scale * rng.normal(size=s.shape)).astype(dtype),
        SPECS if specs is None else specs,
    )


def hyper(lr=LR, wd=WD):
    return {"learning_rate": jnp.asarray(lr), "weight_decay": jnp.asarray(wd)}


def train(
    options, params, specs=None, rates=None, lr_factors=None, decay_factors=None, steps=STEPS
):
    """The parameters and the state after some steps, each with its own gradient; the transform is
    built inside the jitted step.
    """
    specs = SPECS if specs is None else specs
    lr, decay = optimizers.factors(options, specs)
    lr, decay = (
        lr if lr_factors is None else lr_factors,
        (decay if decay_factors is None else decay_factors),
    )

    @jax.jit
    def step(params, state, grads, hyper):
        updates, state = optimizers.build(options, hyper, specs, lr, decay).update(
            grads, state, params
        )
        return optax.apply_updates(params, updates), state

    state = jax.jit(lambda p: optimizers.init_state(options, specs, p))(params)
    for i in range(steps):
        params, state = step(
            params, state, values(100 + i, params["head"]["w"].dtype, 0.1, specs), rates or hyper()
        )
    return params, state


def solo(tree):
    """{name: [one matrix or vector per layer]}, from the declarations."""
    found = {}
    for path, s in jax.tree_util.tree_flatten_with_path(SPECS)[0]:
        x = tree
        for key in path:
            x = x[key.key]
        one = s.matrix or (s.shape[1:] if s.stacked else s.shape)
        found[".".join(key.key for key in path)] = (
            [x[i].reshape(one) for i in range(s.shape[0])] if s.stacked else [x.reshape(one)]
        )
    return found


def oracle(options, decays, muon):
    """Plain Optax, for one weight of one layer."""
    o, wd = options, WD * decays
    if muon:
        return optax.contrib.muon(
            LR,
            ns_steps=o.ns_steps,
            beta=o.momentum,
            eps=o.eps,
            weight_decay=wd,
            nesterov=o.nesterov,
            consistent_rms=o.consistent_rms,
        )
    return {
        "sgd": lambda: optax.sgd(LR, o.momentum or None, o.nesterov),
        "adam": lambda: optax.adam(LR, o.b1, o.b2, o.eps),
        "adamw": lambda: optax.adamw(LR, o.b1, o.b2, o.eps, weight_decay=wd),
        "adagrad": lambda: optax.adagrad(LR, o.initial_accumulator, o.eps),
        "adafactor": lambda: optax.adafactor(
            LR,
            min_dim_size_to_factor=o.min_size_to_factor,
            multiply_by_parameter_scale=o.scale_by_parameter,
            weight_decay_rate=LR * wd,  # Optax's is not multiplied by the learning rate
        ),
        "lion": lambda: optax.lion(LR, o.b1, o.b2, weight_decay=wd),
        "lamb": lambda: optax.lamb(LR, o.b1, o.b2, o.eps, weight_decay=wd),
        "muon": lambda: optax.adamw(
            LR * o.adam_learning_rate_factor, o.adam_b1, o.adam_b2, o.adam_eps, weight_decay=wd
        ),
    }[options.name]()


def plain(options, params):
    """`train` by plain Optax, each weight of each layer with an optimizer of its own."""
    params = solo(params)
    decays = {name: name in DECAYING and hasattr(options, "weight_decay") for name in params}
    txs = {
        name: oracle(options, decays[name], options.name == "muon" and name in MUON)
        for name in params
    }

    @jax.jit
    def step(params, states, grads):
        results = {
            name: [
                txs[name].update(*args)
                for args in zip(grads[name], states[name], params[name], strict=True)
            ]
            for name in params
        }
        new = {
            name: [
                optax.apply_updates(p, u)
                for p, (u, _) in zip(params[name], results[name], strict=True)
            ]
            for name in params
        }
        return new, {name: [state for _, state in results[name]] for name in params}

    states = jax.jit(
        lambda params: {
            name: [txs[name].init(p) for p in layers] for name, layers in params.items()
        }
    )(params)
    for i in range(STEPS):
        params, states = step(params, states, solo(values(100 + i, scale=0.1)))
    return params


@pytest.mark.parametrize("options", ALL, ids=ids)
# guards H1, and the silent mixing of layers by Muon, Adafactor and LAMB
def test_stacked_is_plain_optax_layer_by_layer(options):
    with jax.enable_x64(True):
        params = values(0)
        found = solo(train(options, params)[0])
        expected = plain(options, params)
        for name, layers in expected.items():
            for i, p in enumerate(layers):
                assert found[name][i].dtype == jnp.float64
                # Muon's Newton-Schulz map amplifies rounding in how XLA orders a batched product.
                np.testing.assert_allclose(
                    found[name][i],
                    p,
                    rtol=1e-9 if options.name == "muon" else 1e-12,
                    atol=1e-13,
                    err_msg=f"{name} {i}",
                )


def test_adafactor_factors_the_matrix_and_not_the_heads():
    options = config.OPTIMIZERS["adafactor"](min_size_to_factor=4)
    state = jax.eval_shape(lambda: optimizers.init_state(options, SPECS, values(0, np.float32)))
    found = state[0]["layers"]["0"]["q"]["w"][0]
    assert sorted(found.v_row.shape + found.v_col.shape) == [2, 2, 6, 8]
    assert found.v.shape == (2, 1)


@pytest.mark.parametrize("options", [several[0] for several in OPTIONS.values()], ids=list(OPTIONS))
def test_stacked_trials_equal_solo_runs(options):
    """Three trials in one vmapped program, each with its own rates, parameters and gradients."""
    rates = [hyper(lr, wd) for lr, wd in [(0.01, 0.0), (0.03, 0.2), (0.1, 1.0)]]
    trees = [values(10 + i, np.float32, specs=FEW) for i in range(3)]
    grads = [values(20 + i, np.float32, 0.1, FEW) for i in range(3)]
    lr, decay = optimizers.factors(options, FEW)

    def run(params, grads, rates):
        state = optimizers.init_state(options, FEW, params)

        def step(carry, _):
            params, state = carry
            updates, state = optimizers.build(options, rates, FEW, lr, decay).update(
                grads, state, params
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=2)[0]

    def stack(several):
        return jax.tree.map(lambda *x: np.stack(x), *several)

    found = jax.jit(jax.vmap(run))(stack(trees), stack(grads), stack(rates))
    one = jax.jit(run)
    expected = stack([one(*args) for args in zip(trees, grads, rates, strict=True)])
    tolerance = 2e-4 if options.name == "muon" else 2e-6
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


@pytest.mark.parametrize("options", ALL, ids=ids)
def test_the_state_depends_on_neither_rates_nor_step_and_is_never_low_precision(options):
    params = values(0, jnp.bfloat16)
    lr, decay = optimizers.factors(options, SPECS)
    tx = optimizers.build(options, hyper(), SPECS, lr, decay)
    before = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, before, params)

    def describe(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert (
        describe(before)
        == describe(after)
        == describe(jax.eval_shape(lambda: optimizers.init_state(options, SPECS, params)))
    )
    assert {x.dtype for x in jax.tree.leaves(before)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_muon_without_any_matrix_and_a_weight_without_outputs():
    specs = {
        "norm": {"scale": spec((6,), ("embed",))},
        "score": {"w": spec((6,), ("embed",), 1)},
        "head": SPECS["head"],
    }
    params, _ = train(config.OPTIMIZERS["muon"](), values(0, np.float32, specs=specs), specs)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_default_decay():
    decays = jax.tree_util.tree_flatten_with_path(optimizers.default_decay(SPECS))[0]
    assert {".".join(key.key for key in path) for path, value in decays if value} == DECAYING


def test_groups_become_factors():
    options = config.OPTIMIZERS["adamw"](
        lr_groups=[config.Group("layers/0/.*", 0.5)],
        decay_groups=[config.Group("layers/1/q/.*", 3.0), config.Group("head/w", 0.0)],
    )
    lr, decay = optimizers.factors(options, SPECS)
    np.testing.assert_array_equal(lr["layers"]["0"]["norm"]["scale"], [0.5, 1])
    assert lr["layers"]["2"]["out"]["w"] == 1.0
    np.testing.assert_array_equal(decay["layers"]["0"]["q"]["w"], [1, 3])
    np.testing.assert_array_equal(decay["layers"]["0"]["q"]["b"], [0, 3])
    assert (decay["head"]["w"], decay["classes"]["w"], decay["classes"]["bias"]) == (0.0, 1.0, 0.0)
    with pytest.raises(ConfigError, match=r"optim\.decay_groups"):
        optimizers.factors(
            config.OPTIMIZERS["adamw"](decay_groups=[config.Group("nope", 1.0)]), SPECS
        )


def test_wrong_factors_and_names():
    with pytest.raises(ConfigError, match="adamx: unknown; choose one of adafactor, adagrad"):
        optimizers.build(config.OptimConfig(name="adamx"), hyper(), SPECS, SPECS, SPECS)
    with pytest.raises(ConfigError, match="nesterov"):
        optimizers.init_state(
            config.OPTIMIZERS["sgd"](momentum=0.0, nesterov=True), SPECS, values(0)
        )
    with pytest.raises(ValueError, match="factors"):
        train(
            config.OPTIMIZERS["sgd"](),
            values(0, np.float32),
            lr_factors=jax.tree.map(lambda s: np.ones(5), SPECS),
        )


def test_registries_agree_and_are_structured_configs():
    assert set(config.OPTIMIZERS) == set(OPTIONS)
    for name, cls in config.OPTIMIZERS.items():
        assert cls().name == name
        tree = OmegaConf.merge(
            OmegaConf.structured(cls),
            {
                "learning_rate": "1e-4",
                "clip_norm": None,
                "lr_groups": [{"pattern": "a", "factor": 2}],
            },
        )
        assert (tree.learning_rate, tree.clip_norm, tree.lr_groups[0].factor) == (1e-4, None, 2.0)
        with pytest.raises(Exception, match="not_a_field"):
            OmegaConf.merge(OmegaConf.structured(cls), {"not_a_field": 1})


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (o[0].name, f.name)
        for o in OPTIONS.values()
        for f in dataclasses.fields(o[0])
        if f.name not in ("name", "clip_norm")
    ],
)
def test_every_field_does_something(name, field):
    """`learning_rate`, `weight_decay` and `clip_norm` reach the step in `hyper`; any other field
    changes the program or the factors.
    """
    if field in ("learning_rate", "weight_decay"):
        return
    base = OPTIONS[name][0]
    old = getattr(base, field)
    if field.endswith("groups"):
        new = [config.Group("head/w", 0.25)]
    elif isinstance(old, bool):
        new = not old
    else:
        new = 0.3 if old is None else old * (2 if isinstance(old, int) else 0.5)

    def program(options):
        lr, decay = optimizers.factors(options, SPECS)
        tx = optimizers.build(options, hyper(), SPECS, lr, decay)
        shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, jnp.float32), SPECS)
        # The accumulator's start is a value of `init`, not of `update`.
        return str(jax.make_jaxpr(lambda p: tx.update(p, tx.init(p), p))(shapes))

    assert program(dataclasses.replace(base, **{field: new})) != program(base)


# --- norms, averages, shardings
# --------------------------------------------------------------------------------------------------
def test_clipping_is_optax():
    grads = values(1, np.float32)
    expected, _ = jax.jit(optax.clip_by_global_norm(2.0).update)(grads, optax.EmptyState())
    found, norm = jax.jit(optimizers.clip_by_global_norm)(grads, 2.0)
    np.testing.assert_allclose(
        norm, np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads))), rtol=1e-6
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    np.testing.assert_allclose(jax.jit(optimizers.global_norm)(found), 2.0, rtol=1e-6)


@pytest.mark.parametrize("limit", [1e6, np.inf])
def test_short_gradients_are_untouched(limit):
    grads = values(1, np.float32)
    found, _ = jax.jit(optimizers.clip_by_global_norm)(grads, limit)
    jax.tree.map(np.testing.assert_array_equal, found, grads)


def test_clipping_edges():
    zero, norm = optimizers.clip_by_global_norm({"w": jnp.zeros(3)}, 1.0)
    assert norm == 0 and not np.any(zero["w"])
    nothing, norm = optimizers.clip_by_global_norm({"w": jnp.ones(3)}, 0.0)
    assert not np.any(nothing["w"])
    bad, norm = optimizers.clip_by_global_norm({"w": jnp.array([1.0, np.nan])}, 1.0)
    assert np.isnan(norm) and np.isnan(bad["w"]).any()
    assert optimizers.global_norm({}) == 0


def test_the_norm_of_low_precision_gradients_is_exact():
    grads = {
        "w": jnp.full((4096,), 1.0078125, jnp.bfloat16),
        "b": jnp.full((3,), 0.01, jnp.bfloat16),
    }
    clipped, norm = optimizers.clip_by_global_norm(grads, 1.0)
    exact = np.sqrt(sum(np.sum(np.asarray(g, np.float64) ** 2) for g in grads.values()))
    np.testing.assert_allclose(norm, exact, rtol=1e-6)
    assert norm.dtype == clipped["w"].dtype == jnp.float32


def test_ema_by_hand():
    with jax.enable_x64(True):
        ema = optimizers.ema_init({"w": jnp.zeros(())})
        expected = 0.0
        for t in range(40):
            ema = jax.jit(optimizers.ema_update)(ema, {"w": jnp.asarray(t + 1.0)}, 0.5, t)
            d = min(0.5, (1 + t) / (10 + t))
            expected = d * expected + (1 - d) * (t + 1)
        np.testing.assert_allclose(ema["w"], expected, rtol=1e-6)  # the decay is float32


def test_ema_keeps_its_precision_and_what_does_not_move():
    params = {"w": jnp.asarray([0.1, -3.7], jnp.bfloat16)}
    ema = optimizers.ema_init(params)
    after = optimizers.ema_update(ema, params, 0.999, 5)
    assert after["w"].dtype == jnp.float32
    np.testing.assert_array_equal(after["w"], ema["w"])


def test_match_params_finds_moments_and_leaves_the_rest():
    names = jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path), SPECS)
    for options in ALL:
        state = jax.eval_shape(
            lambda o=options: optimizers.init_state(o, SPECS, values(0, np.float32))
        )
        found = optimizers.match_params(state, SPECS, names, "rest")
        for (path, leaf), value in zip(
            jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(found), strict=True
        ):
            if value != "rest":
                assert jax.tree_util.keystr(path).endswith(value)
            elif options.name != "adafactor":
                assert leaf.ndim <= 1  # counters, and Muon's coefficients
    assert "rest" in jax.tree.leaves(found)
