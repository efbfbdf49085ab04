"""Runs that start from a folder of transformers, and runs that are written as one."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxsft
from jaxsft.config import compose
from jaxsft.config.schema import GenerateConfig
from jaxsft.data.chat.templates import DEFAULT_TEMPLATE
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import CheckpointError, ConfigError
from jaxsft.generation import decoding
from jaxsft.rundir import read_json
from jaxsft.sharding.weights import flatten
from jaxsft.training import components, runs
from tests import realdata, tiny
from tests.hf.families import hf
from tools.golden.families import weights

FAST = [
    "precision=fp32",
    "mesh.data=1",
    "train.duration=2steps",
    "train.batch_size=2",
    "evaluation.generate=never",
    "optim.learning_rate=1e-2",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny.data(tmp_path_factory.mktemp("data"))


def folder(path, name: str = "llama", dtype: str = "F32", rows: int = 272, **changes):
    """A model of `hf.CASES` with the vocabulary of bytes and room for 128 tokens, and a
    tokenizer."""
    about, _ = hf.golden(name)
    room = 130 if "roberta" in name else 128  # whose first two positions are nobody's
    longer = lambda key, n: 272 if n == 61 else room if "wpe" in key or "position" in key else n
    shapes = {key: [longer(key, shape[0]), *shape[1:]] for key, shape in about["shapes"].items()}
    path.mkdir(parents=True)
    sizes = {
        "vocab_size": rows,
        "n_positions" if name.startswith("gpt2") else "max_position_embeddings": room,
    }
    (path / "config.json").write_text(json.dumps(about["config"] | sizes | changes))
    drawn = {
        key: (0.2 * value)[:rows].astype(hf.DTYPES[dtype])
        for key, value in weights(shapes, 0).items()
    }
    hf.save_file(drawn, path / "model.safetensors")
    Tokenizer.bytes().save(path)
    return path


def train(files, run_dir, *given: str, task: str = "lm"):
    data = {"lm": f"data.train={files / 'book.txt'}", "chat": f"data.train={files / 'chat.jsonl'}"}
    data["classify"] = f"data.train={files / 'labels.jsonl'}"
    return jaxsft.train(
        jaxsft.compose(f"task={task}", data[task], f"run_dir={run_dir}", *FAST, *given)
    )


def test_the_story_is_that_of_the_authors():
    source = realdata.real("stories260K_hf")
    expected = (source / "SOURCE.txt").read_text().split("from <s>:\n")[1].strip()
    model, params = hf.load(source, "lm")
    tokenizer = Tokenizer.load(source)
    (answer,) = decoding.generate(
        model, params, [[1]], GenerateConfig(batch_size=1), max_new_tokens=61, stop_ids=[2]
    )
    text = tokenizer.decode(answer.ids).strip()
    assert text.startswith(expected) or (expected.startswith(text) and len(text) > 150), text


def test_frozen_tensors_keep_their_bytes_on_the_way_out(files, tmp_path):  # guards G10, C12
    source = folder(tmp_path / "in", dtype="BF16")
    # Turns end with another token than texts.
    (tmp_path / "template.jinja").write_text(
        DEFAULT_TEMPLATE.replace("<|end|>{% endgeneration %}", "<|tool|>{% endgeneration %}")
    )
    given = [
        "train.freeze=['embed/.*','layers/0/.*']",
        f"task.template={tmp_path / 'template.jinja'}",
        "data.max_length=64",
    ]
    result = train(files, tmp_path / "run", f"model.pretrained={source}", *given, task="chat")
    about = read_json(tmp_path / "run" / "pretrained.json")
    assert (about["fresh"], about["left"], about["config"]["model_type"]) == ([], [], "llama")
    jaxsft.export(result, tmp_path / "out")
    before, after = (
        load_file(source / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    same = {name: before[name].tobytes() == after[name].tobytes() for name in before}
    assert before.keys() == after.keys() and {value.dtype for value in after.values()} == {
        np.dtype(hf.DTYPES["BF16"])
    }
    frozen = lambda name: name.startswith(("model.embed_tokens", "model.layers.0."))
    assert all(same[name] for name in before if frozen(name))
    assert not any(same[name] for name in before if not frozen(name))
    # Loaded again, it is the run but for the rounding of what was trained; its stop tokens and
    # template are those of training.
    generation, tokenizer = (
        read_json(tmp_path / "out" / "generation_config.json"),
        Tokenizer.load(tmp_path / "out"),
    )
    run = jaxsft.load(result)
    assert (
        generation["eos_token_id"]
        == run.task.stop_ids[0]
        == tokenizer.special_id("<|tool|>")
        != tokenizer.eos_id
    )
    assert tokenizer.chat_template == run.task.state["template"]["source"]
    model, params = hf.load(tmp_path / "out", "lm")
    for path, value in flatten(run.params).items():
        pieces = flatten(params)[path.replace("layers/1/", "layers/0/")]
        wanted = np.asarray(value).astype(hf.DTYPES["BF16"]).astype(np.float32)
        start = int(path.split("/")[1]) if path.startswith("layers/") else None
        np.testing.assert_array_equal(
            wanted, pieces if start is None else pieces[start : start + len(wanted)]
        )
    assert model.config == dataclasses.replace(run.config.model, pretrained=None)


def test_a_base_that_changed_is_refused(files, tmp_path):  # guards G2
    source = folder(tmp_path / "in")
    train(files, tmp_path / "run", f"model.pretrained={source}", "train.freeze=['embed/.*']")
    jaxsft.load(tmp_path / "run")
    shutil.rmtree(source)
    folder(source, eos_token_id=5, rms_norm_eps=1e-3)
    with pytest.raises(
        CheckpointError,
        match=(
            r"config\.json: says model\.norm_epsilon=0\.001, the run was started with"
            r" model\.norm_epsilon="
        ),
    ):
        jaxsft.load(tmp_path / "run")


def test_what_starts_anew_is_what_init_says(files, tmp_path):
    source = folder(tmp_path / "in")
    base = [f"task=lm data.train={files / 'book.txt'}".split(), f"model.pretrained={source}"]

    def start(*given):
        config = runs.setup.resolve(jaxsft.compose(*base[0], base[1], *FAST, *given))
        return flatten(runs.starting_params(components.prepare(config)[0]))

    taken, scratch, reset = (
        start(),
        start("model.init=scratch"),
        start("model.init=reset:layers/[12]/mlp/.*"),
    )
    gate, norm = "layers/0/mlp/gate/w", "layers/0/mlp_norm/scale"
    np.testing.assert_array_equal(reset[gate][0], taken[gate][0])
    np.testing.assert_array_equal(reset[gate][1:], scratch[gate][1:])
    np.testing.assert_array_equal(reset[norm], taken[norm])
    assert not np.array_equal(taken[gate], scratch[gate])
    for option, message in (
        ("model.init=reset:nothing", "nothing matches no weight"),
        ("model.init=half", "expected pretrained, scratch or reset"),
    ):
        with pytest.raises(ConfigError, match=message):
            start(option)
    with pytest.raises(
        ConfigError, match=r"train\.init_from=.*is no run directory; model\.pretrained="
    ):
        runs.starting_params(
            components.prepare(
                runs.setup.resolve(
                    jaxsft.compose(*base[0], *FAST, *tiny.MODEL, f"train.init_from={source}")
                )
            )[0]
        )


# guards G3
def test_a_run_that_started_from_nothing_is_written_as_the_family_that_fits(files, tmp_path):
    result = train(files, tmp_path / "run", *tiny.MODEL, "tokenizer=bytes")
    done = jaxsft.export(result, tmp_path / "out")
    assert done["class"] == "LlamaForCausalLM"
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 12)))
    where = hf.one_text(12)
    run = jaxsft.load(result)
    model, params = hf.load(tmp_path / "out", "lm")
    logits = lambda m, p: m.logits(p, m.hidden(p, ids, where))
    np.testing.assert_array_equal(logits(run.run.parts.model, run.params), logits(model, params))
    with pytest.raises(
        ConfigError, match=r"export\.family=gpt2: has no model\.norm='rms' \(it would be 'layer'\)"
    ):
        jaxsft.export(result, tmp_path / "other", family="gpt2")
    with pytest.raises(ConfigError, match="is there already"):
        jaxsft.export(result, tmp_path / "out")
    code, out, err = tiny.jaxsft(
        "export",
        f"run={tmp_path / 'run'}",
        f"to={tmp_path / 'third'}",
        "export.dtype=bf16",
        "export.shard=5000",
    )
    assert code == 0 and "BF16" in out, err
    assert len(list((tmp_path / "third").glob("model-*-of-*.safetensors"))) > 1


def test_a_task_without_a_vocabulary_takes_the_body_only(files, tmp_path):
    source = folder(tmp_path / "in")
    config = runs.setup.resolve(
        jaxsft.compose(
            "task=classify",
            f"data.train={files / 'labels.jsonl'}",
            f"model.pretrained={source}",
            *FAST,
            "train.batch_size=4",
        )
    )
    parts = components.prepare(config)[0]
    about = runs.hf.facts(parts, None)
    assert about["left"] == ["lm_head.weight"] and {
        path.split("/")[0] for path in about["fresh"]
    } == {"head"}
    started = flatten(runs.starting_params(parts))
    np.testing.assert_array_equal(
        started["embed/tokens/w"],
        load_file(source / "model.safetensors")["model.embed_tokens.weight"],
    )
    fresh = flatten(jax.tree.map(np.asarray, parts.init_params()))
    for path in about["fresh"]:
        np.testing.assert_array_equal(started[path], fresh[path])


def test_an_encoder_is_not_made_one(files, tmp_path):
    source = folder(tmp_path / "in", "bert_mlm")
    asked = jaxsft.compose(
        "task=classify",
        f"data.train={files / 'labels.jsonl'}",
        *FAST,
        f"model.pretrained={source}",
        "model.bidirectional=true",
    )
    with pytest.raises(
        ConfigError, match=r"model\.bidirectional=True: a token of .* sees the whole text already"
    ):
        runs.setup.resolve(asked)


def test_a_tokenizer_of_another_model_is_named(files, tmp_path):
    """Its texts would be read from rows that no file has."""
    source = folder(tmp_path / "in", rows=263)
    Tokenizer.train(["one two three"] * 9, 270).save(source)
    asked = jaxsft.compose(
        "task=lm", f"data.train={files / 'book.txt'}", *FAST, f"model.pretrained={source}"
    )
    with pytest.raises(
        ConfigError, match=r"texts of \d+ tokens, the embedding of the model has 263 rows"
    ):
        runs.setup.resolve(asked)
    assert (
        runs.setup.resolve(
            dataclasses.replace(asked, model=dataclasses.replace(asked.model, init="scratch"))
        ).model.vocab_rows
        > 263
    )


def test_rows_of_added_tokens_start_at_the_mean(files, tmp_path):  # guards G4
    def start(source):
        added = ["tokenizer.added=['<x>','<y>']", f"model.pretrained={source}"]
        parts = components.prepare(
            runs.setup.resolve(
                jaxsft.compose("task=lm", f"data.train={files / 'book.txt'}", *FAST, *added)
            )
        )[0]
        assert parts.tokenizer.vocab_size == 265
        return parts.config.model.vocab_rows, flatten(runs.starting_params(parts))

    roomy, tight = folder(tmp_path / "in"), folder(tmp_path / "tight", rows=263)
    assert start(roomy)[0] == 272  # the file has rows to spare
    before = load_file(tight / "model.safetensors")
    rows, started = start(tight)
    assert rows == 265
    for path, name in (
        ("embed/tokens/w", "model.embed_tokens.weight"),
        ("head/w", "lm_head.weight"),
    ):
        ours = np.asarray(started[path])
        ours = ours.T if path == "head/w" else ours
        np.testing.assert_array_equal(ours[:263], before[name])
        np.testing.assert_allclose(
            ours[263:], np.tile(before[name].mean(0), (2, 1)), rtol=1e-5, atol=1e-7
        )


def test_a_task_may_need_a_token_that_is_added(files, tmp_path):
    """The source has no such token, and nothing of the task is asked of it."""
    given = [
        f"model.pretrained={folder(tmp_path / 'in', 'bert')}",
        "tokenizer.added=['<mask>']",
        "task.mask_token='<mask>'",
        "data.max_length=64",
    ]
    parts = components.prepare(
        runs.setup.resolve(
            jaxsft.compose("task=mlm", f"data.train={files / 'book.txt'}", *FAST, *given)
        )
    )[0]
    started = flatten(runs.starting_params(parts))
    np.testing.assert_array_equal(
        started["embed/types/w"],
        load_file(tmp_path / "in" / "model.safetensors")["embeddings.token_type_embeddings.weight"],
    )


def test_a_longer_context_is_taken_and_written(files, tmp_path):  # guards G9
    source = folder(tmp_path / "in")
    longer = ("model.rope_scaling.kind=linear", "model.rope_scaling.factor=4", "model.context=512")
    result = train(files, tmp_path / "run", f"model.pretrained={source}", *longer)
    model = compose.read(tmp_path / "run" / "config.yaml").model
    assert (model.rope_scaling.kind, model.rope_scaling.factor, model.context) == (
        "linear",
        4.0,
        512,
    )
    jaxsft.export(result, tmp_path / "out")
    written = read_json(tmp_path / "out" / "config.json")
    assert written["max_position_embeddings"] == 512 and written["rope_parameters"] == {
        "rope_type": "linear",
        "rope_theta": 10000.0,
        "factor": 4.0,
    }
