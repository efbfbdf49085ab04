"""Frozen weights in few bits under an adapter: going on, checkpoints, stacks, export."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxsft import api, quantised
from jaxsft.config import adapters as options
from jaxsft.config.adapters import NoAdapter
from jaxsft.errors import ConfigError
from jaxsft.sharding.weights import flatten
from jaxsft.training import loop, runs, stack
from tests import tiny

LORA = options.LoRA(rank=2, target=(".*/(q|down)",))
STEPS = {"duration": "2steps", "batch_size": 4, "log_every": "1steps"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def config(files, folder, kind="nf4", task="classify", model=None, **groups):
    given = {"causal": task == "lm", "unroll": "none", "layers": 1, "frozen_dtype": kind}
    small = {"embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 32, "context": 128}
    groups = {
        "adapter": LORA,
        "train": STEPS,
        "checkpoint": {"every": "1steps"},
        "evaluation": {"generate": "never", "every": "1steps"},
    } | groups
    return tiny.config(files, folder, task=task, model=small | given | (model or {}), **groups)


def held_in(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=quantised.are)[0]
    return {jax.tree_util.keystr(path) for path, leaf in leaves if quantised.are(leaf)}


@pytest.mark.slow
def test_a_run_over_few_bits_goes_on_and_is_exported_as_it_was_trained(files, tmp_path):
    """Stopped and continued, to the bit: a base that is made again is that of a checkpoint. The
    files have the widened weight with `scale a b`.
    """
    saved = {"every": "1steps", "include_base": True}
    loop.train(config(files, tmp_path / "whole", task="lm", checkpoint=saved))
    for steps in ("1steps", "2steps"):
        loop.train(config(files, tmp_path / "parts", task="lm", train=STEPS | {"duration": steps}))
    whole, parts = (tiny.outcome(tmp_path / name) for name in ("whole", "parts"))
    assert whole["result"] == parts["result"]
    run, other = (runs.open_run(tmp_path / name) for name in ("whole", "parts"))
    assert len(held_in(run.frozen)) == 7  # not the embedding: logits read it too
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)
    stored = [tiny.meta(tmp_path / name, 2)["leaves"]["base"] for name in ("whole", "parts")]
    assert "layers/0/mlp/up/w/codes" in stored[0] and not stored[1]

    api.export(tmp_path / "whole", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    leaves = flatten(quantised.widened(run.params))
    w, a, b = (
        np.asarray(leaves[f"{place}layers/0/mlp/down/{name}"][0], np.float64)
        for place, name in (("", "w"), ("adapters/", "a"), ("adapters/", "b"))
    )
    name = "model.layers.0.mlp.down_proj.weight"
    np.testing.assert_allclose(found[name], (w + 8 * a @ b).T, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_trials_of_a_stack_share_a_base_of_few_bits(files, tmp_path):
    """DoRA, whose lengths of columns are those of the weights as they are held."""
    dora = options.DoRA(rank=2, target=(".*/q",))
    made = lambda name, alpha: config(
        files, tmp_path / name, "int8", adapter=dataclasses.replace(dora, alpha=alpha)
    )
    solo = loop.train(made("solo", 4.0)).numbers
    stacked = stack.train_stack([made("stack", 4.0), made("other", 16.0)])
    for name, value in solo.items():
        assert stacked[0].numbers[name] == pytest.approx(value, rel=1e-5), name
    assert stacked[0].numbers != stacked[1].numbers
    run = runs.open_run(tmp_path / "solo")
    assert len(held_in(run.frozen)) == 8
    w = np.asarray(run.frozen["layers"]["0"]["attention"]["q"]["w"].dense())
    square = run.frozen["adapters"]["layers"]["0"]["attention"]["q"]["square"]
    np.testing.assert_allclose(np.square(w).sum(1), square, rtol=1e-5)


def test_few_bits_need_a_frozen_linear_layer(files, tmp_path):
    for given, message in (
        ({"adapter": NoAdapter()}, "model.frozen_dtype=nf4: is read with"),
        (
            {"adapter": NoAdapter(), "train": STEPS | {"freeze": ["norm/.*"]}},
            "no linear layer is frozen",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            loop.train(config(files, tmp_path / "run", **given))
