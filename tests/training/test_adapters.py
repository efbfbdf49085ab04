"""Whole runs with an adapter: what a checkpoint holds, going on, starting from one, merging."""

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxsft import api
from jaxsft.config import adapters as options
from jaxsft.config import optim, schema
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.sharding.weights import flatten
from jaxsft.training import loop, runs
from jaxsft.training.checkpoint import Checkpoints
from tests import tiny

DORA = options.DoRA(rank=2, dropout=0.1, lr_ratio=4.0)
MODEL = {"layers": 2, "embed": 16, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 32, "context": 128, "unroll": "none", "causal": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, and the run that the others start from."""
    folder = tiny.data(tmp_path_factory.mktemp("data"))
    loop.train(configured(folder, "base", train={"duration": "2steps"}))
    return folder


def configured(folder, name, **groups):
    groups["train"] = {"duration": "4steps", "batch_size": 4, "log_every": "1steps"} | groups.get("train", {})
    groups = {"checkpoint": {"every": "2steps"}, "evaluation": {"generate": "never", "every": "2steps"}, "schedule": schema.Constant()} | groups
    return tiny.config(folder, folder / name, task="classify", model=MODEL, **groups)


def test_a_run_goes_on_and_its_checkpoint_holds_the_adapter_and_the_head(place):  # guards F2, G6, G10
    """Stopped and continued, to the bit; the base stays in the run that it came from, and must be the same."""
    begun = {"init_from": str(place / "base")}
    loop.train(configured(place, "whole", adapter=DORA, train=begun))
    loop.train(configured(place, "parts", adapter=DORA, train=begun | {"duration": "2steps"}))
    loop.train(configured(place, "parts", adapter=DORA, train=begun))
    whole, parts = (tiny.outcome(place / name) for name in ("whole", "parts"))
    assert whole["result"] == parts["result"] and whole["predictions"] == parts["predictions"]
    line = next(x for x in whole["metrics"] if x["kind"] == "train")
    assert line["learning_rate_adapters_b"] == pytest.approx(4 * line["learning_rate"])
    checkpoints = Checkpoints(place / "whole")
    leaves = checkpoints.meta(checkpoints.steps()[-1])["leaves"]
    checkpoints.close()
    assert {name.split("/")[1] for name in leaves["state"] if name.startswith("trainable/")} == {"adapters", "head"}
    assert {name.rsplit("/", 1)[-1] for name in leaves["base"]} == {"square"}

    run, base = runs.open_run(place / "whole"), runs.open_run(place / "base")
    held = flatten(base.params)
    assert all(np.array_equal(value, held[path]) for path, value in flatten(run.frozen).items() if not path.startswith("adapters/"))

    same = api.load(place / "whole").evaluate(str(place / "labels_held.jsonl"))
    still = {"optim": optim.AdamW(learning_rate=0.0, weight_decay=0.0)}
    merged = loop.train(configured(place, "merged", train={"init_from": str(place / "whole"), "duration": "1steps"}, **still))
    assert merged.numbers["validation/loss"] == pytest.approx(same["rows/loss"] if "rows/loss" in same else same["loss"], rel=1e-5)
    assert "adapters" not in runs.open_run(place / "merged").params

    more = {"init_from": str(place / "whole"), "duration": "1steps"}
    again = loop.train(configured(place, "again", adapter=dataclasses.replace(DORA, dropout=0.0), train=more, **still))
    assert again.numbers["validation/loss"] == pytest.approx(merged.numbers["validation/loss"], rel=1e-5)
    moved = flatten(runs.open_run(place / "again").params["adapters"])
    assert all(np.array_equal(moved[path], value) for path, value in flatten(run.params["adapters"]).items())  # the adapter went on

    loop.train(configured(place, "other", seed=3, train={"duration": "2steps"}))
    text = (place / "whole" / "config.yaml").read_text(encoding="utf-8")
    (place / "whole" / "config.yaml").write_text(text.replace(str(place / "base"), str(place / "other")), encoding="utf-8")
    with pytest.raises(CheckpointError, match="are not those that this run was trained with"):
        runs.open_run(place / "whole")


def test_a_run_is_exported_merged_or_as_an_adapter_which_another_starts_from(place, tmp_path):  # guards G1, G2
    """Beside the base that it was trained on, in float32; an adapter that is read has the bits that were written."""
    lora = options.LoRA(rank=2, alpha=3.0, target=("layers/.*/(q|down)",))
    shared = {"optim": optim.AdamW(learning_rate=0.05), "model": MODEL | {"causal": True}, "evaluation": {"generate": "never"}}
    train = {"duration": "2steps", "batch_size": 4}
    loop.train(tiny.config(place, tmp_path / "lora", task="lm", adapter=lora, train=train, **shared))
    run = runs.open_run(tmp_path / "lora")
    api.export(tmp_path / "lora", tmp_path / "merged")
    api.export(tmp_path / "lora", tmp_path / "peft", adapter="peft")

    found, own = load_file(tmp_path / "merged" / "model.safetensors"), flatten(run.params)
    a, b = (np.asarray(own[f"adapters/layers/0/attention/q/{name}"][1], np.float64) for name in "ab")
    w = np.asarray(own["layers/0/attention/q/w"][1], np.float64).reshape(16, 16) + 1.5 * a @ b.reshape(2, 16)
    np.testing.assert_allclose(found["model.layers.1.self_attn.q_proj.weight"], w.T, rtol=1e-5, atol=1e-6)
    assert not [name for name in found if "lora" in name]

    still = {"optim": optim.AdamW(learning_rate=0.0, weight_decay=0.0)}
    other = dataclasses.replace(lora, start_from=str(tmp_path / "peft"))
    loop.train(tiny.config(place, tmp_path / "other", task="lm", adapter=other, train=train | {"duration": "1steps"}, **shared | still))
    there = flatten(runs.open_run(tmp_path / "other").params)
    assert all(np.array_equal(there[path], value) for path, value in own.items())
    with pytest.raises(ConfigError, match="has no adapter"):
        api.export(place / "base", tmp_path / "none", adapter="peft")
