"""Whole runs with an adapter: what a checkpoint holds, going on, starting from one, merging."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxsft
from jaxsft import api
from jaxsft.config import adapters as options
from jaxsft.config import compose, optim, schema
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.rundir import read_json
from jaxsft.sharding.weights import flatten
from jaxsft.training import export, loop, runs
from jaxsft.training.checkpoint import Checkpoints
from tests import tiny

DORA = options.DoRA(rank=2, dropout=0.1, lr_ratio=4.0)
MODEL = {
    "layers": 2,
    "embed": 16,
    "heads": 2,
    "kv_heads": 2,
    "head_dim": 8,
    "mlp": 32,
    "context": 128,
    "unroll": "none",
    "causal": False,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, and the run that the others start from."""
    folder = tiny.data(tmp_path_factory.mktemp("data"))
    loop.train(configured(folder, "base", train={"duration": "1steps"}))
    return folder


def configured(folder, name, **groups):
    groups["train"] = {"duration": "2steps", "batch_size": 4, "log_every": "1steps"} | groups.get(
        "train", {}
    )
    groups = {
        "checkpoint": {"every": "1steps"},
        "evaluation": {"generate": "never", "every": "1steps"},
        "schedule": schema.SCHEDULES["constant"](warmup="0steps"),
    } | groups
    return tiny.config(folder, folder / name, task="classify", model=MODEL, **groups)


@pytest.mark.slow
# guards F2, G6, G10
def test_a_run_goes_on_and_its_checkpoint_holds_the_adapter_and_the_head(place):
    """Stopped and continued, to the bit; the base stays in the run that it came from."""
    begun = {"init_from": str(place / "base")}
    loop.train(configured(place, "whole", adapter=DORA, train=begun))
    loop.train(configured(place, "parts", adapter=DORA, train=begun | {"duration": "1steps"}))
    loop.train(configured(place, "parts", adapter=DORA, train=begun))
    whole, parts = (tiny.outcome(place / name) for name in ("whole", "parts"))
    assert whole["result"] == parts["result"] and whole["predictions"] == parts["predictions"]
    line = next(x for x in whole["metrics"] if x["kind"] == "train")
    assert line["learning_rate_adapters_b"] == pytest.approx(4 * line["learning_rate"])
    checkpoints = Checkpoints(place / "whole")
    leaves = tiny.meta(place / "whole", checkpoints.steps()[-1])["leaves"]
    checkpoints.close()
    assert {name.split("/")[1] for name in leaves["state"] if name.startswith("trainable/")} == {
        "adapters",
        "head",
    }
    assert {name.rsplit("/", 1)[-1] for name in leaves["base"]} == {"square"}
    held, frozen = (
        flatten(runs.open_run(place / "base").params),
        flatten(runs.open_run(place / "whole").frozen),
    )
    assert all(
        np.array_equal(value, held[path])
        for path, value in frozen.items()
        if not path.startswith("adapters/")
    )


@pytest.mark.slow
def test_another_run_starts_from_one_with_an_adapter(place):  # guards F2, F3, G1
    """Merged where it has no adapter, going on where it has the same. The base of a run must be the
    one that it was trained on.
    """
    loop.train(configured(place, "first", adapter=DORA, train={"init_from": str(place / "base")}))
    first, expected = (
        runs.open_run(place / "first"),
        read_json(place / "first" / "result.json")["validation/loss"],
    )
    still = {"optim": optim.OPTIMIZERS["adamw"](learning_rate=0.0, weight_decay=0.0)}
    more = {"init_from": str(place / "first"), "duration": "1steps"}
    merged = loop.train(configured(place, "merged", train=more, **still))
    assert merged.numbers["validation/loss"] == pytest.approx(expected, rel=1e-5)
    assert "adapters" not in runs.open_run(place / "merged").params
    loop.train(
        configured(
            place, "again", adapter=dataclasses.replace(DORA, dropout=0.0), train=more, **still
        )
    )
    moved = flatten(runs.open_run(place / "again").params["adapters"])
    assert all(
        np.array_equal(moved[path], value)
        for path, value in flatten(first.params["adapters"]).items()
    )

    text = (place / "first" / "config.yaml").read_text(encoding="utf-8")
    (place / "first" / "config.yaml").write_text(
        text.replace(str(place / "base"), str(place / "merged")), encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match="is not as it was written"):
        runs.open_run(place / "first")
    tiny.unsealed(place / "first")  # as a run from before there were hashes
    with pytest.raises(CheckpointError, match="are not those that this run was trained with"):
        runs.open_run(place / "first")


