"""Whole weights beside an adapter (`modules_to_save`), and ranks of their own for modules, against
the library PEFT.
"""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsft.config import adapters as options
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import peft_read, peft_write
from jaxsft.sharding.weights import flatten, specs
from jaxsft.training import partition
from tests.hf.families import test_pairs as bases
from tests.hf.test_peft_write import GOLDEN, changed, folder_of, logits, model_of, with_read

LORA = options.LoRA(
    rank=4,
    alpha=6,
    target=("layers/.*/(q|down)",),
    train=("norm/.*", "layers/1/mlp_norm/.*", "embed/tokens/.*"),
)


def mask_of(config, how):
    return flatten(partition.frozen_mask(how["specs"], (), config))


def drawn(params, frozen):
    """Other values of all that is trained."""
    rng = np.random.default_rng(5)
    return with_read(
        params,
        {
            path: value + 0.1 * rng.standard_normal(value.shape)
            for path, value in flatten(params).items()
            if not np.all(frozen[path]) and path != "layers/0/mlp_norm/scale"
        }
        | {"layers/0/mlp_norm/scale": flatten(params)["layers/0/mlp_norm/scale"].at[1].add(0.25)},
    )


@pytest.mark.parametrize("base", ["llama", "llama_tied_biases"])
def test_what_was_trained_whole_is_written_and_read(base, tmp_path):
    """A norm, one layer of a stack and the embedding; a tied one on both sides. An export held none
    of them once.
    """
    _, fresh, how = model_of({"base": base}, LORA, tmp_path)
    frozen = mask_of(LORA, how)
    params = drawn(fresh, frozen)
    peft_write.write(
        tmp_path / "out", LORA, flatten(params), kind="lm", frozen=frozen, base="a", **how
    )
    about = json.loads((tmp_path / "out" / peft_write.CONFIG).read_text(encoding="utf-8"))
    twin = ["lm_head"] if base != "llama" else []
    assert about["modules_to_save"] == [
        *twin,
        "model.embed_tokens",
        "model.layers.1.post_attention_layernorm",
        "model.norm",
    ]
    read = with_read(
        fresh, peft_read.read(tmp_path / "out", LORA, flatten(fresh), frozen=frozen, **how)
    )
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(flatten(read)[path], value, err_msg=path)
    with pytest.raises(
        ConfigError, match=r"embed_tokens.weight .*set adapter.train=\['embed/tokens/w"
    ):
        peft_read.read(
            tmp_path / "out",
            LORA,
            flatten(fresh),
            frozen={**frozen, "embed/tokens/w": 1.0},
            **how,
        )


def test_what_does_not_fit_is_one_sentence(tmp_path):
    _, params, how = model_of({"base": "llama_tied_biases"}, LORA, tmp_path)
    frozen, folder = mask_of(LORA, how), tmp_path / "out"
    write = lambda: peft_write.write(
        folder, LORA, flatten(params), kind="lm", frozen=frozen, base="a", **how
    )
    read = lambda: peft_read.read(folder, LORA, flatten(params), frozen=frozen, **how)
    write()
    tensors, root = load_file(folder / peft_write.WEIGHTS), peft_write.ROOT
    for change, error, why in (
        ({"lm_head.weight": None}, ConfigError, "is that of the base there; merge it in PEFT"),
        ({"lm_head.weight": 0}, ConfigError, "is another one there; merge it in PEFT"),
        ({"model.norm.weight": None}, CheckpointError, "has no .*model.norm.weight, expected"),
        ({"model.no.weight": 0}, CheckpointError, "model.no.weight, for which this model has no"),
    ):
        values = {
            name: value for name, value in tensors.items() if name.removeprefix(root) not in change
        }
        more = {root + n: np.zeros((3, 4), np.float32) for n, x in change.items() if x is not None}
        save_file(values | more, folder / peft_write.WEIGHTS)
        with pytest.raises(error, match=why):
            read()
    changed(folder, modules_to_save="all")
    with pytest.raises(ConfigError, match="modules_to_save='all': expected a list of names"):
        read()
    twice = options.LoRA(rank=2, target=("embed/tokens",), train=("embed/tokens/.*",))
    _, params, how = model_of({"base": "llama"}, twice, tmp_path)
    with pytest.raises(ConfigError, match="has an adapter and is trained as a whole"):
        peft_write.write(folder, twice, flatten(params), frozen=mask_of(twice, how), **how)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_embedding_with_copies_has_no_adapter_there(name, tmp_path):
    """PEFT 0.21 adapts `shared`, which computes nothing: the halves have tied copies of it."""
    source, plain, params = bases.load(bases.write(name, tmp_path))
    config = options.LoRA(rank=2, target=("embed/tokens",))
    a, b = np.zeros((plain.vocab, 2), np.float32), np.zeros((2, plain.config.embed), np.float32)
    weights = flatten({**params, "adapters": {"embed": {"tokens": {"a": a, "b": b}}}})
    with pytest.raises(ConfigError, match=r"shared.*copies of it that are tied"):
        peft_write.write(
            tmp_path / "out",
            config,
            weights,
            flatten(specs(jax.eval_shape(plain.init, jax.random.key(0)))),
            plain.config,
            source.family,
            source.family.heads["lm"],
        )


