"""task=seq2seq from a folder of transformers with an encoder-decoder model, and back into one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxsft
from jaxsft.data.records import Seq2Seq
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.rundir import read_json
from tests import tiny
from tests.hf.families.test_pairs import golden
from tools.golden.families import weights

ROWS = 272  # of the embedding, more than the tokenizer of bytes has


def folder(path, name):
    """A model of a golden case with the vocabulary of bytes, and a tokenizer with the roles of its
    family.
    """
    about, _ = golden(name)
    shapes = {
        key: [ROWS if n == 61 else n for n in shape] for key, shape in about["shapes"].items()
    }
    path.mkdir(parents=True)
    bytes_ = Tokenizer.bytes()
    start = bytes_.pad_id if name.startswith("t5") else bytes_.eos_id
    values = about["config"] | {"vocab_size": ROWS, "decoder_start_token_id": start}
    values |= {} if name.startswith("t5") else {"max_position_embeddings": 64}
    shapes = {
        key: [66, *shape[1:]] if "embed_positions" in key else shape
        for key, shape in shapes.items()
    }
    (path / "config.json").write_text(json.dumps(values))
    save_file(
        {key: 0.2 * value for key, value in weights(shapes, 0).items()}, path / "model.safetensors"
    )
    roles = (
        {k: v for k, v in bytes_._config.items() if k != "bos_token"}
        if name.startswith("t5")
        else bytes_._config
    )
    Tokenizer(bytes_._document, roles).save(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, start", [("t5_v1_1", ["<|pad|>"]), ("bart", ["<|end|>", "<|bos|>"])]
)
def test_from_a_folder_and_back(name, start, tmp_path):  # guards C3, G3
    """The decoder starts as it was trained to; what training froze has the bytes that it had, and
    the rest moved.
    """
    data = tiny.write_lines(
        tmp_path / "pairs.jsonl",
        [{"source": word, "target": word[::-1]} for word in ("red", "blue", "green")],
    )
    source = folder(tmp_path / "given", name)
    given = [
        "task=seq2seq",
        f"data.train={data}",
        f"model.pretrained={source}",
        "model.context=64",
        "task.scores=[exact_match]",
        "precision=fp32",
    ]
    given += [
        "mesh.data=1",
        "train.duration=2steps",
        "train.batch_size=2",
        "train.freeze=[encoder/.*]",
        "model.unroll=none",
    ]
    result = jaxsft.train(*given, f"run_dir={tmp_path / 'run'}")
    model = jaxsft.load(result)
    assert list(model.config.task.start) == start and model.task.start_ids == [
        model.tokenizer.special_id(token) for token in start
    ]
    code, _, err = tiny.jaxsft("export", f"run={result.run_dir}", f"to={tmp_path / 'out'}")
    assert code == 0, err
    before, after = (
        load_file(source / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    same = {key: np.array_equal(before[key], after[key]) for key in before}
    assert all(value for key, value in same.items() if "encoder." in key) and not any(
        v for k, v in same.items() if k.endswith(("wo.weight", "fc2.weight")) and "decoder" in k
    )
    config = read_json(tmp_path / "out" / "config.json")
    assert (
        config["architectures"][0].endswith("ForConditionalGeneration")
        and config["decoder_start_token_id"] == model.task.start_ids[0]
    )
    generation = read_json(tmp_path / "out" / "generation_config.json")
    assert (
        generation["eos_token_id"] == model.tokenizer.eos_id
        and generation["decoder_start_token_id"] == model.task.start_ids[0]
    )
    assert generation.get("forced_bos_token_id") == (
        model.task.start_ids[1] if len(start) > 1 else None
    )


def test_a_folder_answers_untrained(tmp_path):  # guards C3
    """As it is: the same weights, the tokens that its decoder starts from, and every token that
    ends an answer.
    """
    source = folder(tmp_path / "given", "t5")
    end, user = (Tokenizer.bytes().special_id(token) for token in ("<|end|>", "<|user|>"))
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, user]}))
    model = jaxsft.load(source)
    assert (
        model.task.name == "seq2seq"
        and model.task.start_ids == [256]
        and model.task.stop_ids == sorted([end, user])
    )
    assert model.task.prompt(Seq2Seq("ab", ""), "") == [*b"ab", end]
    assert isinstance(model.generate("ab", max_new_tokens=3), str)
