"""`model.part=encoder`: texts are read by the encoder of an encoder-decoder alone, which is a body
as any other.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxsft
from jaxsft.errors import ConfigError
from jaxsft.hf.families import FAMILIES
from jaxsft.models.attention import TokenInfo
from jaxsft.models.encoder_decoder import half
from jaxsft.models.transformer import Transformer
from jaxsft.rundir import read_json
from jaxsft.sharding.weights import flatten
from jaxsft.training import components, runs, setup
from jaxsft.training import pretrained as hf
from jaxsft.training.components import Components
from tests import tiny
from tests.training.exporting import ROWS, export, made
from tests.training.test_pretrained import FAST
from tests.training.test_pretrained import folder as bodies
from tests.training.test_pretrained_pairs import folder

ALONE = "model.part=encoder"


def parts_of(tmp_path, source, task: str, *given: str) -> Components:
    data = tiny.write_lines(tmp_path / f"{task}.jsonl", ROWS[task])
    run = [f"task={task}", f"data.train={data}", f"model.pretrained={source}", *FAST, *given]
    return components.prepare(setup.resolve(jaxsft.compose(*run)))[0]


def pairs(tmp_path, source) -> Components:
    return parts_of(tmp_path, source, "seq2seq", "model.context=64", "task.scores=[exact_match]")


def rows(lengths) -> tuple[np.ndarray, TokenInfo]:
    """A row with all texts, and one with each."""
    texts = [np.random.default_rng(n).integers(0, 256, n) for n in lengths]
    lay = lambda parts: np.stack(
        [np.pad(row, (0, sum(lengths) - len(row))) for row in (np.concatenate(parts), *parts)]
    ).astype(np.int32)
    return lay(texts), TokenInfo(
        lay([np.full(n, i + 1) for i, n in enumerate(lengths)]),
        lay([np.arange(n) for n in lengths]),
    )


@pytest.mark.parametrize("name", ["t5", "t5_v1_1", "bart"])
def test_it_computes_what_it_does_beside_its_decoder(name, tmp_path):  # guards B1, B3, G3
    """Of a text with others in its row too; and nothing of the decoder is there."""
    source = folder(tmp_path / "in", name)
    whole, parts = pairs(tmp_path, source), parts_of(tmp_path, source, "classify", ALONE)
    both, params = runs.starting_params(whole), runs.starting_params(parts)
    assert type(parts.model) is Transformer and not parts.config.model.decoder_layers
    assert {path.split("/")[0] for path in flatten(params)} == {"embed", "layers", "head"} | (
        set() if name == "bart" else {"norm", "relative"}
    )
    ids, where = rows((23, 9))  # beyond the distance from which all share a bucket
    found = np.asarray(jax.jit(parts.model.hidden)(params, ids, where))
    expected = np.asarray(jax.jit(whole.model.encoder.hidden)(half(both, "encoder"), ids, where))
    np.testing.assert_array_equal(found[where.segment_ids > 0], expected[where.segment_ids > 0])
    packed, *alone = np.asarray(parts.model.head.apply({"params": params["head"]}, found, where, 2))
    np.testing.assert_allclose(packed, [alone[0][0], alone[1][1]], rtol=1e-5, atol=1e-6)
    about = hf.facts(parts, None)
    gone = [
        key
        for key in load_file(source / "model.safetensors")
        if "decoder" in key or key in ("lm_head.weight", "final_logits_bias")
    ]
    assert sorted(about["left"]) == sorted(gone) and all(
        path.startswith("head/") for path in about["fresh"]
    )


def test_tags_are_trained_written_and_read_again(tmp_path):  # guards G3, G10
    """Training moves the encoder, its bias of positions too; the folder is read without the option,
    for its class has no decoder.
    """
    source, data = (
        folder(tmp_path / "in", "t5_v1_1"),
        tiny.write_lines(tmp_path / "tags.jsonl", ROWS["tag"]),
    )
    given = [
        "task=tag",
        f"data.train={data}",
        f"model.pretrained={source}",
        ALONE,
        *FAST,
        "train.freeze=[embed/.*]",
    ]
    code, out, err = tiny.jaxsft("train", *given, f"run_dir={tmp_path / 'run'}")
    assert code == 0 and f"tag, the encoder of {source} alone, without its decoder:" in out, err
    done = jaxsft.export(tmp_path / "run", tmp_path / "out")
    before, after = (
        load_file(source / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    assert done["class"] == "T5ForTokenClassification" and {
        k for k in after if "classifier" in k
    } == {"classifier.weight", "classifier.bias"}
    encoder = {
        f"transformer.{key}": value
        for key, value in before.items()
        if key == "shared.weight" or key.startswith("encoder.")
    }
    assert encoder.keys() == {key for key in after if not key.startswith("classifier")}
    assert [key for key, value in encoder.items() if np.array_equal(value, after[key])] == [
        "transformer.shared.weight"
    ]
    words = [{"tokens": row["tokens"]} for row in ROWS["tag"]]
    run, again = jaxsft.load(tmp_path / "run"), jaxsft.load(tmp_path / "out", "precision=fp32")
    assert again.config.model.part == "all" and again.task.labels == run.task.labels
    assert [line["prediction"] for line in again.predict(words)] == [
        line["prediction"] for line in run.predict(words)
    ]
    parts = parts_of(tmp_path, tmp_path / "out", "tag")
    assert hf.facts(parts, None)["fresh"] == [] and hf.facts(parts, None)["head"] is None
    np.testing.assert_array_equal(
        flatten(runs.starting_params(parts))["head/out/w"], flatten(run.params)["head/out/w"]
    )


@pytest.mark.parametrize("name, classname", [("t5", "T5EncoderModel"), ("bart", "BartEncoder")])
def test_a_body_is_written_without_a_decoder_and_read_again(name, classname, tmp_path):  # guards G3
    run = made(tmp_path, name, "classify", ALONE)
    with pytest.raises(
        ConfigError,
        match=r"transformers has no class of .* with this head; .* or set export\.head=body",
    ):
        export(run, tmp_path / "none")
    assert export(run, tmp_path / "out", head="body")["class"] == classname
    # what sentence-transformers loads of BART has a decoder
    assert (tmp_path / "out" / "modules.json").is_file() == (name == "t5")
    assert read_json(tmp_path / "out" / "config.json")["is_encoder_decoder"] is False
    again = runs.starting_params(parts_of(tmp_path, tmp_path / "out", "classify"))
    for path, value in flatten(run.params).items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(value, flatten(again)[path], err_msg=path)


def test_a_run_of_ours_gives_its_encoder_too(tmp_path):  # guards G2
    """Of a run that came from nothing; with other layers of it, and written as the family that
    fits.
    """
    data = tiny.write_lines(tmp_path / "pairs.jsonl", ROWS["seq2seq"])
    model = [
        "model=encoder_decoder",
        "model.embed=16",
        "model.heads=2",
        "model.kv_heads=2",
        "model.head_dim=8",
        "model.mlp=24",
    ]
    model += [
        "model.query_scale=1.0",
        "model.gated=false",
        "model.activation=relu",
        "tokenizer=bytes",
        "task.scores=[exact_match]",
    ]
    first = jaxsft.train(
        "task=seq2seq", f"data.train={data}", *model, *FAST, f"run_dir={tmp_path / 'first'}"
    ).run_dir
    data = tiny.write_lines(tmp_path / "labels.jsonl", ROWS["classify"])
    given = [
        "task=classify",
        f"data.train={data}",
        f"model.pretrained={first}",
        "train.init_fresh=['head/.*']",
        *FAST,
        "train.freeze=['layers/.*']",
    ]
    with pytest.raises(
        ConfigError,
        match=(
            r"task=classify has one text only; set model\.part=encoder, which leaves the"
            r" decoder out"
        ),
    ):
        jaxsft.train(*given)
    second = jaxsft.train(
        *given, ALONE, "model.keep_layers=[1]", f"run_dir={tmp_path / 'second'}"
    ).run_dir
    before, run = jaxsft.load(first).params, jaxsft.load(second)
    after = flatten(run.params)
    for path, value in flatten(half(before, "encoder")["layers"]["0"]).items():
        np.testing.assert_array_equal(after[f"layers/0/{path}"], value[1:], err_msg=path)
    assert not np.array_equal(after["relative/w"], before["encoder"]["relative"]["w"])
    assert jaxsft.export(second, tmp_path / "out", head="body")["class"] == "T5EncoderModel"
    assert run.config.model.layers == 1 and run.config.model.decoder_layers == 0
    # of a run that is an encoder already
    parts = parts_of(tmp_path, second, "classify", "train.init_fresh=['head/.*']", ALONE)
    np.testing.assert_array_equal(
        flatten(runs.starting_params(parts))["relative/w"], after["relative/w"]
    )


def test_a_classifier_of_both_halves_gives_its_encoder_and_not_its_head(tmp_path):  # guards G3
    source = folder(tmp_path / "in", "bart")
    tensors = load_file(source / "model.safetensors")
    head = {
        f"classification_head.{name}.weight": np.ones((2, 24), np.float32)
        for name in ("dense", "out_proj")
    }
    save_file(
        {key: value for key, value in tensors.items() if key != "final_logits_bias"} | head,
        source / "model.safetensors",
    )
    values = read_json(source / "config.json") | {
        "architectures": ["BartForSequenceClassification"]
    }
    (source / "config.json").write_text(json.dumps(values))
    parts = parts_of(tmp_path, source, "classify", ALONE)
    assert (
        hf.facts(parts, None)["head"]
        == "it is that of BartForSequenceClassification, which reads a text with its decoder too"
    )
    np.testing.assert_array_equal(
        runs.starting_params(parts)["embed"]["tokens"]["w"], tensors["model.shared.weight"]
    )


def test_where_there_is_no_such_part_it_is_refused(tmp_path):
    pair, body = folder(tmp_path / "pair", "t5"), bodies(tmp_path / "body", "bert")
    for source, task, given, message in (
        (
            pair,
            "classify",
            (),
            (
                r"task=classify has one text only; set model\.part=encoder, which leaves the"
                r" decoder out; task=seq2seq trains"
            ),
        ),
        (pair, "tag", (), r"task=tag has one text only; set model\.part=encoder"),
        (
            pair,
            "seq2seq",
            (ALONE,),
            r"model\.part=encoder: task=seq2seq writes, which an encoder alone cannot",
        ),
        (
            pair,
            "classify",
            ("model.part=decoder",),
            r"model\.part=decoder: expected one of all, encoder",
        ),
        (
            pair,
            "classify",
            (ALONE, "model.keep_decoder_layers=[0]"),
            r"model\.keep_decoder_layers=\[0\]: the model has no decoder",
        ),
        (
            body,
            "classify",
            (ALONE,),
            (
                r"model\.part=encoder: .*config\.json has model_type=bert, which has no decoder"
                r" beside an encoder"
            ),
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            parts_of(tmp_path, source, task, *given)
    data = tiny.write_lines(tmp_path / "rows.jsonl", ROWS["classify"])
    with pytest.raises(
        ConfigError, match=r"model\.part=encoder: is read with model\.pretrained only"
    ):
        setup.resolve(jaxsft.compose("task=classify", f"data.train={data}", ALONE, *FAST))


def test_every_encoder_is_of_the_family_of_its_whole():
    two = [family for family in FAMILIES.values() if family.encoder is not None]
    names = {"t5", "mt5", "umt5", "bart", "mbart", "m2m_100", "pegasus"}
    assert {family.model_type for family in two} == names
    for family in two:
        assert (family.encoder.model_type, family.encoder.architecture) == (
            family.model_type,
            family.architecture,
        )
        assert not {*family.classes} & {*family.encoder.classes}
