"""task=mlm: the head by hand, the loss on chosen places only, packing, and what cannot be
masked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft import tasks
from jaxsft.config import schema
from jaxsft.data.file_records import Records
from jaxsft.data.records import Text
from jaxsft.data.tokenizers import learn
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo
from jaxsft.training.checkpoint import flatten
from jaxsft.training.components import Components, build_components
from jaxsft.training.hyper import make_hyper
from tests import conftest, tiny

TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "every bird sings in the morning and the evening",
    "cats",
]
WORDS = learn.wordpiece(TEXTS, 80)
MODEL = {"norm": "layer", "head_bias": True, "causal": False, "layers": 1}


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(conftest.TASKS, "mlm", schema.MLMTask)


def parts_of(
    tokenizer=WORDS, packing=True, texts=TEXTS, weights=(1.0,) * 9, **options
) -> tuple[Components, object]:
    groups = {name: options.pop(name, {}) for name in ("model", "task")}
    config = conftest.make_config(
        "mlm",
        model=MODEL | groups["model"],
        task=groups["task"],
        data={"packing": packing},
        train={"batch_size": 4},
    )
    parts = build_components(config, tokenizer, tasks.get("mlm").fit(config, tokenizer, [], []))
    records = Records(
        [Text(text, weight=w) for text, w in zip(texts, weights, strict=False)],
        [f"rows.txt:{i}" for i in range(len(texts))],
    )
    return parts, parts.batches(parts.split("train", records), training=True)


def loss_of(parts, batch, params):
    hyper = make_hyper(parts.config, conftest.Clock(1, 4, 1))
    return jax.jit(lambda p: parts.task.loss(parts.model, p, batch, hyper, None, columns=True))(
        params
    )


@pytest.mark.parametrize("tied", [True, False])
def test_loss_by_hand(tied, x64):
    parts, batches = parts_of(model={"tied": tied})
    params, batch = (
        jax.tree.map(lambda w: w.astype(jnp.float64) + 0.01, parts.init_params()),
        batches[0],
    )
    out = loss_of(parts, batch, params)
    hidden = parts.model.hidden(params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions))
    head = {name: np.asarray(value) for name, value in flatten(params["head"]).items()}
    x = np.asarray(jax.nn.gelu(hidden @ head["dense/w"] + head["dense/b"], approximate=False))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + parts.config.model.norm_epsilon
    ) * head["norm/scale"] + head["norm/bias"]
    logits = x @ (np.asarray(params["embed"]["tokens"]["w"]).T if tied else head["w"]) + head["b"]
    logits -= logits.max(-1, keepdims=True)
    nll = (
        np.log(np.exp(logits).sum(-1))
        - np.take_along_axis(logits, batch.targets[..., None], -1)[..., 0]
    )
    chosen = batch.loss_weight > 0
    assert chosen.sum() >= len(TEXTS) and out.terms["cross_entropy"] == pytest.approx(
        nll[chosen].sum(), rel=1e-9
    )
    assert int(out.states["tokens"].count) == chosen.sum()
    np.testing.assert_allclose(
        np.sort(np.asarray(out.columns["count"]).sum(1)), np.sort(chosen.sum(1))
    )
    assert out.states["tokens"].brief()["perplexity"] == pytest.approx(
        np.exp(nll[chosen].mean()), rel=1e-6
    )
    other = dataclasses.replace(parts.config.task, activation="relu")
    changed = dataclasses.replace(
        parts,
        model=dataclasses.replace(
            parts.model, head=dataclasses.replace(parts.model.head, activation=other.activation)
        ),
    )
    assert loss_of(changed, batch, params).terms["cross_entropy"] != out.terms["cross_entropy"]


def test_weights_of_rows(x64):
    """They multiply the loss of a row and its part of the denominator; what is hidden, and what
    metrics count, stays. A long text has them whole.
    """
    weights = (1.0, 0.5, 3.0, 2.0)
    (plain, batches), (parts, weighted) = (
        parts_of(packing=False),
        parts_of(packing=False, weights=weights),
    )
    params = jax.tree.map(lambda w: w.astype(jnp.float64), plain.init_params())
    one, two = batches[0], weighted[0]
    np.testing.assert_array_equal(one.tokens, two.tokens)
    of_row = np.array([weights[i] if i >= 0 else 0 for i in two.example_ids[:, 0]])
    np.testing.assert_array_equal(two.loss_weight, one.loss_weight * of_row[:, None])
    a, b = loss_of(plain, one, params), loss_of(parts, two, params)
    assert float(b.terms["cross_entropy"]) == pytest.approx(
        (np.asarray(a.columns["nll"])[:, 0] * of_row).sum(), rel=1e-9
    )
    assert float(parts.task.totals(two)["cross_entropy"]) == (one.loss_weight.sum(1) * of_row).sum()
    conftest.assert_same(a.states, b.states)
    config = dataclasses.replace(
        parts.config, data=dataclasses.replace(parts.config.data, max_length=8)
    )
    cut = dataclasses.replace(parts, config=config).split(
        "train", Records([Text(TEXTS[2], weight=3.0)], ["rows.txt:1"])
    )
    assert len(cut.arrays["segment.weight"]) > 1 and (cut.arrays["segment.weight"] == 3).all()


def test_packed_is_unpacked(x64):  # guards B1
    found = []
    for packing in (True, False):
        parts, batches = parts_of(packing=packing)
        params = jax.tree.map(lambda w: w.astype(jnp.float64), parts.init_params())
        sums = [loss_of(parts, batches[k], params) for k in range(len(batches))]
        found.append(
            (
                len(batches[0].tokens[0]),
                sum(float(s.terms["cross_entropy"]) for s in sums),
                sum(int(s.states["tokens"].count) for s in sums),
            )
        )
    assert found[0][1:] == pytest.approx(found[1][1:], rel=1e-12)


def test_long_texts_are_cut_into_frames():
    parts, _ = parts_of()
    config = dataclasses.replace(
        parts.config, data=dataclasses.replace(parts.config.data, max_length=8)
    )
    parts = dataclasses.replace(parts, config=config)
    split = parts.split("train", Records([Text(TEXTS[2])], ["rows.txt:1"]))
    ids, arrays = WORDS.encode(TEXTS[2]), split.arrays
    pieces = np.split(arrays["tokens"], arrays["offsets"][1:-1])
    assert len(pieces) > 1 and np.concatenate([piece[1:-1] for piece in pieces]).tolist() == ids
    assert all((piece[0], piece[-1]) == (2, 3) for piece in pieces)


def test_mask_tokens_and_words():
    plain = Tokenizer.bytes()
    with pytest.raises(ConfigError, match=r"no mask token; set tokenizer.added="):
        parts_of(plain)
    added = plain.with_added(["<|mask|>"])
    parts, batches = parts_of(
        added, task={"mask_token": "<|mask|>", "random": 0.0, "kept": 0.0, "share": 0.5}
    )
    batch = batches[0]
    assert (batch.tokens[batch.loss_weight > 0] == added.special_id("<|mask|>")).all() and (
        parts.task.masking.share,
        len(parts.task.masking.ordinary),
    ) == (0.5, 256)
    with pytest.raises(ConfigError, match="do not tell where a word begins"):
        parts_of(added, task={"mask_token": "<|mask|>", "whole_word": True})
    whole, _ = parts_of(task={"whole_word": True})
    assert (
        whole.task.masking.inner[WORDS.encode("sings")[1:]].all()
        and not whole.task.masking.inner[WORDS.encode("sings")[0]]
    )
    with pytest.raises(ConfigError, match=r"task.random=0.6 and task.kept=0.6"):
        parts_of(task={"random": 0.6, "kept": 0.6})
    with pytest.raises(ConfigError, match=r"task.share=0.0"):
        parts_of(task={"share": 0.0})


@pytest.mark.slow
def test_a_run(tmp_path):
    files = tiny.data(tmp_path)
    given = [
        "train",
        "task=mlm",
        f"data.train={files / 'book.txt'}",
        f"data.validation={files / 'book.txt'}",
        f"run_dir={tmp_path / 'run'}",
        *tiny.FAST[:-3],
    ]
    code, _, err = tiny.jaxsft(*given, "mesh.data=1", "tokenizer.vocab_size=300")
    assert code == 0, err
    assert "validation/masked_accuracy" in (tmp_path / "run" / "result.json").read_text()
