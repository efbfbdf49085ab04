"""Pruning: which weights become zero and when, that they stay so, and a run that is pruned."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxsft import api
from jaxsft.config.prune_options import PruneConfig
from jaxsft.errors import ConfigError
from jaxsft.sharding.weight_spec import WeightSpec
from jaxsft.training import loop, pruning
from tests import tiny
from tests.conftest import bench, make_config

UP = WeightSpec((2, 8, 6), np.float32, ("layers", "embed", "mlp"), 1)
DOWN = WeightSpec((2, 6, 8), np.float32, ("layers", "mlp", "embed"), 1)
SPECS = {"layers": {"0": {"mlp": {"up": {"w": UP}, "down": {"w": DOWN}}}}}
HYPER = {"prune_begin": 2, "prune_end": 10, "prune_every": 4, "sparsity": 0.75}


def made(**options):
    config = dataclasses.replace(make_config("classify"), prune=PruneConfig(**options))
    return pruning.Pruning(config, SPECS)


def weights(seed):
    rng = np.random.default_rng(seed)
    draw = lambda spec: rng.normal(size=spec.shape).astype(np.float32)
    return jax.tree.map(draw, SPECS)


def steps(one, count=13):
    """Returns the weights after each of some steps, in which all weights move."""
    run = jax.jit(
        lambda w, more, t: one.weights(w, jax.tree.map(lambda a, b: a + b, w, more), t, HYPER)
    )
    out = [weights(0)]
    for t in range(count):
        out.append(run(out[-1], jax.tree.map(lambda x: 0.01 * x, weights(t + 1)), t))
    return [jax.tree.leaves(jax.device_get(tree)) for tree in out]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_smallest_become_zero_along_the_cubic_and_stay_so(scope):
    found = steps(made(kind="magnitude", scope=scope))
    for t, (before, after) in enumerate(itertools.pairwise(found)):
        last = max((s for s in (2, 6, 10) if s <= t), default=None)
        share = 0 if last is None else 0.75 * (1 - (1 - (last - 2) / 8) ** 3)
        layers = [layer for leaf in after for layer in leaf]
        if scope == "layer":
            for layer in layers:
                assert (layer == 0).sum() == int(share * layer.size), t
        else:
            every = np.concatenate([layer.reshape(-1) for layer in layers])
            assert (every == 0).sum() == int(share * every.size), t
            counts = {int((layer == 0).sum()) for layer in layers}
            assert share == 0 or len(counts) > 1
        for old, new in zip(before, after, strict=True):
            assert (new[old == 0] == 0).all(), t
            if t == last and (old != 0).any():  # 0.01 apart: what a step may have changed
                gone, kept = np.abs(old[(new == 0)]), np.abs(new[new != 0])
                assert scope == "layer" or not gone.size or gone.max() < kept.min() + 0.1


@pytest.mark.parametrize("kind", ["magnitude", "2:4"])
def test_zeros_come_when_they_are_due_in_a_step_that_is_skipped(kind):
    """One without targets, at the only time when the last zeros are made."""
    given = {"begin": "1steps"} | ({"end": "2steps"} if kind == "magnitude" else {})
    b = bench("classify", 4, model={"layers": 1}, prune={"kind": kind, **given})
    empty = b.batches[0]
    empty = empty._replace(segment={**empty.segment, "weight": 0 * empty.segment["weight"]})
    state = b.state()
    for batch in (b.batches[0], *[empty] * 3):
        state, metrics = b.step(state, b.apart[1], batch, b.hyper)
    assert int(state.skipped) == 3 and bool(metrics.skipped)
    up = np.asarray(state.trainable["layers"]["0"]["mlp"]["up"]["w"])
    assert (up == 0).sum() == up.size // 2


def test_two_of_each_four_inputs_are_kept():
    found = steps(made(kind="2:4", weights=("layers/.*/up/w",)), 5)
    down, up = found[-1]
    zeros = (up.reshape(2, 2, 4, 6) == 0).sum(2)
    assert (zeros == 2).all() and not (down == 0).any()
    _, start = found[2]
    groups, kept = np.abs(start.reshape(2, 2, 4, 6)), up.reshape(2, 2, 4, 6) != 0
    least = np.where(kept, groups, np.inf).min(2)
    assert (least + 0.1 > np.where(kept, 0, groups).max(2)).all()
    with pytest.raises(ConfigError, match="a matrix with 6 inputs has no groups of four"):
        made(kind="2:4").pruned  # noqa: B018


def test_what_cannot_be_pruned_is_refused():
    spec = {"norm": {"scale": WeightSpec((8,), np.float32, ("embed",))}, **SPECS}
    one = dataclasses.replace(made(kind="magnitude", weights=("norm/.*",)), specs=spec)
    with pytest.raises(ConfigError, match="a weight that is no matrix"):
        one.pruned  # noqa: B018
    with pytest.raises(ConfigError, match=r"prune\.weights"):
        made(kind="magnitude", weights=("head/.*",)).pruned  # noqa: B018
    with pytest.raises(ConfigError, match="layers of one stack are pruned alike"):
        made(kind="magnitude", weights=("layers/1/.*",)).pruned  # noqa: B018
    for hyper, message in (
        (HYPER, "is step 10, but the run has 10 steps"),
        (HYPER | {"prune_end": 1}, "comes before prune.begin"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(kind="magnitude").check(hyper, 10)


@pytest.mark.slow
def test_a_pruned_run_is_chosen_and_exported_with_its_zeros(tmp_path):
    """A checkpoint from before the last zeros is never the best, however good it was."""
    files = tiny.data(tmp_path)
    prune = PruneConfig(kind="magnitude", sparsity=0.8, end="5steps", every="2steps")
    model = {"causal": True, "layers": 1}
    small = {"embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 32, "context": 128}
    optim = dataclasses.replace(make_config("lm").optim, learning_rate=1e-6)
    config = tiny.config(
        files,
        tmp_path / "run",
        task="lm",
        model=small | model,
        prune=prune,
        optim=optim,
        data={"train": str(files / "book.txt"), "validation": str(files / "book.txt")},
        train={"duration": "8steps", "batch_size": 4},
        checkpoint={"every": "4steps"},
    )
    loop.train(config)
    assert tiny.meta(tmp_path / "run", 8)["best"]["step"] == 8
    api.export(tmp_path / "run", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
        w = found[f"model.layers.0.{name}.weight"]
        assert (w == 0).sum() == int(np.float32(0.8) * w.size)
    for given, message in (
        ({"ema": 0.9}, "train.ema"),
        ({"duration": "5steps"}, "prune.end=5steps"),
    ):
        train = dataclasses.replace(config.train, **given)
        with pytest.raises(ConfigError, match=message):
            loop.train(dataclasses.replace(config, train=train, run_dir=str(tmp_path / "no")))
