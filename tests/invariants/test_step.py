"""The trust suite of the training step: one gradient, however the batch is cut, packed, sharded or
compiled.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config import optim, schema
from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo, blocked
from jaxsft.models.layer_stack import layers_of
from jaxsft.models.model_base import segments
from jaxsft.tasks.loss_terms import objective_value
from jaxsft.training import partition
from tests.conftest import assert_close, assert_same, bench, distance, short

LOSS = {"label_smoothing": 0.1, "z_loss": 0.01}
pytestmark = pytest.mark.usefixtures("x64")


@functools.cache
def chat(
    accumulate=1,
    dropout=0.2,
    chunk="auto",
    packing=False,
    batch_size=8,
    mesh=(),
    freeze=(),
    penalties=(),
    **model,
):
    """Thirteen ragged rows, eight a batch: the second batch ends in three empty rows, so its last
    micro-batches are empty too.
    """
    return bench(
        "chat",
        loss=LOSS | {"chunk": chunk, "penalties": penalties},
        schedule=schema.SCHEDULES["inverse_sqrt"](warmup="0steps"),
        data={"packing": packing},
        train={"accumulate": accumulate, "batch_size": batch_size, "freeze": freeze},
        mesh=dict(mesh),
        model={"dropout": dropout, **model},
    )


def same_update(a, b, k=1, **hyper):
    """The batch k gives the same sums and the same parameters, which really moved."""
    (one, sums), (two, other) = a.run([k], **hyper), b.run([k], **hyper)
    assert distance(one.trainable, a.params if not a.config.train.freeze else a.apart[0]) > 1e-3
    assert not sums.skipped
    assert_close(
        (sums.terms, sums.totals, sums.states, sums.grad_norm),
        (other.terms, other.totals, other.states, other.grad_norm),
        rtol=1e-12,
    )
    assert_close(one.trainable, two.trainable)


# --- how a batch is cut
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [0, 1], ids=["full batch", "with empty micro-batches"])
@pytest.mark.parametrize("accumulate", [4])
def test_micro_batches_give_the_same_step(accumulate, k):  # guards A1, A4, A5, A6
    """With label smoothing, z-loss, turn weights and dropout, whose masks belong to rows."""
    same_update(chat(), chat(accumulate), k)


@functools.cache
def classify(accumulate=1, loss="huber"):
    return bench(
        "classify",
        task={"loss": loss},
        loss={"label_smoothing": 0.1},
        train={"accumulate": accumulate, "batch_size": 4},
        data={"packing": False},
    )


def test_micro_batches_of_texts():  # guards A1, A2, A5
    same_update(classify(), classify(4), 3)


@pytest.mark.parametrize("task", short(["chat", "classify"], "chat"))
def test_packing_changes_no_sum_and_no_gradient(task):  # guards B1, B9
    """The whole epoch is one batch, packed into few rows or one text a row."""

    def epoch(packing):
        return bench(
            task,
            loss=LOSS if task != "classify" else {},
            data={"packing": packing},
            train={"batch_size": 16},
        )

    packed, plain = epoch(True), epoch(False)
    assert (
        packed.batches.plan.texts > 1
        and packed.batches.plan.rows < plain.batches.plan.rows
        and len(plain.batches) == 1
    )
    same_update(packed, plain, 0)


@functools.cache
def experts(accumulate=1, mesh=(), packing=False, batch_size=8, layers=1, **loss):
    loss = {"balance": 0.5, "router_z": 0.1} | loss
    model = {
        "experts": 5,
        "layers": layers,
        "embed": 8,
        "heads": 2,
        "mlp": 4,
        "dropout": 0.2 if batch_size == 8 else 0.0,
    }
    train = {"accumulate": accumulate, "batch_size": batch_size}
    return bench(
        "chat",
        loss=loss,
        model=model,
        data={"packing": packing},
        train=train,
        mesh=dict(mesh),
        longest=16,
    )


@pytest.mark.slow
@pytest.mark.parametrize("k", [0, 1], ids=["full batch", "with empty micro-batches"])
def test_micro_batches_balance_experts_alike(k):  # guards A1, A5, A6
    """The share of tokens of an expert is that of the whole batch, though the loss is a product of
    two means.
    """
    same_update(experts(), experts(4), k)


@pytest.mark.slow
def test_devices_balance_experts_alike():  # guards A3
    sharded = experts(2, (("data", 2), ("fsdp", 2), ("tensor", 2)))
    assert sharded.parts.mesh.size == 8
    same_update(experts(), sharded)


@pytest.mark.slow
def test_packing_balances_experts_alike():  # guards B1, B12
    packed, plain = experts(packing=True, batch_size=16), experts(batch_size=16)
    assert packed.batches.plan.rows < plain.batches.plan.rows
    same_update(packed, plain, 0)


@pytest.mark.slow
def test_losses_of_routers_by_hand():  # guards A5, B12
    """The step is that of the task's loss and the two losses, with counts and means over the tokens
    that are there, in numpy.
    """
    b, plain = (
        experts(batch_size=16, layers=2, **loss) for loss in ({}, {"balance": 0.0, "router_z": 0.0})
    )
    batch, rate = b.batches[0], 0.5
    where = TokenInfo(batch.segment_ids, batch.positions)
    there = batch.segment_ids > 0
    assert not there.all()

    def scores(params):  # [L, tokens, E], of the real ones
        x, out = b.parts.model._embed(params, batch.tokens, where, None), []
        tables = b.parts.model._positions(params, where, where, x.dtype)
        for i in range(2):
            own, layer = jax.tree.map(
                lambda a: a[i], (params["layers"]["0"], layers_of(b.parts.model.config, 0, 2))
            )
            (x, _), seen = b.parts.model.block().apply(
                {"params": own}, x, where, tables, layer, None, mutable=["routing"]
            )
            out.append(seen["routing"]["mlp"]["scores"][0][0][there])
        return jnp.stack(out)

    found = np.asarray(jax.jit(scores)(b.params)).reshape(-1, 5)
    best = np.argsort(-found, axis=1)[:, :2]
    share = np.bincount(best.ravel(), minlength=5) / len(found)
    probability = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    balance, z = (
        5 * (share * probability.mean(0)).sum(),
        np.square(np.log(np.exp(found).sum(1))).mean(),
    )
    (_, _, states), _ = b.evaluate(*b.apart, batch, b.hyper)
    numbers = states["experts"].brief()
    np.testing.assert_allclose(
        [numbers["balance_loss"], numbers["router_z_loss"]], [balance, z], rtol=1e-10
    )
    each = [np.bincount(one.ravel(), minlength=5) for one in np.split(best, 2)]
    assert numbers["expert_load"] == pytest.approx(max(one.max() / one.mean() for one in each))

    def more(params):
        s = scores(params).reshape(-1, 5)
        return (
            0.5 * 5 * (share * jax.nn.softmax(s).mean(0)).sum()
            + 0.1 * jnp.square(jax.nn.logsumexp(s, axis=-1)).mean()
        )

    gradient = jax.jit(jax.grad(more))(b.params)
    (one, sums), (two, other) = b.run(1), plain.run(1)
    # what is reported is the loss of the task
    assert_close((sums.terms, sums.totals), (other.terms, other.totals))
    # 0.1 is a float32
    assert_close(
        jax.tree.map(lambda x, y: (x - y) / rate, two.trainable, one.trainable), gradient, atol=1e-8
    )
    assert distance(gradient, jax.tree.map(jnp.zeros_like, gradient)) > 1e-3


# --- where it runs
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mesh, accumulate",
    short([({"data": 8}, 1), ({"fsdp": 4, "tensor": 2}, 2)], ({"fsdp": 4, "tensor": 2}, 2)),
    ids=["data", "fsdp x tensor"],
)
def test_devices_do_not_matter(mesh, accumulate):  # guards A3
    """Uneven shards (three of the eight rows are empty), sharded as in the training loop."""
    sharded = chat(accumulate, mesh=tuple(mesh.items()))
    assert sharded.parts.mesh.size == 8
    state, _ = sharded.run([1])
    spread = {len(x.sharding.device_set) for x in jax.tree.leaves(state.trainable)}
    assert spread == {8}
    if "fsdp" in mesh:
        assert not state.trainable["layers"]["0"]["attention"]["q"][
            "w"
        ].sharding.is_fully_replicated
    same_update(chat(), sharded)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {
                "remat": True,
                "unroll": "none",
                "remat_saves": ("q", "context"),
                "attention": "blocked",
            },
            marks=pytest.mark.slow,
        ),
        {"remat": True, "chunk": 48},
        {"unroll": "none", "chunk": 7, "attention": "blocked", "accumulate": 2},
    ],
    ids=str,
)
def test_how_it_is_computed_does_not_matter(options, monkeypatch):  # guards B1, B5, C15
    """Recomputation, loops, chunks of logits and blocks of attention, several of each per row."""
    monkeypatch.setattr(blocked, "BLOCK", 16)
    packed = {"packing": True, "batch_size": 4}
    same_update(chat(**packed), chat(**packed, **options), 0)


def test_jit_changes_nothing():  # guards H10
    """One operation after the other gives the compiled program's loss, with dropout; the loops run
    in Python.
    """
    b = bench(
        "chat",
        3,
        loss=LOSS,
        train={"batch_size": 2},
        model={"layers": 1, "dropout": 0.2},
        longest=16,
    )

    def loss(params):
        return b.parts.task.loss(
            b.parts.model,
            params,
            b.batches[0],
            b.hyper,
            b.program._dropout(jnp.int32(0), 2, b.hyper),
            columns=True,
        )

    compiled = jax.jit(loss)(b.params)
    with jax.disable_jit():
        assert_close(compiled, loss(b.params), rtol=1e-12)


# --- steps that cannot be taken
# --------------------------------------------------------------------------------------------------
@functools.cache
def averaged():
    return bench(
        "chat",
        loss=LOSS | {"penalties": (schema.Penalty("l2", "embed/.*", 0.1),)},
        train={"batch_size": 8, "ema": 0.9},
        optim=optim.OPTIMIZERS["adamw"](learning_rate=3e-4),
    )


def test_a_batch_without_trained_tokens_is_skipped_and_counted():  # guards A7
    b = averaged()
    before, _ = b.run(1)
    batch = b.batches[0]._replace(loss_weight=np.zeros_like(b.batches[0].loss_weight))
    after, sums = b.step(before, b.apart[1], batch, b.hyper)
    assert sums.skipped and after.step == 2 and after.skipped == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    assert_same((before.trainable, before.opt, before.ema), (after.trainable, after.opt, after.ema))
    assert not b.run(1, after)[1].skipped


@pytest.mark.parametrize("how", ["gradient", "loss"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_clock(how):  # guards A7, E10
    b = averaged()
    before, _ = b.run(1)
    if how == "gradient":
        after, sums = b.run(
            [1], before, terms={"cross_entropy": np.float32(np.inf), "z_loss": np.float32(0.01)}
        )
        assert np.isfinite(sums.terms["cross_entropy"]) and not np.isfinite(sums.grad_norm)
    else:
        before = before.replace(
            trainable=jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.nan), before.trainable)
        )
        after, sums = b.run([1], before)
        assert np.isnan(sums.terms["cross_entropy"])  # it is shown, not hidden
    assert sums.skipped and (after.step, after.skipped) == (2, 1)
    assert_same((before.trainable, before.opt, before.ema), (after.trainable, after.opt, after.ema))


# --- the loss
# --------------------------------------------------------------------------------------------------
def test_loss_by_hand():  # guards A5, A11, C15
    """The objective from the model's logits, token by token in numpy: weights, smoothing and
    z-loss, each sum divided once.
    """
    b = chat(dropout=0.0, packing=True, batch_size=4)
    batch = b.batches[0]
    hidden = b.parts.model.hidden(
        b.params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions)
    )
    logits = np.asarray(hidden @ b.parts.model.output_matrix(b.params))
    ce = z = weight = 0.0
    for r, s in zip(*np.nonzero(batch.loss_weight), strict=True):
        log_z = np.log(np.exp(logits[r, s]).sum())
        log_p, w = logits[r, s] - log_z, float(batch.loss_weight[r, s])
        assert batch.segment_ids[r, s] > 0
        ce += w * (-0.9 * log_p[batch.targets[r, s]] - 0.1 * log_p.mean())
        z, weight = z + w * log_z**2, weight + w
    (terms, totals, _), _ = b.evaluate(*b.apart, batch, b.hyper)
    np.testing.assert_allclose(
        objective_value(terms, totals, b.hyper["terms"]), (ce + 0.01 * z) / weight, rtol=1e-6
    )
    # 0.1 is a float32 in `hyper`
    np.testing.assert_allclose([terms["cross_entropy"], terms["z_loss"]], [ce, z], rtol=1e-7)


@pytest.mark.parametrize("b", [lambda: chat(4), lambda: classify(4)], ids=["chat", "classify"])
def test_training_and_evaluation_have_one_loss(b):  # guards A10, E13
    """With the rate of dropout at 0, where evaluation has no dropout at all."""
    b = b()
    _, sums = b.run([1], **({"dropout": np.float32(0)} if b.config.model.dropout else {}))
    (terms, totals, states), _ = b.evaluate(*b.apart, b.batches[1], b.hyper)
    assert_close((sums.terms, sums.totals, sums.states), (terms, totals, states), rtol=1e-12)
    if b.config.model.dropout:
        _, noisy = b.run([1])
        assert abs(float(noisy.terms["cross_entropy"] - terms["cross_entropy"])) > 1e-3


@pytest.mark.parametrize("attention", short(["blocked", "reference"], "reference"))
def test_sums_are_at_least_float32(attention):  # guards A12, H6
    """In bf16, only products (and the rounding of their operands) are in bfloat16: no sum,
    exponential or logarithm is.
    """
    with jax.enable_x64(False):
        b = bench(
            "chat",
            loss=LOSS | {"chunk": 32},
            precision="bf16",
            model={"dropout": 0.1, "attention": attention},
            train={"accumulate": 2},
        )
        closed = jax.make_jaxpr(b.program.step)(b.state(), b.apart[1], b.batches[0], b.hyper)
        state, sums = jax.eval_shape(b.program.step, b.state(), b.apart[1], b.batches[0], b.hyper)
        assert {
            x.dtype
            for x in jax.tree.leaves((state.trainable, sums.terms, sums.totals, sums.grad_norm))
        } == {np.dtype(np.float32)}
        there = list(equations(closed.jaxpr))
        # not another half
        assert not [
            e
            for e in there
            for v in e.outvars
            if getattr(v.aval, "dtype", None) == np.dtype(np.float16)
        ]
        products = [
            {str(v.aval.dtype) for v in e.invars}
            for e in there
            if e.primitive.name == "dot_general"
        ]
        assert {"bfloat16"} in products and not [
            found for found in products if "bfloat16" in found and len(found) > 1
        ]
        low = {
            eqn.primitive.name
            for eqn in equations(closed.jaxpr)
            if any(getattr(v.aval, "dtype", None) == jnp.bfloat16 for v in eqn.outvars)
        }
        assert (
            "dot_general" in {eqn.primitive.name for eqn in equations(closed.jaxpr)}
            and "convert_element_type" in low
        )
        moving = {
            "convert_element_type",
            "transpose",
            "reshape",
            "broadcast_in_dim",
            "squeeze",
            "dynamic_slice",
            "slice",
            "pad",
            "copy",
            "while",
            "scan",
        }
        containers = {
            "pjit",
            "jit",
            "custom_vjp_call",
            "cond",
            "remat2",
            "checkpoint",
            "closed_call",
            "name",
            "gather",
            "optimization_barrier",
        }
        assert low <= moving | containers, low


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


# --- trials
# --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_stacked_trial_equals_its_solo_run():  # guards I6
    """Learning rate, weight decay, dropout, initial weights and order of the data differ; three
    steps.
    """
    options = {
        "loss": LOSS,
        "train": {"batch_size": 4, "accumulate": 2, "ema": 0.9},
        "model": {"dropout": 0.3},
        "optim": optim.OPTIMIZERS["adamw"](clip_norm=0.5),
    }
    options["model"] |= {"layers": 1}
    benches = [
        bench("chat", seed=s, schedule=schema.SCHEDULES["linear"](warmup="1steps"), **options)
        for s in range(3)
    ]
    hypers = [
        b.hyper
        | {
            "learning_rate": np.float32(r),
            "weight_decay": np.float32(d),
            "dropout": np.float32(p),
        }
        for b, r, d, p in zip(
            benches, (1e-2, 3e-2, 1e-3), (0.0, 0.3, 0.1), (0.0, 0.3, 0.5), strict=True
        )
    ]
    assert [int(h["dropout_seed"]) for h in hypers] == [0, 1, 2]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
    together = jax.jit(jax.vmap(benches[0].program.step, in_axes=(0, None, 0, 0)))
    state = stack([b.state() for b in benches])
    for k in range(3):
        state, sums = together(
            state, benches[0].apart[1], stack([b.batches[k] for b in benches]), stack(hypers)
        )
    for i, hyper in enumerate(hypers):
        solo = dataclasses.replace(benches[i])
        solo.__dict__["step"] = benches[0].step  # one program for all of them
        alone, one = solo.run(3, **hyper)
        assert_close(
            (alone, one), jax.tree.map(lambda x: x[i], (state, sums)), rtol=1e-10, atol=1e-11
        )
    assert len({float(x) for x in sums.terms["cross_entropy"]}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimizer_steps_in_a_stack(name):
    """Two steps under jit and vmap: finite, the trial of rate 0 stays, the other one moves every
    weight.
    """
    with jax.enable_x64(False):
        small = {"layers": 1, "embed": 8, "heads": 2, "kv_heads": 1, "mlp": 4, "gated": False}
        b = bench(
            "lm",
            5,
            train={"batch_size": 4},
            data={"packing": False},
            model=small,
            optim=optim.OPTIMIZERS[name](),
            longest=16,
        )
        hyper = jax.tree.map(lambda x: jnp.stack([x, x]), b.hyper) | {
            "learning_rate": jnp.array([0.0, 0.01], jnp.float32)
        }
        step = jax.jit(jax.vmap(b.program.step, in_axes=(0, None, None, 0)))
        state = jax.tree.map(lambda x: jnp.stack([x, x]), b.state())
        for k in range(2):
            state, sums = step(state, b.apart[1], b.batches[k], hyper)
    assert not sums.skipped.any() and all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    for before, after in zip(
        jax.tree.leaves(b.params), jax.tree.leaves(state.trainable), strict=True
    ):
        np.testing.assert_array_equal(after[0], before)
        assert (after[1] != before).any()


# --- frozen weights
# --------------------------------------------------------------------------------------------------
def layer(params, i):
    """A stack of one layer."""
    return jax.tree.map(lambda w: w[i : i + 1], params["layers"]["0"])


def test_frozen_weights_stay_and_the_others_train_as_if_nothing_were_frozen():  # guards G10
    """By the first step, in which both programs have the same weights, and with dropout, whose
    masks belong to layers.
    """
    whole, cut = chat(), chat(freeze=("layers/1/.*", "layers/0/mlp/.*"))
    trained, frozen = cut.apart
    assert (
        sorted(frozen["layers"]) == ["0", "1"]
        and "embed" in trained
        and set(frozen["layers"]["0"]) == {"mlp"}
    )
    assert_same(
        frozen["layers"], {"0": {"mlp": layer(whole.params, 0)["mlp"]}, "1": layer(whole.params, 1)}
    )
    assert set(trained["layers"]) == {"0"} and not {"mlp"} & set(trained["layers"]["0"])
    assert_same(partition.join(partition.merge(trained, frozen)), whole.params)
    assert [start for start, _ in segments(partition.merge(trained, frozen)["layers"])] == [0, 1]
    full, _ = whole.run([1])
    part, sums = cut.run([1])
    assert not sums.skipped
    expected, untouched = partition.partition(
        full.trainable, whole.parts.specs, cut.config.train.freeze
    )
    assert distance(untouched, frozen) > 1e-3 and distance(expected, trained) > 1e-3
    assert_close(part.trainable, expected)


def test_frozen_weights_have_no_state():  # guards G10
    """Neither gradient nor optimizer state nor decay nor average; all shapes, nothing is run."""
    b = bench(
        "chat",
        train={"freeze": ("layers/.*", "embed/.*"), "ema": 0.9},
        optim=optim.OPTIMIZERS["adamw"](learning_rate=3e-4, weight_decay=0.5),
        model={"tied": False},
    )
    state = jax.eval_shape(b.state)
    assert (
        sorted(state.trainable) == ["head", "norm"] == sorted(k for k in state.ema if state.ema[k])
    )
    weights = sum(x.size for x in jax.tree.leaves(state.trainable))
    assert sum(x.size for x in jax.tree.leaves(state.opt) if x.ndim) == 2 * weights
    with pytest.raises(ConfigError, match="nothing to train"):
        bench("chat", train={"freeze": (".*",)}).program  # noqa: B018


# --- penalties, averages, rates
# --------------------------------------------------------------------------------------------------
def test_penalties_add_their_gradient_once():  # guards A5
    """`l |w|` and `l w^2` on what their patterns match, layer by layer, not once per
    micro-batch."""
    rules = (schema.Penalty("l1", "layers/1/mlp/.*", 0.125), schema.Penalty("l2", "embed/.*", 0.25))
    plain, with_penalty = chat(4), chat(4, penalties=rules)
    (a, _), (b, _) = plain.run(1), with_penalty.run(1)
    w, rate = plain.params, 0.5
    found = jax.tree.map(lambda x, y: np.asarray(x - y), a.trainable, b.trainable)
    np.testing.assert_allclose(
        found["embed"]["tokens"]["w"], rate * 0.25 * 2 * w["embed"]["tokens"]["w"], atol=1e-12
    )
    up, sign = found["layers"]["0"]["mlp"]["up"]["w"], np.sign(w["layers"]["0"]["mlp"]["up"]["w"])
    np.testing.assert_allclose(up[1], rate * 0.125 * sign[1], atol=1e-12)
    assert np.abs(up[0]).max() < 1e-14 and np.abs(found["norm"]["scale"]).max() < 1e-14


def test_moving_average():
    """`e <- d e + (1 - d) p`, with d growing to its value; a skipped step does not move it."""
    b, states = averaged(), []
    expected, state = b.params, b.state()
    for t in range(3):
        state, _ = b.run([t], state)
        states.append(state)
        d = min(0.9, (1 + t) / (10 + t))
        expected = jax.tree.map(lambda e, p: d * e + (1 - d) * p, expected, state.trainable)
    assert_close(state.ema, expected, atol=1e-7)  # d is a float32
    assert distance(state.ema, state.trainable) > 1e-5
    assert b.program.weights(state) is state.ema


def test_learning_rate_is_a_function_of_the_step():  # guards H1
    """Also after a skipped step, and for any number of micro-batches."""

    def rates(b):
        state, found = b.state(), []
        for k in range(4):
            bad = (
                {"terms": {"cross_entropy": np.float32(np.nan), "z_loss": np.float32(0)}}
                if k == 1
                else {}
            )
            state, sums = b.run([k], state, **bad)
            found.append(float(sums.learning_rate))
        assert state.skipped == 1
        return found

    np.testing.assert_allclose(rates(chat()), [0.5 / np.sqrt(1 + k) for k in range(4)], rtol=1e-6)
    assert rates(chat(4)) == rates(chat())
