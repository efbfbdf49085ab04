"""`jaxsft plan`: what is compiled, and what is told of it."""

import importlib.util
import json

import pytest

from jaxsft import cli, planning
from jaxsft.config.overrides import composed
from jaxsft.errors import ConfigError
from jaxsft.planning.chips import Topology
from jaxsft.planning.costs import Costs

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(LLAMA))
    return str(tmp_path / "llama")


def overrides_of(*words):
    config = composed(["task=lm", *words])
    name, slices = config.plan.topology, config.plan.slices
    topology = Topology.of(name, slices) if name else None
    return [one.overrides for one in planning.candidates(config, topology)]


def test_what_nobody_asked_for_is_chosen():
    spread = [("mesh.data=4", "mesh.fsdp=4"), ("mesh.data=1", "mesh.fsdp=16")]
    spread = [(*one, "mesh.tensor=1", "train.batch_size=16") for one in spread]
    both = [(*one, *more) for more in planning.REMAT[1:] for one in spread]
    assert overrides_of("plan.topology=v5e:4x4") == both
    given = ["mesh.fsdp=4", "train.batch_size=32", "model.remat=true"]
    assert overrides_of("plan.topology=v5e:4x4", *given) == [()]
    assert len(overrides_of("plan.topology=v5e:4x4", "plan.search=true")) == 5 * 3 * 4
    assert overrides_of() == list(planning.REMAT)
    # slices have copies of the weights
    two = {one[:2] for one in overrides_of("plan.topology=v5p:2x2x4", "plan.slices=2")}
    assert two == {("mesh.data=4", "mesh.fsdp=8"), ("mesh.data=2", "mesh.fsdp=16")}


def test_a_plan_for_devices_that_are_not_there(folder, tmp_path, capsys):
    out = tmp_path / "plan.json"
    words = ["task=lm", f"model.pretrained={folder}", "plan.devices=2", "data.max_length=64"]
    words += ["train.batch_size=4", "model.remat=false", f"output={out}"]
    words += ["plan.decode=true", "generate.batch_size=2", "generate.max_new_tokens=64"]
    assert cli.main(["plan", *words]) == 0
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "rows of 64 tokens" in text and "all-reduce" in text
    # keys and values of both layers, one row a device, 128 slots, in float32
    cache = 2 * 2 * 2 * 32 * 128 * 4
    assert "decoding" in text and found["decode_memory_bytes"] > cache
    weights = 2 * 512 * 128 + 2 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256 + 256) + 128
    assert found["parameters"] == weights
    assert found["state_bytes"]["trained weights"] == 4 * weights
    assert found["devices"] == 2 and found["memory_bytes"] > 12 * weights
    # products of weights, forward and twice backward; scores of causal attention by half; the
    # gradient of the embedding's inputs is not needed
    tokens, matrices = 4 * 64, weights - 5 * 128 - 512 * 128
    least = (6 * tokens * matrices + 3 * 4 * 128 * 4 * 64 * 65 / 2 * 2) / 2
    assert found["model_flops"] == pytest.approx(least)
    assert found["flops"] == pytest.approx(found["model_flops"], rel=0.2)


@pytest.mark.parametrize(
    "words, what",
    [
        (["task=classify"], "give data.train=FILE"),
        (["task=lm", "topology=v5p:4x4"], "expected 3 axes"),
        (["task=lm", "topology=v9:4x4"], "plan.topology"),
        (["task=lm", "topology=v5e:4x4", "plan.devices=2"], "give one of the two"),
        (["task=lm", "plan.tokens=1e9"], "plan.tokens"),
        (["task=lm", "plan.slices=2"], "plan.slices"),
        (["task=lm", "plan.devices=3", "mesh.data=2", "mesh.fsdp=2"], "needs 4 devices"),
    ],
)
def test_what_cannot_be_planned(words, what, capsys):
    assert cli.main(["plan", *words, "train.batch_size=8", "model.remat=false"]) == 1
    assert what in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed (the extra `aot`)",
)
def test_a_plan_for_a_pod(folder, tmp_path):
    given = ["data.max_length=1024", "train.batch_size=16", "mesh.fsdp=16", "mesh.data=1"]
    words = ["task=lm", f"model.pretrained={folder}", "plan.topology=v5e:4x4", *given]
    lines = []
    found = planning.plan(composed([*words, "model.remat=false"]), lines.append)
    assert found["fits"] and found["attention"] == "splash" and found["platform"] == "tpu"
    # the kernel computes whole tiles of scores, and these rows have one
    assert found["model_flops"] < found["flops"] < 2 * found["model_flops"]
    assert 0 < found["mfu_serial"] < found["mfu_bound"] < 1
    assert "fits" in lines[0] and "MFU" in "\n".join(planning.told(found))


def test_meshes_are_compared_where_one_fits(monkeypatch):
    """All that compute as much again; what computes more is not compiled."""
    tried = []

    def measured(candidate, _):
        mesh, again = candidate.overrides[1], candidate.again
        tried.append((mesh, again))
        seconds = {"mesh.fsdp=4": 2.0, "mesh.fsdp=16": 1.0}[mesh]
        one = {"fits": again == 1, "memory_bytes": 1e9, "hbm_limit": 1.0, "topology": "v5e:4x4"}
        one |= {"overrides": candidate.overrides, "tokens": 16, "mfu_bound": 1, "mfu_serial": 1}
        return one | {"step_seconds_bound": seconds, "step_seconds_serial": seconds}

    monkeypatch.setattr(planning, "_measured", measured)
    found = planning.plan(composed(["task=lm", "plan.topology=v5e:4x4"]))
    assert found["overrides"][1] == "mesh.fsdp=16"
    assert tried == [(f"mesh.fsdp={n}", again) for again in (0, 1) for n in (4, 16)]


def test_no_error_is_swallowed(monkeypatch):
    def refuse(*_):
        raise ConfigError("nothing compiles")

    monkeypatch.setattr(planning, "_measured", refuse)
    with pytest.raises(ConfigError, match="nothing compiles"):
        planning.plan(composed(["task=lm"]))


def test_hours_and_cost_of_a_run(monkeypatch):
    """A step of 1e12 FLOPs for 1,000 tokens on each of sixteen chips of 197e12 a second."""
    facts = {"tokens": 16_000, "model_flops": 1e12, "state_bytes": {}}
    step = {"facts": facts, "costs": Costs(1e12, {}, 0.0, (), 0), "memory": {}}
    monkeypatch.setattr(planning, "compiled", lambda *_: step | {"memory_bytes": 1e9})
    words = ["task=lm", "plan.topology=v5e:4x4", "plan.tokens=1e9", "plan.dollars=2"]
    found = planning.plan(composed(words))
    hours = 1e9 / (16_000 * 197) / 3600
    assert found["hours_bound"] == pytest.approx(hours)
    assert found["dollars_bound"] == pytest.approx(hours * 16 * 2)
    assert found["mfu_bound"] == pytest.approx(1) and found["fits"]
