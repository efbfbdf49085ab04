"""Adapters of fused layers and of tied weights, back from the format of PEFT."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxsft.config import adapters as options
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import peft_read, peft_write, pretrained_folder
from jaxsft.sharding.weights import flatten
from tests.hf.test_peft_write import (
    FUSED,
    ROWWISE,
    logits,
    merged_tensors,
    model_of,
    with_read,
    written,
)

IDS = np.arange(2, 11, dtype=np.int32)[None]
CASES = {name: FUSED[name] for name in ("phi3", "gpt2", "gpt_neox", "llama_tied_biases")}
CASES |= {"phi3 dora": ROWWISE["phi3"], "gpt2 ia3": options.IA3(target=("layers/.*/(k|v)",))}
PARTS = {
    "phi3": "layers/.*/(q|k|v)",
    "gpt2": "layers/.*/attention/(q|k|v)",
    "gpt_neox": "layers/.*/(q|k|v)",
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_read_to_the_bit(name, tmp_path):  # guards G1
    _, params, _, _ = written(name.split()[0], CASES[name], tmp_path)
    _, fresh, how = model_of({"base": name.split()[0]}, CASES[name], tmp_path)
    found = with_read(fresh, peft_read.read(tmp_path / "out", CASES[name], flatten(fresh), **how))
    before, after, start = (flatten(tree["adapters"]) for tree in (params, found, fresh))
    assert before.keys() == after.keys() and any(
        np.abs(start[path] - before[path]).max() > 0.01 for path in start
    )
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)


def trained(name, config, tmp_path, change=None):
    """(model, parameters read, tensors, family) of a folder as PEFT trains it: one pair of factors
    for a fused layer.
    """
    model, fresh, how = model_of({"base": name}, config, tmp_path)
    about = {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": config.alpha,
    }
    rng, tensors = np.random.default_rng(0), {}
    for module in {
        m.theirs: m
        for p, m in peft_write.modules(how["family"], how["head"], how["specs"]).items()
        if p.endswith("/q")
    }.values():
        inputs, outputs = module.spec.matrix[0], sum(spec.matrix[1] for _, spec in module.parts)
        tensors[f"{peft_write.ROOT}{module.theirs}.lora_A.weight"] = rng.standard_normal(
            (config.rank, inputs)
        ).astype(np.float32)
        tensors[f"{peft_write.ROOT}{module.theirs}.lora_B.weight"] = rng.standard_normal(
            (outputs, config.rank)
        ).astype(np.float32)
    ends = {key.removesuffix(".lora_A.weight").rpartition(".")[2] for key in tensors}
    about["target_modules"] = sorted(end for end in ends if end != "weight")
    folder = tmp_path / "peft"
    folder.mkdir()
    if change:
        change(about, tensors)
    (folder / peft_write.CONFIG).write_text(json.dumps(about), encoding="utf-8")
    save_file(tensors, folder / peft_write.WEIGHTS)
    return model, with_read(fresh, peft_read.read(folder, config, flatten(fresh), **how)), tensors


@pytest.mark.parametrize("name", PARTS)
def test_one_adapter_of_a_fused_layer_is_three_of_its_parts(name, tmp_path):  # guards G1
    """Merged, the whole layer is `W + scale B A`, computed here with the tensors of the two
    folders.
    """
    config = options.LoRA(rank=2, alpha=3.0, target=(PARTS[name],))
    model, params, tensors = trained(name, config, tmp_path)
    source = pretrained_folder.open_source(tmp_path / "base")
    after = {
        key.removeprefix(source.family.prefix): x
        for key, x in merged_tensors(model, config, params, source).items()
    }
    before = {
        key.removeprefix(source.family.prefix): np.asarray(source.tensors.read(key), np.float64)
        for key in source.tensors
    }
    for key in (key for key in tensors if "lora_A" in key):
        module = key.removeprefix(peft_write.ROOT + source.family.prefix).removesuffix(
            ".lora_A.weight"
        )
        delta = 1.5 * tensors[key.replace("lora_A", "lora_B")].astype(np.float64) @ tensors[key]
        expected = before[f"{module}.weight"] + (delta.T if name == "gpt2" else delta)
        np.testing.assert_allclose(after[f"{module}.weight"], expected, rtol=1e-5, atol=1e-5)


REFUSED = {
    "part": (
        ("layers/.*/(q|v)",),
        None,
        "changes layers/0/attention/k, which has no adapter here; add it to adapter.target",
    ),
    "rank": (
        (PARTS["phi3"],),
        lambda about, _: about.update(rank_pattern={"layers.0.self_attn.qkv_proj": 4}),
        "has rank 4, expected 2 or 6",
    ),
    "pattern": (
        (PARTS["phi3"],),
        lambda about, _: about.update(rank_pattern={"down_proj": 2}),
        "rank_pattern has down_proj, which is no module",
    ),
}


def test_another_scale_of_a_layer_is_in_its_second_factor(tmp_path):
    config = options.LoRA(rank=2, alpha=3.0, target=(PARTS["phi3"],))
    change = lambda about, _: about.update(alpha_pattern={"layers.0.self_attn.qkv_proj": 9})
    for folder in ("plain", "scaled"):
        (tmp_path / folder).mkdir()
    plain, scaled = (
        trained("phi3", config, tmp_path / folder, how)[1]
        for folder, how in (("plain", None), ("scaled", change))
    )
    for path, value in flatten(scaled["adapters"]).items():
        times = (
            np.ones(len(value))
            if path.endswith("/a")
            else np.where(np.arange(len(value)) == 0, 3, 1)
        )
        expected = np.asarray(flatten(plain["adapters"])[path])
        np.testing.assert_allclose(
            value, expected * times.reshape(-1, *[1] * (value.ndim - 1)), rtol=1e-6
        )


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_parts_cannot_say_is_an_error(name, tmp_path):
    target, change, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        trained("phi3", options.LoRA(rank=2, alpha=3.0, target=target), tmp_path, change)


@pytest.mark.parametrize(
    "about, message",
    [
        ([1], r"adapter_config.json: found a list, expected an object"),
        (
            {"rank_pattern": [2]},
            r"rank_pattern=\[2\]: expected numbers above 0 by the names of modules",
        ),
        (
            {"alpha_pattern": {"qkv_proj": "x"}},
            r"alpha_pattern=\{'qkv_proj': 'x'\}: expected numbers",
        ),
        ({"rank_pattern": {"qkv_proj": 0}}, r"rank_pattern=\{'qkv_proj': 0\}: expected numbers"),
    ],
)
def test_a_broken_config_is_told(about, message, tmp_path):
    (tmp_path / peft_write.CONFIG).write_text(json.dumps(about), encoding="utf-8")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / peft_write.WEIGHTS)
    error = ConfigError if isinstance(about, dict) else CheckpointError
    with pytest.raises(error, match=message):
        peft_read.read(tmp_path, options.LoRA(rank=2), {}, {}, None, None)


def test_a_tied_weight_has_one_adapter(tmp_path):
    """Without the other side, or with another one, PEFT computes what this model cannot; lengths of
    DoRA are of other axes there.
    """
    name = "llama_tied_biases"
    _, _, _, tensors = written(name, FUSED[name], tmp_path)
    _, fresh, how = model_of({"base": name}, FUSED[name], tmp_path)
    one_side = {key: value for key, value in tensors.items() if "lm_head" not in key}
    other = tensors | {key: value + 1 for key, value in tensors.items() if "lm_head" in key}
    for changed, message in (
        (one_side, "lm_head has no adapter"),
        (other, "lm_head has another adapter"),
    ):
        save_file(
            {key: np.ascontiguousarray(value) for key, value in changed.items()},
            tmp_path / "out" / peft_write.WEIGHTS,
        )
        with pytest.raises(ConfigError, match=message):
            peft_read.read(tmp_path / "out", FUSED[name], flatten(fresh), **how)
    with pytest.raises(
        ConfigError, match=r"is tied to lm_head: DoRA has one length here.*export.adapter=merge"
    ):
        written(name, options.DoRA(rank=2, target=("embed/tokens",)), tmp_path / "dora")


def test_factors_of_inputs_of_a_fused_layer_must_agree(tmp_path):
    """They multiply one input there; those of the first part are not those of all."""
    config = options.IA3(target=("layers/.*/(k|v)",), target_inputs=("layers/.*/(gate|up)",))
    with pytest.raises(
        ConfigError, match="which has one input there, and its parts have other factors"
    ):
        written("phi3", config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_logits_are_those_of_the_library(name, tmp_path):
    """A fused layer that the library itself adapted and saved."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config = options.LoRA(rank=2, alpha=3.0, target=(PARTS[name],))
    model, fresh, how = model_of({"base": name}, config, tmp_path)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation="eager", dtype=torch.float32
    )
    fused = {"phi3": "qkv_proj", "gpt2": "c_attn", "gpt_neox": "query_key_value"}[name]
    theirs = library.get_peft_model(
        base, library.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=3, target_modules=[fused])
    )
    torch.manual_seed(0)
    for key, value in theirs.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(value, std=0.3)
    theirs.eval().save_pretrained(tmp_path / "peft")
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(IDS.astype(np.int64))).logits.numpy()
    params = with_read(fresh, peft_read.read(tmp_path / "peft", config, flatten(fresh), **how))
    np.testing.assert_allclose(logits(model, params, IDS), expected, rtol=2e-4, atol=2e-5)
    assert np.abs(logits(model, fresh, IDS) - expected).max() > 1e-2
