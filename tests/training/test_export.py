"""What `jaxsft export` writes, without transformers: names and shapes as its classes have them
(tools/golden/classes.py), and what no class has.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from jaxsft.config.model import RopeScaling
from jaxsft.data.records import Seq2Seq, Text
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.hf import families
from jaxsft.hf import write as exported
from jaxsft.hf.families import decoders
from jaxsft.models import rope
from jaxsft.models.crf import TagHead
from jaxsft.models.heads import SpanHead, TextHead
from jaxsft.models.heads_mlm import MaskedHead
from jaxsft.models.layers import Norm
from jaxsft.models.transformer import Transformer
from jaxsft.rundir import read_json
from jaxsft.sharding.weights import flatten, specs
from jaxsft.tasks.label_order import in_order
from jaxsft.training import export as exporting
from jaxsft.training.exported_tokenizer import padding_of
from tests import tiny
from tests.hf.families import hf
from tests.training.exporting import BERT, PAIR, SCRATCH, TEXT, export, made

CLASSES = json.loads((Path(__file__).parent / "golden_classes.json").read_text(encoding="utf-8"))
LEARNT = {
    "bytes": ["tokenizer=bytes"],
    "bpe": ["tokenizer=bpe", "tokenizer.vocab_size=280"],
    "char": ["tokenizer=char"],
    "word": ["tokenizer=word", "tokenizer.min_count=1"],
    "wordpiece": ["tokenizer=wordpiece", "tokenizer.vocab_size=60"],
    "unigram": ["tokenizer=unigram", "tokenizer.vocab_size=40"],
}
KINDS = {
    "SequenceClassification": "text",
    "TokenClassification": "tag",
    "QuestionAnswering": "span",
    "MaskedLM": "mlm",
}


@functools.cache
def body(name):
    """(family, model, specs without a head) of a golden case, as large as `test_hf.folder` makes
    it.
    """
    values = hf.golden(name)[0]["config"]
    room = {
        "n_positions" if name == "gpt2" else "max_position_embeddings": (
            130 if name == "roberta" else 128
        )
    }
    family = families.of(values, "")
    model = family.model({**values, **room, "vocab_size": 272})
    return (
        family,
        model,
        flatten(specs(jax.eval_shape(Transformer(model, 272).init, jax.random.key(0)))),
    )


def head_module(name, kind, model):
    form = {"form": "normed", "norm": Norm.of(model)} if name == "modernbert" else {}
    if kind == "text":
        plain = {"form": "linear", "bias": False} if model.causal else {"form": "dense"}
        return TextHead(model.embed, 2, "fp32", **{**plain, **form})
    if kind == "mlm":
        return MaskedHead(dataclasses.replace(model, head_bias=True), 272, "fp32", "gelu")
    return (
        TagHead(model.embed, "fp32", **form)
        if kind == "tag"
        else SpanHead(model.embed, "fp32", **form)
    )


@pytest.mark.parametrize("case", CLASSES)
def test_names_and_shapes_are_those_of_the_class(case):  # guards G3
    name, _, kind = case.partition(" ")
    family, model, known = body(name)
    head = family.heads[KINDS[kind]]
    own = specs(
        jax.eval_shape(
            head_module(name, KINDS[kind], model).init,
            jax.random.key(0),
            np.zeros((1, 2, model.embed)),
        )["params"]
    )
    found = exported.all_moves(
        family,
        head,
        {**known, **{f"head/{path}": spec for path, spec in flatten(own).items()}},
        case,
    )
    assert family.architecture + head.suffix == CLASSES[case]["class"]
    assert {move.theirs: list(move.shape) for move in found} == CLASSES[case]["tensors"]


def test_every_config_that_is_read_can_be_written():  # guards G3
    for name in hf.CASES:
        about, _ = hf.golden(name)
        family = families.of(about["config"], name)
        model = family.model(about["config"], name, about.get("context"))
        assert family.write is not None, name
        values = family.to_config(model, model.vocab_rows)
        assert (
            dataclasses.replace(
                family.model(values, name, model.context), norm_bias=model.norm_bias
            )
            == model
        ), name


SCALINGS = {
    "linear": RopeScaling("linear", 4.0),
    "ntk": RopeScaling("ntk", 4.0),
    "llama3": RopeScaling("llama3", 4.0, original=32, low=1.0, high=4.0),
    "yarn": RopeScaling("yarn", 4.0, original=32, fast=16.0, truncate=False),
}


NESTED = ("gemma3", "modernbert")  # whose layers turn in two ways


@pytest.mark.parametrize("kind", [*SCALINGS, "longrope"])
@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "llama_yarn",
        "qwen3",
        "gemma3",
        "phi3_long",
        "phi3_partial",
        "gpt_neox",
        "modernbert",
        "olmo2",
    ],
)
def test_a_longer_context_is_written_as_it_is_read(name, kind):  # guards G9
    """In the place where the file had its own scaling, if any: the angles and their factor are the
    same to the bit.
    """
    values = hf.golden(name)[0]["config"]
    family = families.get(values["model_type"], name)
    before = family.model(values, name)
    dims = rope.rotated(before)
    scaling = SCALINGS.get(kind) or RopeScaling(
        "longrope", 4.0, original=32, factors=[1.0 + i for i in range(dims // 2)]
    )
    asked = dataclasses.replace(before, rope_scaling=scaling, context=128)
    written = decoders.with_rope(values, asked)
    refused = (
        "longrope alone" if name.startswith("phi3") and kind not in ("ntk", "longrope") else None
    )
    # what its class would read otherwise
    if refused := "truncate=False is not read" if name in NESTED and kind == "yarn" else refused:
        with pytest.raises(ConfigError, match=refused):
            family.model(written, name, 128)
        return
    found = family.model(written, name, 128)
    assert (found.context, found.rope_local_base) == (128, before.rope_local_base)
    # its class reads rotary_emb_base alone
    assert name != "gpt_neox" or "rope_theta" not in written
    # Phi-3 reads it there
    assert kind != "longrope" or name in NESTED or written["original_max_position_embeddings"] == 32
    one, other = (rope.frequencies(m.rope_base, dims, m.rope_scaling) for m in (found, asked))
    np.testing.assert_array_equal(one[0], other[0])
    assert (
        one[1] == other[1]
        and dataclasses.replace(found, rope_scaling=asked.rope_scaling, rope_base=asked.rope_base)
        == asked
    )


# --- heads
# --------------------------------------------------------------------------------------------------
def test_standardised_numbers_are_in_the_units_of_the_data(tmp_path):
    """`(W d) x + (b d + m)` of each target; and what training did not touch has its bytes."""
    model = made(tmp_path, "bert", "regress", *BERT, freeze=("embed/.*", "layers/.*"))
    export(model, tmp_path / "out")
    found, before = (load_file(tmp_path / part / "model.safetensors") for part in ("out", "in"))
    (mean, deviation), head = (
        model.task.scale,
        {name: np.asarray(value) for name, value in flatten(model.params["head"]).items()},
    )
    np.testing.assert_allclose(
        found["classifier.weight"], head["out/w"].T * deviation[:, None], rtol=1e-6
    )
    np.testing.assert_allclose(
        found["classifier.bias"], head["out/b"] * deviation + mean, rtol=1e-6
    )
    assert deviation.min() > 1 and abs(mean).min() > 1
    same = [name for name in before if f"bert.{name}" in found and "pooler" not in name]
    assert len(same) > 20 and all(
        found[f"bert.{name}"].tobytes() == before[name].tobytes() for name in same
    )
    config = read_json(tmp_path / "out" / "config.json")
    assert config["problem_type"] == "regression" and config["id2label"] == {"0": "x", "1": "y"}


def test_a_bias_that_a_head_lacks_is_zeros(tmp_path):
    export(made(tmp_path, "roberta", "classify", *BERT, "task.bias=false"), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in ("classifier.dense", "classifier.out_proj"):
        assert found[f"{name}.weight"].any() and not found[f"{name}.bias"].any()


def test_options_of_a_class_are_in_its_config(tmp_path):
    export(
        made(
            tmp_path,
            "modernbert",
            "classify",
            "task.pool=mean",
            "task.head=normed",
            "task.activation=relu",
            "task.bias=false",
        ),
        tmp_path / "out",
    )
    config = read_json(tmp_path / "out" / "config.json")
    words = {
        "classifier_pooling": "mean",
        "classifier_activation": "relu",
        "classifier_bias": False,
    }
    assert {key: config[key] for key in words} == words and config["architectures"] == [
        "ModernBertForSequenceClassification"
    ]


@pytest.mark.parametrize(
    "task, suffix", [("tag", "ForTokenClassification"), ("span", "ForQuestionAnswering")]
)
def test_heads_over_tokens_have_the_layers_of_their_options(task, suffix, tmp_path):
    model = made(tmp_path, "modernbert", task, "task.head=normed", "task.activation=gelu")
    assert model.params["head"].keys() == {"dense", "norm", "out"}
    assert export(model, tmp_path / "out")["class"] == f"ModernBert{suffix}"
    config = read_json(tmp_path / "out" / "config.json")
    assert config["classifier_activation"] == "gelu" and config["classifier_bias"] is True
    names = {name.rsplit(".", 1)[0] for name in load_file(tmp_path / "out" / "model.safetensors")}
    assert {"head.dense", "head.norm", "classifier"} <= names


@pytest.mark.parametrize(
    "name, task, given, message",
    [
        (
            "bert",
            "classify",
            ["task.pool=mean"],
            r"task\.pool=mean, task\.head=linear: BertForSequenceClassification computes with"
            r" task\.pool=first, task\.head=dense; train with that; "
            r"or set export\.head=body",
        ),
        (
            "llama",
            "regress",
            TEXT["llama"],
            (
                r"ForSequenceClassification has no bias, .* task\.standardize=false, or set"
                r" export\.head=body"
            ),
        ),
        ("bert", "tag", ["task.crf=true"], r"task\.crf=True: .*; or set export\.head=body"),
        (
            "bert",
            "parse",
            [],
            r"task=parse: transformers has no class of bert with this head; .*export\.head=body",
        ),
        ("olmo2", "span", [], r"task=span: transformers has no class of olmo2"),
        (
            "bert",
            "classify",
            [*BERT, "task.prior_correction=1"],
            r"^task\.prior_correction=1\.0: transformers takes no shares .*; or set export\.head=",
        ),
        (
            "bert",
            "regress",
            [*BERT, "task.loss=gaussian"],
            r"^task\.loss=gaussian: transformers has no head of numbers with deviations",
        ),
        (
            "bert",
            "classify",
            [*BERT, "data.columns.features=[n]"],
            r"task\.features=tokens: .*task\.features=text, or set export\.head=body",
        ),
        (
            "bert",
            "classify",
            ["task.pool=max", "data.columns.features=[n]"],
            r"task\.pool=max, .*; task\.features=tokens: .*; or set export\.head=",
        ),
        (
            "llama",
            "regress",
            ["task.pool=mean"],
            (
                r"task\.pool=mean, task\.bias=True: .*; task=regress: .* task\.standardize=false;"
                r" or set"
            ),
        ),
    ],
)
def test_what_no_class_computes_is_refused(name, task, given, message, tmp_path):
    rows = (
        [{"text": f"t{i}", "label": "AB"[i % 2], "n": i} for i in range(4)]
        if "features" in str(given)
        else None
    )
    with pytest.raises(ConfigError, match=message):
        export(model := made(tmp_path, name, task, *given, rows=rows), tmp_path / "out")
    # as it is before training
    told = exporting.refusal(model.parts, read_json(tmp_path / "run" / "pretrained.json"))
    assert told and "export.head" not in told


@pytest.mark.parametrize("task", ["classify", "multilabel", "tag", "span", "mlm"])
@pytest.mark.parametrize("name", ["bert", "llama", "modernbert", None])
def test_standard_options_can_be_exported(name, task, tmp_path):
    """Of a source its class, of nothing a preset."""
    if (name, task) == ("llama", "mlm"):
        return
    model = made(
        tmp_path, name, task, *(["model=encoder", "model.layers=1"] if name is None else [])
    )
    before = read_json(tmp_path / "run" / "pretrained.json") if name else None
    assert exporting.refusal(model.parts, before) is None
    done = export(model, tmp_path / "out")
    assert done["class"].startswith(
        {"bert": "BertFor", "llama": "LlamaFor"}.get(name, "ModernBertFor")
    )


def test_an_encoder_that_no_family_has_is_told_of_before_training(tmp_path):
    model = made(tmp_path, None, "classify", "model.causal=false", "model.gated=false")
    told = exporting.refusal(model.parts, None)
    assert re.fullmatch(
        r"no family of transformers has all options of this model: the nearest is \w+, which would"
        r" .*; model=encoder is .*",
        told,
    )
    with pytest.raises(ConfigError, match=re.escape(told)):
        export(model, tmp_path / "out")


def test_whole_numbers_name_the_outputs_in_their_order(tmp_path):
    """So that output i is class i; an adapter for PEFT has the names beside it."""
    rows = [{"text": f"t {i}", "label": i % 12} for i in range(24)]
    model = made(
        tmp_path,
        "llama",
        "classify",
        "adapter=lora",
        "adapter.target=['layers/.*/attention/q']",
        rows=rows,
    )
    assert model.task.labels == [str(i) for i in range(12)]
    export(model, tmp_path / "peft", adapter="peft")
    assert read_json(tmp_path / "peft" / "labels.json")["id2label"] == {
        str(i): str(i) for i in range(12)
    }
    assert in_order(["10", "-2", "9"]) == ["-2", "9", "10"] and in_order(["10", "9", "a"]) == [
        "10",
        "9",
        "a",
    ]


@pytest.mark.parametrize(
    "task, given",
    [
        ("parse", []),
        ("joint", []),
        ("tag", ["task.crf=true"]),
        ("classify", ["task.pool=attention"]),
    ],
)
def test_a_body_and_its_head_beside_it(task, given, tmp_path):
    """The names are those of AutoModel, and the head is all that is needed to make its numbers
    again.
    """
    model = made(tmp_path, "bert", task, *given)
    done = export(model, tmp_path / "out", head="body")
    before = load_file(tmp_path / "in" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert (
        done["class"] == "BertModel"
        and set(found) <= set(before)
        and not any("pooler" in name for name in found)
    )
    assert read_json(tmp_path / "out" / "config.json")["architectures"] == ["BertModel"]
    about, tensors = (
        read_json(tmp_path / "out" / "head.json"),
        load_file(tmp_path / "out" / "head.safetensors"),
    )
    own = {path: np.asarray(value) for path, value in flatten(model.params["head"]).items()}
    assert about["task"] == task and about["weights"].keys() == tensors.keys() == own.keys()
    for path, value in own.items():
        np.testing.assert_array_equal(tensors[path], value)
        assert about["weights"][path]["shape"] == list(value.shape)
    assert "labels" in about["learnt"] and not (tmp_path / "out" / "modules.json").exists()


@pytest.mark.parametrize(
    "given, kinds, tensors",
    [
        (["task.loss=contrastive"], ["Transformer", "Pooling", "Normalize"], None),
        (
            ["task.loss=cross_entropy", "task.pool=last", "task.head=dense"],
            ["Transformer", "Pooling", "Dense"],
            {"dense/w", "dense/b", "out/w", "out/b"},
        ),
    ],
)
def test_vectors_have_the_layout_of_sentence_transformers(given, kinds, tensors, tmp_path):
    rows = (
        None
        if "cross_entropy" in given[0]
        else [{"text": f"a{i}", "text_pair": f"b{i}"} for i in range(4)]
    )
    model = made(tmp_path, "bert", "pair", "task.encoder=bi", *given, rows=rows)
    export(model, out := tmp_path / "out")
    steps = read_json(out / "modules.json")
    assert [step["type"].rsplit(".", 1)[1] for step in steps] == kinds and all(
        (out / step["path"]).is_dir() for step in steps
    )
    pooling = read_json(out / "1_Pooling" / "config.json")
    chosen = [name for name, value in pooling.items() if value is True]
    assert pooling["word_embedding_dimension"] == 24 and chosen == [
        "pooling_mode_lasttoken" if tensors else "pooling_mode_mean_tokens"
    ]
    assert tensors == (
        set(load_file(out / "head.safetensors")) if (out / "head.safetensors").is_file() else None
    )
    if tensors:
        dense = load_file(out / "2_Dense" / "model.safetensors")
        np.testing.assert_array_equal(
            dense["linear.weight"], np.asarray(model.params["head"]["dense"]["w"]).T
        )
        assert (
            read_json(out / "2_Dense" / "config.json")["activation_function"]
            == "torch.nn.modules.activation.Tanh"
        )


def test_padding_is_none_of_the_tokens_of_a_text():
    """Of a text `bos a eos`: the declared token, but where it is one of these another special
    one."""
    plain = Tokenizer.bytes()
    declared = lambda **roles: Tokenizer(plain._document, {**plain._config, **roles})
    assert (
        padding_of(plain)
        == padding_of(declared(pad_token="<|end|>"))
        == padding_of(declared(pad_token=None))
        == "<|pad|>"
    )
    assert padding_of(declared(pad_token="<|user|>")) == "<|user|>"
    kept = [
        token
        for token in plain._document["added_tokens"]
        if token["content"] in ("<|bos|>", "<|end|>")
    ]
    few = {
        **plain._document,
        "added_tokens": [{**token, "id": 256 + i} for i, token in enumerate(kept)],
    }
    assert (
        padding_of(
            Tokenizer(few, {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|end|>"})
        )
        is None
    )


# --- from nothing
# --------------------------------------------------------------------------------------------------


def test_an_encoder_from_nothing_is_the_first_family_with_its_head(tmp_path):
    done = export(
        made(tmp_path, None, "classify", *SCRATCH, *BERT, "task.activation=relu"), tmp_path / "out"
    )
    assert done["class"] == "DistilBertForSequenceClassification"  # Bert's has tanh


def test_a_source_is_framed_as_in_training(tmp_path):  # guards C3
    """An encoder-decoder from nothing: the tokenizer that others load puts bos and eos around a
    source, and the decoder starts as in training.
    """
    model = made(tmp_path, None, "seq2seq", *PAIR, "task.scores=[exact_match]")
    assert export(model, tmp_path / "out")["class"].endswith("ForConditionalGeneration")
    ids = (
        tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
        .encode("red cats")
        .ids
    )
    assert (
        ids == model.task.prompt(Seq2Seq("red cats", ""), "")
        and ids[0] == model.tokenizer.bos_id
        and ids[-1] == model.tokenizer.eos_id
    )
    assert (
        read_json(tmp_path / "out" / "config.json")["decoder_start_token_id"]
        == model.task.start_ids[0]
    )


@pytest.mark.parametrize("options", LEARNT.values(), ids=LEARNT)
def test_a_text_to_continue_is_framed_as_a_prompt(options, tmp_path):  # guards C3
    """A language model from nothing: others encode a text into the ids of its prompt here, to which
    training adds eos.
    """
    if "tokenizer=unigram" in options:
        pytest.importorskip("sentencepiece")
    model = made(tmp_path, None, "lm", *options)
    export(model, tmp_path / "out")
    theirs, ours = (
        tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")),
        model.tokenizer,
    )
    for text in ("red cats sleep", "A small dog,  na\u00efve \u732b"):
        ids = theirs.encode(text).ids
        assert ids == model.task.prompt(Text(text), "") and len(ids) >= 3
        trained = model.task.encode_all([Text(text)], [""])[0].ids.tolist()
        assert trained == ids + ([] if ours.eos_id is None else [ours.eos_id])
        begin = [] if ours.bos_id is None else [ours.bos_id]
        assert theirs.encode(text, "a").ids == ids + ours.encode(
            "a"
        ) and ids == begin + ours.encode(text)
    assert Tokenizer.load(tmp_path / "out").encode("red cats") == ours.encode("red cats")


def test_words_that_a_dictionary_tells_apart_cannot_be_exported(tmp_path):  # guards C3
    """tokenizer.json has no such step: others would take a sentence for one unknown word."""
    pytest.importorskip("jieba")
    model = made(
        tmp_path, None, "lm", "tokenizer=word", "tokenizer.min_count=1", "tokenizer.segment=jieba"
    )
    with pytest.raises(
        ConfigError, match=r"tokenizer\.segment=jieba: a tokenizer.json cannot say how"
    ):
        export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_option_of_another_word_is_an_error(tmp_path):
    code, _, err = tiny.jaxsft(
        "export", f"run={tmp_path}", f"to={tmp_path / 'out'}", "export.head=both"
    )
    assert (
        code != 0 and "export.head=both: expected class or body" in err and "Traceback" not in err
    )
