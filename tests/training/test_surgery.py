"""Runs that start from a pretrained model of another depth or width, and with more tokens."""

import jax
import numpy as np
import pytest

import jaxsft
from jaxsft import tasks
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.models.attention import TokenInfo
from jaxsft.sharding.weights import flatten
from jaxsft.training import runs, setup
from jaxsft.training.components import Components, build_components
from tests import tiny
from tests.training import test_pretrained_pairs as test_hf_pairs
from tests.training.test_pretrained import FAST, folder

IDS = np.array([[3, 1, 4, 1, 5]])
WHERE = TokenInfo(np.ones((1, 5), np.int32), np.arange(5, dtype=np.int32)[None])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("model") / "in", rows=263)


def parts_of(source, *given: str, task: str = "lm") -> Components:
    given = (
        ("model.context=64", "task.scores=[exact_match]", *given) if task == "seq2seq" else given
    )
    config = setup.resolve(
        jaxsft.compose(
            f"task={task}",
            "data.train=rows.txt",
            "run_dir=nowhere",
            *FAST,
            f"model.pretrained={source}",
            *given,
        )
    )
    tokenizer = make_tokenizer(config.tokenizer, tasks.get(task), [])
    state = {
        "classify": {"labels": ["a", "b"]},
        "seq2seq": {"pattern": "{source}", "start_ids": [256], "stop_ids": [257]},
    }
    return build_components(config, tokenizer, state.get(task, {}))


def logits(parts, params) -> np.ndarray:
    model, source = (
        parts.model,
        ({"source": (IDS[:, ::-1], WHERE)} if parts.config.model.decoder_layers else {}),
    )
    return np.asarray(
        jax.jit(lambda p: model.logits(p, model.hidden(p, IDS, WHERE, **source)))(params)
    )


def test_wider_and_with_more_tokens_it_computes_the_same(source):  # guards G4
    plain = parts_of(source)
    before = runs.starting_params(plain)
    parts = parts_of(
        source, "model.resize_mlp=50", "model.resize_heads=8", "tokenizer.added=['<x>','<y>']"
    )
    after = runs.starting_params(parts)
    assert (parts.config.model.mlp, parts.config.model.heads, parts.model.vocab) == (50, 8, 265)
    old, new = logits(plain, before), logits(parts, after)
    np.testing.assert_allclose(new[..., :263], old, atol=1e-4)
    rows = np.asarray(flatten(before)["head/w"]).mean(1)
    np.testing.assert_allclose(
        np.asarray(flatten(after)["head/w"])[:, 263:],
        np.stack([rows, rows], 1),
        rtol=1e-5,
        atol=1e-8,
    )


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_wider_encoder_decoder_with_more_tokens_computes_the_same(name, tmp_path):  # guards G4
    where = test_hf_pairs.folder(tmp_path / "in", name)
    plain = parts_of(where, task="seq2seq")
    given = [
        "model.resize_mlp=60",
        "model.resize_heads=6",
        "tokenizer.added=['<x>','<y>']",
        "model.train_rows=added",
    ]
    parts = parts_of(where, *given, task="seq2seq")
    before, after = runs.starting_params(plain), runs.starting_params(parts)
    assert (parts.config.model.mlp, parts.config.model.heads, parts.tokenizer.vocab_size) == (
        60,
        6,
        plain.tokenizer.vocab_size + 2,
    )
    # behind them rows without a token, two of which the added ones take
    known = plain.tokenizer.vocab_size
    np.testing.assert_allclose(
        logits(parts, after)[..., :known], logits(plain, before)[..., :known], atol=1e-4
    )
    rows = np.asarray(before["embed"]["tokens"]["w"])
    wanted = np.concatenate(
        [rows[:known], np.tile(rows[:known].mean(0), (2, 1)), rows[known + 2 :]]
    )
    np.testing.assert_allclose(after["embed"]["tokens"]["w"], wanted, rtol=1e-5, atol=1e-7)
    trained = {path for path, mask in flatten(parts.program.movable.row_masks).items() if mask.ndim}
    assert trained == {"embed/tokens/w", *(["head/b"] if name == "bart" else [])}


def test_fewer_layers_and_both_directions(source):
    before = flatten(runs.starting_params(parts_of(source)))
    parts = parts_of(source, "model.keep_layers=[0,2]", "model.bidirectional=true", task="classify")
    after = flatten(runs.starting_params(parts))
    assert parts.config.model.layers == 2 and not parts.config.model.causal
    for name, value in after.items():
        if not name.startswith("head/"):
            wanted = before[name][np.array([0, 2])] if name.startswith("layers/") else before[name]
            np.testing.assert_array_equal(value, wanted, err_msg=name)


@pytest.mark.slow
def test_a_run_with_frozen_layers_is_opened_again(source, tmp_path):
    files = tiny.data(tmp_path)
    given = [
        f"model.pretrained={source}",
        "model.keep_layers=[0,2]",
        "train.freeze=['layers/0/.*']",
        f"run_dir={tmp_path / 'one'}",
    ]
    jaxsft.train(jaxsft.compose("task=lm", f"data.train={files / 'book.txt'}", *FAST, *given))
    first = runs.open_run(tmp_path / "one")
    before = runs.starting_params(first.parts)
    np.testing.assert_array_equal(
        first.frozen["layers"]["0"]["mlp"]["up"]["w"], before["layers"]["0"]["mlp"]["up"]["w"][:1]
    )
    again = [
        f"model.pretrained={tmp_path / 'one'}",
        "model.repeat_layers=2",
        "model.resize_mlp=60",
        f"run_dir={tmp_path / 'two'}",
    ]
    jaxsft.train(jaxsft.compose("task=lm", f"data.train={files / 'book.txt'}", *FAST, *again))
    second = runs.open_run(tmp_path / "two").parts.config.model
    assert (second.layers, second.mlp, second.keep_layers) == (4, 60, None)
