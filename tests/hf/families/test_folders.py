"""Folders of models that are damaged, hostile or of other tools: one sentence each, before anything
is allocated.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxsft.config import compose
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.hf import families, pretrained_folder
from tests.hf.families import hf, test_pairs
from tools import config_fuzz


@pytest.mark.parametrize(
    "index, message",
    [
        ({}, "weight_map=None: expected an object with the file of each tensor"),
        ({"weight_map": ["a"]}, r"weight_map=\['a'\]: expected an object"),
        ({"weight_map": {}}, r"weight_map=\{\}: expected an object"),
        ({"weight_map": {"a": 3}}, "'a' is 3, expected the name of a .safetensors file"),
        (
            {"weight_map": {"a": "a.bin"}},
            "'a' is 'a.bin', expected the name of a .safetensors file",
        ),
        ([], "found a list|expected an object"),
        (None, "found null|expected an object"),
    ],
)
def test_an_index_of_another_shape_is_a_sentence(index, message, tmp_path):  # guards F2
    (tmp_path / pretrained_folder.INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        pretrained_folder.Tensors(tmp_path)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_half_for_texts_of_a_model_of_images_is_read(prefix, tmp_path):  # guards G3
    """By the names of either version; nothing of the rest, tied where the files have no output
    matrix.
    """
    folder, about = hf.write("gemma3", tmp_path), hf.golden("gemma3")[0]
    model, params = hf.load(folder, "lm")
    tensors = load_file(folder / "model.safetensors")
    names = {key: f"{prefix}{key.removeprefix('model.')}" for key in tensors}
    image = {"model.vision_tower.a" if prefix[0] == "m" else "vision_tower.a": np.ones(3, np.int8)}
    whole = {names[key]: value for key, value in tensors.items()} | image
    save_file(whole, folder / "model.safetensors")
    half = {
        key: v for key, v in about["config"].items() if key not in ("model_type", "eos_token_id")
    }
    values = {"model_type": "gemma3", "vision_config": {}, "eos_token_id": [1, 60]}
    (folder / "config.json").write_text(json.dumps({**values, "text_config": half}))
    source = pretrained_folder.open_source(folder)
    assert source.values["eos_token_id"] == [1, 60] and source.family.model_type == "gemma3_text"
    found, same = hf.load(folder, "lm")
    assert found.config == model.config and found.config.tied
    jax.tree.map(np.testing.assert_array_equal, same, params)
    save_file(
        whole | {"lm_head.weight": np.ones((61, 24), np.float32)}, folder / "model.safetensors"
    )
    assert not pretrained_folder.open_source(folder).model().tied
    (folder / "config.json").write_text(json.dumps({**values, "text_config": {"model_type": "x"}}))
    with pytest.raises(ConfigError, match="model_type='x' is not known here"):
        pretrained_folder.open_source(folder)


def test_layers_that_are_not_in_the_files_are_told_from_their_headers(tmp_path):  # guards F2
    folder = hf.write("llama", tmp_path, num_hidden_layers=4000)
    with pytest.raises(
        CheckpointError,
        match=(
            r"config\.json: says 4000 layers, but the files have 3: model\.layers\.2\..* is of the"
            r" last one"
        ),
    ):
        pretrained_folder.open_source(folder).model()
    # what is over is told by `plan`
    assert (
        pretrained_folder.open_source(hf.write("llama", tmp_path, num_hidden_layers=2))
        .model()
        .layers
        == 2
    )


def test_a_class_that_ties_is_tied_where_the_files_have_no_matrix(tmp_path):  # guards G3
    folder = test_pairs.write("t5", tmp_path)
    values = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    model = pretrained_folder.open_source(folder).model()
    assert model.tied
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"lm_head.weight": np.ones_like(tensors["shared.weight"])},
        folder / "model.safetensors",
    )
    assert not pretrained_folder.open_source(folder).model().tied


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"model_type": "gemma3"},
            "model_type='gemma3' is not known here .*half for texts is read where",
        ),
        (
            {"model_type": "qwen2_vl", "vision_config": {}},
            "reads images or sounds; models of texts alone can be loaded",
        ),
        (
            {"model_type": "qwen3_next"},
            r"\(the nearest, qwen3\w*, computes otherwise\); there are llama",
        ),
        ({"model_type": ["llama"]}, r"model_type=\['llama'\] is not known here; there are llama"),
        ({"model_type": "Llama"}, r"'Llama' is not known here \(it is written llama\)"),
        ({}, "has no model_type, so that nothing says how its model computes"),
        (
            {"model_type": "llama", "architectures": "LlamaForCausalLM"},
            "architectures='LlamaForCausalLM': expected a list of words",
        ),
        (
            {"model_type": "bert", "id2label": ["a"]},
            r"id2label=\['a'\]: expected an object or null",
        ),
    ],
)
def test_a_family_that_is_not_here_has_the_nearest_named(values, message):
    with pytest.raises(ConfigError, match=message):
        families.of(values, "config.json")


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ("adapter_config.json", "adapter_model.safetensors"),
            "adapter of PEFT: give its base model as model.pretrained= and .* adapter.start_from=",
        ),
        (("model-Q4_K_M.gguf",), "model-Q4_K_M.gguf is GGUF, which cannot be read"),
        (("model.onnx", "tokenizer.json"), "model.onnx is a compiled model"),
        (("pytorch_model.bin",), "pytorch_model.bin holds weights in another format"),
        (("model.safetensors",), "model.safetensors holds weights alone: put the config.json"),
        (("notes.txt",), "it has no config.yaml"),
    ],
)
def test_a_folder_of_another_tool_is_told_what_it_is(names, message, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{tmp_path}: not a run directory .*{message}"):
        compose.read(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "change, why",
    [
        ({"eos_token_id": -5}, "eos_token_id=-5: expected a whole number from 0"),
        ({"eos_token_id": [1, 61]}, r"eos_token_id=\[1, 61\]: expected ids below vocab_size=61"),
        ({"bos_token_id": "1"}, "bos_token_id='1': expected a whole number from 0"),
        ({"pad_token_id": 61}, "pad_token_id=61: expected ids below vocab_size=61"),
        ({"attention_dropout": "x"}, "attention_dropout='x': expected a number from 0 to 1"),
        ({"use_cache": "yes"}, "use_cache='yes': expected true or false"),
        ({"initializer_range": -1}, "initializer_range=-1: expected a number of at least 0"),
        ({"torch_dtype": 3}, "torch_dtype=3: expected a word"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers='3': expected a whole number"),
        ({"rope_scaling": {"factor": 2}, "rope_parameters": None}, "rope_scaling=.*no rope_type"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(change, why):
    about = hf.golden("llama")[0]
    with pytest.raises(ConfigError, match=rf"^config\.json: {why}"):
        families.FAMILIES["llama"].model(about["config"] | change)


def test_ids_that_a_class_writes_by_itself_are_taken():
    """The default of its class, which transformers writes into every file, may lie beyond a small
    vocabulary; and -1 is no padding."""
    values = hf.golden("gpt2")[0]["config"]
    assert values["eos_token_id"] > values["vocab_size"]
    assert (
        families.FAMILIES["gpt2"].model(values | {"pad_token_id": -1}).layers == values["n_layer"]
    )
    with pytest.raises(ConfigError, match="eos_token_id=50255: expected ids below"):
        families.FAMILIES["gpt2"].model(values | {"eos_token_id": 50255})


def test_both_names_of_a_key_are_read():
    values = hf.golden("gpt2")[0]["config"]
    with pytest.raises(ConfigError, match="num_hidden_layers='x': expected"):
        families.FAMILIES["gpt2"].model(values | {"num_hidden_layers": "x"})
    with pytest.raises(ConfigError, match="n_layer='x': expected"):
        families.FAMILIES["gpt2"].model(values | {"n_layer": "x", "num_hidden_layers": 2})


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_nonsense_in_any_key_is_refused(family):
    """All families: `python -m tools.config_fuzz nonsense`."""
    found = config_fuzz.nonsense(family)
    assert found.failures == [] and found["refused"] > 400