# guards G1, G2
def test_a_run_is_exported_merged_or_as_an_adapter_which_another_starts_from(place, tmp_path):
    """Beside the base that it was trained on, in float32; an adapter that is read has the bits that
    were written.
    """
    lora = options.LoRA(
        rank=2,
        alpha=3.0,
        target=("layers/.*/(q|down)",),
        train=("norm/.*", "layers/.*/mlp_norm/.*"),
    )
    shared = {
        "optim": optim.OPTIMIZERS["adamw"](learning_rate=0.05),
        "model": MODEL | {"causal": True},
        "evaluation": {"generate": "never"},
    }
    train = {"duration": "2steps", "batch_size": 4}
    loop.train(
        tiny.config(place, tmp_path / "lora", task="lm", adapter=lora, train=train, **shared)
    )
    run = runs.open_run(tmp_path / "lora")
    api.export(tmp_path / "lora", tmp_path / "merged")
    api.export(tmp_path / "lora", tmp_path / "peft", adapter="peft")

    found, own = load_file(tmp_path / "merged" / "model.safetensors"), flatten(run.params)
    a, b = (
        np.asarray(own[f"adapters/layers/0/attention/q/{name}"][1], np.float64) for name in "ab"
    )
    w = np.asarray(own["layers/0/attention/q/w"][1], np.float64).reshape(
        16, 16
    ) + 1.5 * a @ b.reshape(2, 16)
    np.testing.assert_allclose(
        found["model.layers.1.self_attn.q_proj.weight"], w.T, rtol=1e-5, atol=1e-6
    )
    assert not [name for name in found if "lora" in name]
    saved = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    for name in ("model.norm.weight", "model.layers.1.post_attention_layernorm.weight"):
        np.testing.assert_array_equal(saved[f"base_model.model.{name}"], found[name])
    assert len([name for name in saved if "lora" not in name]) == 3

    still = {"optim": optim.OPTIMIZERS["adamw"](learning_rate=0.0, weight_decay=0.0)}
    other = dataclasses.replace(lora, start_from=str(tmp_path / "peft"))
    loop.train(
        tiny.config(
            place,
            tmp_path / "other",
            task="lm",
            adapter=other,
            train=train | {"duration": "1steps"},
            **shared | still,
        )
    )
    there = flatten(runs.open_run(tmp_path / "other").params)
    assert all(np.array_equal(there[path], value) for path, value in own.items())
    with pytest.raises(ConfigError, match="has no adapter"):
        api.export(place / "base", tmp_path / "none", adapter="peft")


def test_an_adapter_that_goes_on_stands_on_the_base_of_the_first_run(tmp_path):
    """PEFT would open the other run as exported, with its adapter merged, and add it once more."""
    base, first = tmp_path / "base", tmp_path / "first"
    for folder in (base, first):
        folder.mkdir()
    (base / "config.json").write_text("{}", encoding="utf-8")
    lora = ("task=lm", "data.train=a.txt", "adapter=lora")
    run = jaxsft.compose(*lora, f"model.pretrained={base}")
    assert export.adapter_base(run) == str(base)
    (first / "config.yaml").write_text(compose.to_yaml(run), encoding="utf-8")
    for option in ("model.pretrained", "train.init_from"):
        again = jaxsft.compose(*lora, f"{option}={first}")
        assert export.adapter_base(again) == str(base)
        other = jaxsft.compose(*lora, f"{option}={first}", "adapter.rank=2")
        assert export.adapter_base(other) == str(first)
    assert export.adapter_base(jaxsft.compose(*lora)) is None
    trained = jaxsft.compose(*lora, f"model.pretrained={base}", "adapter.train=[norm/.*]")
    (first / "config.yaml").write_text(compose.to_yaml(trained), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"trained norm/\.\* beside the adapter"):
        export.adapter_base(jaxsft.compose(*lora, f"train.init_from={first}"))
