"""Loading from the files of transformers, and writing them: every byte comes back, and what does
not fit is one sentence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsft.config.schema import ClassifyTask, LMTask, MeshConfig, MLMTask, ModelConfig, TagTask
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import families, pretrained_folder
from jaxsft.hf import read as pretrained
from jaxsft.hf import write as exported
from jaxsft.hf.families.family import moves
from jaxsft.hf.trained_heads import Asked
from jaxsft.models.heads_mlm import MaskedHead
from jaxsft.models.transformer import Transformer
from jaxsft.sharding.weights import flatten, specs
from tests.hf.families import hf
from tools.golden.families import weights


def written_back(folder, model, params, to, kind, shard=10**9):
    family = pretrained_folder.open_source(folder).family
    head = family.heads[kind] if kind else exported.Head("Model", ())
    declared = flatten(specs(jax.eval_shape(model.init, jax.random.key(0))))
    found = exported.all_moves(family, head, declared, "here")
    tensors = pretrained_folder.Tensors(folder)
    had = {name: [tensors.dtype(name), tensors.shape(name)] for name in tensors}
    to.mkdir()
    exported.write(
        to, family, found, flatten(params), exported.dtypes_of(family, found, had, None), shard
    )
    shutil.copy(folder / "config.json", to)
    return pretrained_folder.Tensors(to)


def same_bytes(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape, a[name].tobytes()) == (
            b[name].dtype,
            b[name].shape,
            b[name].tobytes(),
        ), name


@pytest.mark.parametrize("name", hf.CASES)
def test_every_byte_comes_back(name, tmp_path):  # guards G3
    about, _ = hf.golden(name)
    kind, folder = hf.kind(about), hf.write(name, tmp_path / "in", dtype="BF16")
    model, params = hf.load(folder, kind, about["context"])
    written_back(folder, model, params, tmp_path / "out", kind)
    family = pretrained_folder.open_source(folder).family
    # bare encoders are written under the prefix of their classes
    prefix = "" if kind else family.prefix
    wanted = {
        prefix + family.stored.get(key, key): value
        for key, value in load_file(folder / "model.safetensors").items()
        if "pooler" not in key
    }
    same_bytes(load_file(tmp_path / "out" / "model.safetensors"), wanted)


def test_shards_and_halves_are_the_same_numbers(tmp_path):
    folder = hf.write("llama", tmp_path / "in", dtype="F16")
    model, params = hf.load(folder, "lm")
    there = written_back(folder, model, params, tmp_path / "out", "lm", shard=6000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3 and set(index["weight_map"]) == set(there)
    again = flatten(hf.load(tmp_path / "out", "lm")[1])
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(value, again[path])
    wanted = load_file(folder / "model.safetensors")["lm_head.weight"].astype(np.float32).T
    np.testing.assert_array_equal(flatten(params)["head/w"], wanted)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "llama", "mixtral"])
def test_nothing_is_read_that_is_not_used(name, tmp_path):
    """Tensors are turned and taken apart as views of their file, so that a device's part is all
    that is copied.
    """
    about, _ = hf.golden(name)
    source = pretrained_folder.open_source(hf.write(name, tmp_path, dtype="BF16"))
    tensors, model = (
        load_file(tmp_path / "model.safetensors"),
        hf.load(tmp_path, "lm", about["context"])[0],
    )
    declared = flatten(specs(jax.eval_shape(model.init, jax.random.key(0))))
    moves = pretrained.plan(source, declared, "lm").moves
    assert len(moves) > 10
    for move in moves:
        file = source.tensors._mapped(tmp_path / "model.safetensors")[1]
        assert isinstance(file, np.memmap) and all(
            np.may_share_memory(part, file)
            for part in move.to_ours(source.tensors.read(move.theirs))
        )
        np.testing.assert_array_equal(source.tensors.read(move.theirs), tensors[move.theirs])


def test_every_device_gets_its_part(tmp_path):
    folder = hf.write("qwen2_window", tmp_path)
    whole, spread = (
        flatten(hf.load(folder, "lm", mesh=mesh)[1])
        for mesh in (None, MeshConfig(data=1, fsdp=2, tensor=2))
    )
    assert {len(value.sharding.device_set) for value in spread.values()} == {4}
    assert any(not value.sharding.is_fully_replicated for value in spread.values())
    for path, value in whole.items():
        np.testing.assert_array_equal(value, spread[path])


def test_old_names_and_bare_models_are_read(tmp_path):
    new = flatten(hf.load(hf.write("bert", tmp_path / "new"))[1])
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    old_name = lambda k: k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
    old = {f"bert.{old_name(k)}": v for k, v in tensors.items()}
    old["cls.predictions.bias"], old["bert.embeddings.position_ids"] = (
        np.zeros(61, np.float32),
        np.arange(40)[None],
    )
    (tmp_path / "old").mkdir()
    save_file(old, tmp_path / "old" / "model.safetensors")
    shutil.copy(tmp_path / "new" / "config.json", tmp_path / "old")
    for path, value in flatten(hf.load(tmp_path / "old")[1]).items():
        np.testing.assert_array_equal(value, new[path])


@pytest.mark.parametrize(
    "name, changes, message",
    [
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            r"rope_parameters=.*'dynamic' is not known here",
        ),
        (
            "llama",
            {"rope_parameters": None, "rope_scaling": {"type": "mine", "factor": 2.0}},
            r"rope_scaling=.*'mine' is not known here",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
            "has no factor, which the scaling 'linear' needs",
        ),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "beta_fas": 1}},
            "beta_fas is read by nothing; beta_fast is what is read",
        ),
        (
            "llama",
            {"hidden_act": "xielu"},
            "hidden_act='xielu': is not known here; expected one of silu",
        ),
        ("llama", {"sliding_window": 512}, "sliding_window=512: nothing here reads it"),
        (
            "llama",
            {"quantization_config": {"bits": 4}},
            "quantization_config=.*only None can be loaded",
        ),
        ("llama", {"hidden_size": "24"}, "hidden_size='24': expected a whole number from 1 to"),
        (
            "llama",
            {"model_type": "mamba"},
            "model_type='mamba' is not known here; there are llama, mistral",
        ),
        (
            "qwen2",
            {"layer_types": ["full_attention", "chunked_attention", "full_attention"]},
            "'chunked_attention' is not known here",
        ),
        (
            "gemma2",
            {"use_bidirectional_attention": True},
            "use_bidirectional_attention=True: expected None or False",
        ),
        (
            "gpt2",
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx=True: expected False",
        ),
        (
            "llama",
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor=0.5: expected none, for this family rotates whole heads",
        ),
        (
            "qwen3",
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "rope_parameters=.*this family rotates whole heads",
        ),
        (
            "gpt_neox",
            {"rope_theta": 500.0},
            "rope_theta=500.0: differs from rotary_emb_base=10000.0",
        ),
        (
            "gpt_neox",
            {"partial_rotary_factor": 1.0},
            "partial_rotary_factor=1.0: nothing here reads it",
        ),
        ("phi3", {"layer_types": ["full_attention"] * 3}, "layer_types=.*: nothing here reads it"),
        (
            "phi3",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_parameters=.*: linear: this family has longrope alone",
        ),
        (
            "qwen3_moe",
            {"layer_types": ["full_attention"] * 3},
            "layer_types=.*: nothing here reads it",
        ),
        (
            "mixtral",
            {"num_local_experts": 4, "num_experts": 3},
            "num_experts=3: is another name of num_local_experts, which is 4",
        ),
        (
            "gemma3",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "rope_theta is not read there; expected those of full_attention",
        ),
        (
            "gemma3",
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "yarn", "factor": 2.0, "truncate": False}
                }
            },
            "truncate=False is not read where",
        ),
        (
            "gemma3",
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling=.*: has no rope_type, and type is not",
        ),
        ("gemma3", {"attn_logit_softcapping": 2.0}, "attn_logit_softcapping=2.0: expected None"),
        ("modernbert", {"rope_theta": 500.0}, "rope_theta=500.0: nothing here reads it"),
        (
            "mixtral_window",
            {"layer_types": ["full_attention"] * 3},
            "layer_types=.*: nothing here reads it",
        ),
        ("roberta", {"pad_token_id": -1}, "pad_token_id=-1: expected a whole number from 0 to"),
        (
            "qwen3_moe",
            {"num_experts_per_tok": "2"},
            "num_experts_per_tok='2': expected a whole number from 1 to",
        ),
        (
            "llama",
            {"rms_norm_eps": "1e-5"},
            "config.json: rms_norm_eps='1e-5': expected a number above 0 and at most 1",
        ),
    ],
)
def test_a_key_that_would_be_ignored_is_an_error(name, changes, message, tmp_path):  # guards G9
    with pytest.raises(ConfigError, match=message):
        pretrained_folder.open_source(hf.write(name, tmp_path, **changes)).model()


SIZES = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 4,
}
T5 = {"vocab_size": 9, "d_model": 4, "d_kv": 2, "d_ff": 3, "num_layers": 1, "num_heads": 2}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.0],
    "long_factor": [1.0, 2.0],
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    "name, values, wanted",
    [
        (
            "qwen3_moe",
            SIZES | {"moe_intermediate_size": 5},
            {
                "experts": 128,
                "experts_per_token": 8,
                "head_dim": 4,
                "expert_norm": False,
                "window": None,
            },
        ),
        (
            "qwen3_moe",
            SIZES | WINDOWS | {"moe_intermediate_size": 5},
            {"window": 5, "window_layers": None},
        ),
        ("qwen3", SIZES | WINDOWS, {"window": 5, "window_layers": [2], "head_dim": 128}),
        (
            "gemma3_text",
            SIZES | {"_sliding_window_pattern": 2},
            {"window": 4096, "window_layers": None},
        ),
        ("gemma3_text", SIZES | {"sliding_window_pattern": 2}, {"window_layers": [0, 2]}),
        (
            "gpt_neox",
            SIZES | {"rotary_emb_base": 500, "rotary_pct": 0.5},
            {"rope_base": 500.0, "rope_fraction": 0.5},
        ),
        (
            "phi3",
            SIZES | {"max_position_embeddings": 8192, "rope_scaling": LONG},
            {"rope_scaling.original": 4096, "rope_scaling.factor": 2.0},
        ),
        (
            "llama",
            SIZES
            | {
                "max_position_embeddings": 64,
                "rope_scaling": YARN,
                "original_max_position_embeddings": 32,
            },
            {"rope_scaling.original": 32},
        ),
        ("t5", T5 | {"tie_word_embeddings": None}, {"tied": True, "output_scale": 0.5}),
        (
            "t5",
            T5
            | {
                "feed_forward_proj": "gated-gelu",
                "dense_act_fn": "gelu_new",
                "is_gated_act": True,
            },
            {"activation": "gelu_tanh"},
        ),
    ],
)
def test_a_key_means_what_it_means_in_its_class(name, values, wanted):  # guards G9
    """Found by changing config.json of every family key by key, and loading it with transformers
    too.
    """
    model = families.get(name, "here").model(values)
    found = {key: functools.reduce(getattr, key.split("."), model) for key in wanted}
    assert found == wanted


def test_tensors_that_do_not_fit_are_named(tmp_path):  # guards F2, F3
    missing = hf.write("llama", tmp_path / "a", drop=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(
        CheckpointError,
        match=r"has no model\.layers\.1\.mlp\.up_proj\.weight, which layers/0/mlp/up/w/1 needs",
    ):
        hf.load(missing, "lm")
    shape = hf.write("llama", tmp_path / "b", num_key_value_heads=4)
    with pytest.raises(
        CheckpointError,
        match=r"k_proj\.weight is \[12, 24\], but layers/0/attention/k/w/0 needs \[24, 24\]",
    ):
        hf.load(shape, "lm")
    more = hf.write("qwen3_biases", tmp_path / "c", attention_bias=False)
    with pytest.raises(
        CheckpointError,
        match=(
            r"has model\.layers\.0\.self_attn\..*\.bias \[.*\], for which this model has no place"
        ),
    ):
        hf.load(more, "lm")
    deeper = hf.write("gpt2", tmp_path / "d", n_layer=2)
    with pytest.raises(
        CheckpointError, match=r"has transformer\.h\.2\..*, for which this model has no place"
    ):
        hf.load(deeper, "lm")


def test_pickles_and_damage_are_one_sentence(tmp_path):
    folder = hf.write("llama", tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        pretrained_folder.Tensors(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=r"has pytorch_model\.bin, a pickle, which can run code and is never opened",
    ):
        pretrained_folder.Tensors(folder)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../a.safetensors"}})
    )
    with pytest.raises(
        CheckpointError, match=r"names \.\./a\.safetensors, which does not lie beside it"
    ):
        pretrained_folder.Tensors(folder)


def test_what_no_class_computes_names_the_option_that_would_fit():
    bert, llama = families.get("bert", "here"), families.get("llama", "here")
    fits = ClassifyTask(pool="first", head="dense", activation="tanh")
    assert exported.head_of(bert, "text", fits, ModelConfig()).suffix == "ForSequenceClassification"
    for family, kind, task, message in (
        (
            bert,
            "text",
            ClassifyTask(),
            (
                r"task\.pool=mean, task\.head=linear: Bert\w+ computes with task\.pool=first,"
                r" task\.head=dense; train"
            ),
        ),
        (
            llama,
            "text",
            ClassifyTask(pool="last"),
            r"task\.bias=True: LlamaForSequenceClassification computes with task\.bias=False",
        ),
        (
            bert,
            "tag",
            TagTask(crf=True),
            r"task\.crf=True: BertForTokenClassification computes with task\.crf=False",
        ),
        (
            bert,
            "mlm",
            MLMTask(),
            r"task\.activation=gelu: BertForMaskedLM computes with task\.activation=relu",
        ),
        (
            bert,
            "lm",
            LMTask(),
            (
                "transformers has no class of bert with this head; there are"
                " BertForSequenceClassification"
            ),
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            exported.head_of(family, kind, task, ModelConfig(activation="relu"))


def test_what_no_family_has_is_told_of_the_nearest():
    with pytest.raises(
        ConfigError,
        match=(
            r"the nearest is eurobert, which would have model\.gated=True and not False;"
            r" model=encoder is an encoder"
        ),
    ):
        exported.fitting(ModelConfig(causal=False, gated=False), 300, None)
    every = (
        r"export\.family=bert: has no model\.norm='rms' \(it would be 'layer'\),"
        r" model\.norm_position='pre' \(it .*\)$"
    )
    with pytest.raises(ConfigError, match=every):
        exported.fitting(ModelConfig(causal=False), 300, "bert")
    with pytest.raises(ConfigError, match=r"model\.kind=lstm: transformers has no such model"):
        exported.fitting(ModelConfig(kind="lstm"), 300, None)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named(value, dtype, tmp_path):
    hf.write("llama", tmp_path, dtype)
    tensors = load_file(tmp_path / "model.safetensors")
    hf.load(tmp_path, "lm")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 2] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"{tmp_path}: {re.escape(name)} holds numbers that are not finite"
    ):
        hf.load(tmp_path, "lm")


def test_pages_that_were_given_back_are_read_again(tmp_path):
    tensors = pretrained_folder.Tensors(hf.write("llama", tmp_path))
    before = {name: tensors.read(name).copy() for name in tensors}
    for name, value in before.items():
        tensors.release(name)
        np.testing.assert_array_equal(tensors.read(name), value)


def test_a_second_copy_must_be_the_same(tmp_path):  # guards G3
    """What is tied, or has two names, is taken once: another value there would be lost, and
    transformers would use it.
    """
    values, other = (
        weights(hf.golden("bert_mlm")[0]["shapes"], hf.golden("bert_mlm")[0]["seed"]),
        np.ones((61, 24), np.float32),
    )
    matrix, bias = values["bert.embeddings.word_embeddings.weight"], values["cls.predictions.bias"]
    name = "cls.predictions.decoder"
    for copies, message in (
        ({f"{name}.weight": matrix, f"{name}.bias": bias}, None),
        (
            {f"{name}.weight": other},
            (
                r"decoder\.weight and bert\.embeddings\.word_embeddings\.weight differ, but"
                r" config\.json says that they are one"
            ),
        ),
        ({f"{name}.bias": bias + 1}, r"decoder\.bias and cls\.predictions\.bias differ"),
    ):
        save_file(values | copies, hf.write("bert_mlm", tmp_path) / "model.safetensors")
        with pytest.raises(CheckpointError, match=message) if message else contextlib.nullcontext():
            hf.load(tmp_path, "mlm")


@pytest.mark.parametrize(
    "name, theirs", [("bert_mlm", "relu"), ("distilbert_mlm", "relu"), ("roberta_mlm", "gelu")]
)
def test_a_head_over_words_is_taken_with_its_activation(name, theirs, tmp_path):  # guards G3, G9
    """RoBERTa's has one of its own, whatever its body has."""
    source = pretrained_folder.open_source(
        hf.write(
            name, tmp_path, **{"activation" if name.startswith("distil") else "hidden_act": "relu"}
        )
    )
    declared = flatten(specs(jax.eval_shape(hf.load(tmp_path, "mlm")[0].init, jax.random.key(0))))
    for mine in ("gelu", "relu"):
        asked = Asked("mlm", MLMTask(activation=mine), None)
        why = rf"computes otherwise: task\.activation={mine} is {theirs} there; train\.init_fresh="
        with contextlib.nullcontext() if mine == theirs else pytest.raises(ConfigError, match=why):
            assert not pretrained.plan(source, declared, "mlm", asked).fresh
    assert pretrained.plan(source, declared, None).fresh  # as with train.init_fresh