def test_smaller_ranks_are_filled_up_by_zeros(tmp_path):
    about, folder, tensors = folder_of("lora", tmp_path)
    config = options.LoRA(rank=3, alpha=5, target=("layers/.*/(q|k|v|o|gate|up|down)",))
    model, params, how = model_of(about, config, tmp_path)
    ids = np.load(GOLDEN / "lora.npz")["ids"].astype(np.int32)
    for name in [name for name in tensors if "q_proj" in name]:
        rows = np.s_[:1] if "lora_A" in name else np.s_[:, :1]
        tensors[name] = np.ascontiguousarray(tensors[name][rows])
    save_file(tensors, folder / peft_write.WEIGHTS)
    changed(folder, rank_pattern={"q_proj": 1})
    found = peft_read.read(folder, config, flatten(params), **how)
    assert not found["adapters/layers/0/attention/q/a"][..., 1:].any()
    grown = logits(model, with_read(params, found), ids)
    wide = dict(tensors)
    for name in [name for name in tensors if "q_proj" in name]:
        more = ((0, 2), (0, 0)) if "lora_A" in name else ((0, 0), (0, 2))
        wide[name] = np.pad(tensors[name] * (1 if "lora_A" in name else 3), more)
    save_file(wide, folder / peft_write.WEIGHTS)
    changed(folder, rank_pattern={})
    same = logits(
        model, with_read(params, peft_read.read(folder, config, flatten(params), **how)), ids
    )
    np.testing.assert_allclose(grown, same, atol=1e-6)
    changed(folder, rank_pattern={"q_proj": 1.5})
    with pytest.raises(ConfigError, match=r"has rank 1.5, expected 3"):
        peft_read.read(folder, config, flatten(params), **how)
    changed(folder, rank_pattern={"q_proj": 9})
    with pytest.raises(ConfigError, match=r"has rank 9, expected 3.*; set adapter.rank=9"):
        peft_read.read(folder, config, flatten(params), **how)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["llama", "llama_tied_biases"])
def test_logits_are_those_of_the_library(base, tmp_path):
    """From a folder that it saved, with ranks of modules, and from one written here."""
    torch, library = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model, params, how = model_of({"base": base}, LORA, tmp_path)
    fresh = lambda: transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation="eager", dtype=torch.float32
    )
    theirs = library.get_peft_model(
        fresh(),
        library.LoraConfig(
            r=2,
            lora_alpha=6,
            target_modules=["q_proj", "down_proj"],
            rank_pattern={"layers.1.mlp.down_proj": 4, r"0\.self_attn\.q_proj": 3},
            alpha_pattern={"down_proj": 5},
            modules_to_save=["layers.1.post_attention_layernorm", "embed_tokens"],
            ensure_weight_tying=base != "llama",
            task_type="CAUSAL_LM",
            init_lora_weights=False,
        ),
    ).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "theirs")
    frozen = mask_of(LORA, how)
    found = peft_read.read(tmp_path / "theirs", LORA, flatten(params), frozen=frozen, **how)
    read = with_read(params, found)
    peft_write.write(
        tmp_path / "ours",
        LORA,
        flatten(read),
        kind="lm",
        base=str(tmp_path / "base"),
        frozen=frozen,
        **how,
    )
    ids = np.arange(3, 12, dtype=np.int32)[None]
    mine = logits(model, read, ids)
    for one in (theirs, library.PeftModel.from_pretrained(fresh(), tmp_path / "ours").eval()):
        with torch.no_grad():
            expected = one(input_ids=torch.from_numpy(ids.astype(np.int64))).logits.numpy()
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=2e-5)
    assert np.abs(mine - logits(model, params, ids)).max() > 1e-2


@pytest.mark.parametrize(
    "change, why",
    [
        ({"target_modules": 3}, "target_modules=3: expected a word or a list of words"),
        ({"target_modules": [1]}, r"target_modules=\[1\]: expected a word or a list of words"),
        ({"target_modules": ["v_proj"]}, r"leaves out model\.layers\.0\.self_attn\.k_proj"),
        ({"target_modules": "nothing"}, "target_modules='nothing': leaves out"),
        ({"target_modules": "(a+)+"}, "target_modules: .* or one of a group, is not read"),
        ({"exclude_modules": ["q_proj"]}, "leaves out"),
        ({"layers_to_transform": 0}, r"leaves out model\.layers\.1"),
        ({"layers_to_transform": [-1]}, r"layers_to_transform=\[-1\]: expected a whole number"),
        ({"r": 0}, "r=0: expected a whole number from 1"),
        ({"r": 2.5}, "r=2.5: expected a whole number from 1"),
        ({"lora_alpha": "x"}, "lora_alpha='x': expected a number above 0"),
        ({"lora_alpha": -1}, "lora_alpha=-1: expected a number above 0"),
        ({"lora_dropout": 2}, "lora_dropout=2: expected a number from 0 to 1"),
        ({"fan_in_fan_out": "no"}, "fan_in_fan_out='no': expected true or false"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path=3: expected a word"),
        ({"modules_to_save": [""]}, "modules_to_save=.*: expected a list of names"),
        ({"modules_to_save": ["no"]}, r"modules_to_save=\['no'\]: the file has no weight of no"),
        ({"modules_to_save": ["score"]}, "the file has no weight of score"),
        ({"alpha_pattern": {"no": 3}}, "alpha_pattern has no, which is no module"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(change, why, tmp_path):
    about, folder, _ = folder_of("lora", tmp_path)
    config = options.LoRA(rank=3, alpha=5, target=("layers/.*/(q|k|v|o|gate|up|down)",))
    _, params, how = model_of(about, config, tmp_path)
    changed(folder, **change)
    with pytest.raises(ConfigError, match=why):
        peft_read.read(folder, config, flatten(params), **how)