ENCODERS = [
    "bert",
    "roberta",
    "xlm_roberta",
    "distilbert",
    "electra",
    "deberta",
    "modernbert",
    "modernbert_biases",
]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bias_that_a_head_over_words_lacks_is_zero(name, tmp_path):  # guards G3
    """Whichever are missing, the rest is taken; without another part the head is no random one but
    an error.
    """
    source = pretrained_folder.open_source(hf.write(name, tmp_path))
    config = dataclasses.replace(source.model(), head_bias=True)
    model = Transformer(
        config, config.vocab_rows, "fp32", MaskedHead(config, config.vocab_rows, "fp32", "gelu")
    )
    declared = flatten(specs(jax.eval_shape(model.init, jax.random.key(0))))
    head = {path: spec for path, spec in declared.items() if path.startswith("head/")}
    body = load_file(tmp_path / "model.safetensors")
    theirs = {
        move.slots[0].path: (move.theirs, np.ones(move.shape, np.float32))
        for move in moves(source.family.heads["mlm"].table, head)
    }

    def plan(*lacks):
        save_file(
            body | dict(value for path, value in theirs.items() if path not in lacks),
            tmp_path / "model.safetensors",
        )
        return pretrained.plan(pretrained_folder.open_source(tmp_path), declared, "mlm")

    biases = [path for path in theirs if path.endswith("/b")]
    for lacks in (biases[:1], biases[1:], biases):
        assert sorted(plan(*lacks).fresh) == sorted(lacks)
    for part in ("head/norm/scale", "head/dense/w"):
        with pytest.raises(
            ConfigError,
            match=(
                rf"head cannot be taken: the files have .* and no {re.escape(theirs[part][0])};"
                r" train\.init_fresh="
            ),
        ):
            plan(part)
    assert sorted(plan(*theirs).fresh) == sorted(head)  # a body alone has none
