"""task=seq2seq with an encoder-decoder model: what each half is given, the trust suite of its step,
and a whole run.
"""

import functools
import json

import numpy as np
import pytest

from jaxsft import api, rundir
from jaxsft.data.records import Seq2Seq
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.optim.rules.muon import Muon
from jaxsft.sharding.weights import flatten
from jaxsft.tasks.seq2seq import Seq2SeqTask
from jaxsft.training import device
from tests import tiny
from tests.conftest import assert_close, bench
from tests.tasks.test_seq2seq import BOS, BYTES, END, config

MODEL = {
    "decoder_layers": 2,
    "causal": False,
    "positions": "relative",
    "relative_buckets": 8,
    "relative_distance": 16,
    "unroll": "none",
}
x64 = pytest.mark.usefixtures("x64")


def task_of(records, tokenizer=BYTES, **options):
    chosen = config(model=MODEL, **options)
    return Seq2SeqTask(chosen, tokenizer, Seq2SeqTask.fit(chosen, tokenizer, records, ["a:1"]))


def test_by_hand():  # guards C1, C6, C15
    """The encoder reads bos, the source in its template and eos; the decoder starts from bos, and
    is trained on the target and eos.
    """
    record = Seq2Seq("ab", "xyz")
    task = task_of([record], template="to German: {source}")
    encoded = task.encode_all([record], ["a:1"])[0]
    assert encoded.source.tolist() == [BOS, *b"to German: ab", END] == task.prompt(record, "a:1")
    assert encoded.ids.tolist() == [BOS, *b"xyz", END] and encoded.weights.tolist() == [
        0,
        1,
        1,
        1,
        1,
    ]
    assert task.start_ids == [BOS] and task.answer(record, "a:1") == [*b"xyz", END]
    assert task_of([record]).prompt(record, "a:1") == [BOS, *b"ab", END]


def test_what_a_decoder_starts_from():
    """The tokens that are named, else bos, else pad, else it is refused."""
    record = Seq2Seq("ab", "x")
    named = task_of([record], start=["<|end|>", "<|bos|>"])
    assert named.encode_all([record], ["a:1"])[0].ids.tolist() == [END, BOS, *b"x", END]
    assert named.encode_all([record], ["a:1"])[0].weights.tolist() == [0, 0, 1, 1]
    without = lambda *roles: Tokenizer(
        BYTES._document, {k: v for k, v in BYTES._config.items() if k not in roles}
    )
    assert task_of([record], tokenizer=without("bos_token")).start_ids == [BYTES.pad_id]
    with pytest.raises(ConfigError, match="neither a bos_token nor a pad_token"):
        task_of([record], tokenizer=without("bos_token", "pad_token"))
    with pytest.raises(ConfigError, match="no special token '<s>'"):
        task_of([record], start=["<s>"])


@pytest.mark.parametrize(
    "task, model, message",
    [
        ("seq2seq", MODEL | {"causal": True}, "set model.causal=False"),
        ("lm", MODEL | {"causal": True}, "task=seq2seq trains an encoder-decoder"),
        ("seq2seq", MODEL | {"attention": "blocked"}, "has no place for the bias"),
        ("seq2seq", MODEL | {"relative_buckets": 6}, "expected a multiple of 4"),
        (
            "seq2seq",
            {"decoder_layers": 0, "output_scale": 0.5},
            "is read with model.decoder_layers",
        ),
    ],
)
def test_what_cannot_work_is_refused(task, model, message):
    with pytest.raises(ConfigError, match=message):
        bench(task, 2, model=model)


# --- the step
# --------------------------------------------------------------------------------------------------
@functools.cache
def stepped(**options):
    """(trainable parameters after a step, its sums), in float64 where that is on."""
    b = bench("seq2seq", 9, model=MODEL, longest=20, **{k: dict(v) for k, v in options.items()})
    state, sums = b.run(1)
    return b, state, sums


@x64
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"train": (("batch_size", 12), ("accumulate", 3))},
        {"train": (("batch_size", 12),), "data": (("packing", False),)},
        {"train": (("batch_size", 12),), "mesh": (("fsdp", 2), ("context", 2), ("tensor", 2))},
    ],
    ids=["micro-batches", "one pair a row", "mesh"],
)
def test_a_step_does_not_depend_on_how_it_is_computed(options):  # guards A1, A3, B9
    b, state, sums = stepped(train=(("batch_size", 12),))
    assert len(b.batches) == 1 and b.batches[0].source is not None
    _, other, its = stepped(**options)
    assert_close(sums.terms, its.terms, rtol=1e-12)
    assert_close(sums.totals, its.totals, rtol=1e-12)
    assert_close(state.trainable, other.trainable, atol=1e-12)


@pytest.mark.slow
def test_frozen_layers_stay_and_the_others_move():  # guards G10
    """An optimizer that orthogonalises each layer's matrices by itself, and the lowest layer of the
    encoder frozen.
    """
    b = bench(
        "seq2seq",
        5,
        model=MODEL,
        longest=12,
        optim=Muon(learning_rate=0.1),
        train={"batch_size": 8, "freeze": ["encoder/layers/0/.*"]},
    )
    assert set(b.apart[1]) == {"encoder"} and list(b.apart[0]["encoder"]["layers"]) == ["1"]
    state, _ = b.run(1)
    before, after = flatten(b.apart[0]), flatten(state.trainable)
    assert all((np.asarray(before[name]) != np.asarray(after[name])).any() for name in before)
    # [L, D, H N]
    q = (after["decoder/layers/0/cross/q/w"] - before["decoder/layers/0/cross/q/w"]).reshape(
        2, 16, 16
    )
    spread = np.linalg.svd(np.asarray(q), compute_uv=False)
    assert (spread.max(1) / spread.min(1) < 40).all() and np.allclose(
        spread.max(1), spread.max(), rtol=0.5
    )


def test_flops_are_those_of_both_halves():
    """In proportion to the texts, but for what sees each other; frozen halves cost less."""
    b = bench("seq2seq", 5, model=MODEL, longest=12)
    flops = lambda sizes, trained=b.program.specs: device.model_flops(
        b.config, b.parts.task, b.parts.specs, trained, np.array(sizes)
    )
    assert flops([[8, 4], [5, 9]]) == pytest.approx(flops([[8, 4]]) + flops([[5, 9]]))
    products = sum(
        2 * 3 * np.prod(s.matrix) * s.shape[0]
        for s in flatten(b.parts.specs["encoder"]).values()
        if s.matrix
    )
    # in the encoder, and of eight tokens of the target
    scores = 3 * 4 * 16 * 2 * (10**2 - 9**2 + 8)
    crossed = sum(
        2 * 3 * np.prod(s.matrix) * 2
        for p, s in flatten(b.parts.specs["decoder"]).items()
        if p.endswith(("cross/k/w", "cross/v/w"))
    )
    assert flops([[8, 10]]) - flops([[8, 9]]) == pytest.approx(products + crossed + scores)
    frozen = {key: value for key, value in b.program.specs.items() if key == "decoder"}
    assert flops([[8, 4]], frozen) < flops([[8, 4]])


# --- a whole run
# --------------------------------------------------------------------------------------------------
WORDS = ("red", "blue", "green", "one", "two", "sun")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run that has learnt pairs by heart, stopped half-way and continued."""
    folder = tmp_path_factory.mktemp("pairs")
    path = tiny.write_lines(
        folder / "pairs.jsonl", [{"source": f"say {word}", "target": word[::-1]} for word in WORDS]
    )
    options = [
        "task=seq2seq",
        "model=encoder_decoder",
        "tokenizer=bytes",
        "task.scores=[exact_match]",
        "precision=fp32",
        "mesh.data=1",
    ]
    options += [
        "model.layers=1",
        "model.decoder_layers=1",
        "model.embed=32",
        "model.heads=2",
        "model.kv_heads=2",
        "model.head_dim=16",
        "model.mlp=64",
        "model.context=64",
        "model.unroll=none",
    ]
    options += [
        "optim.learning_rate=0.01",
        "schedule=constant",
        "evaluation.every=40steps",  # a step of an evaluation is saved, though none is made here
        f"data.train={path}",
        f"data.test={path}",
        f"run_dir={folder / 'run'}",
    ]
    tiny.train(*options, "train.duration=40steps", "evaluation.generate=never")
    assert rundir.read_json(folder / "run" / "result.json")["train/steps"] == 40
    return (
        path,
        tiny.train(*options, "train.duration=80steps", "evaluation.generate=never"),
        options,
    )


@pytest.mark.slow
def test_a_run_learns_its_pairs_and_answers(learnt, tmp_path):  # guards C1, C10, F1
    path, result, _ = learnt
    assert result.numbers["train/steps"] == 80 and result.numbers["test/loss"] < 0.2
    model = api.load(result, "evaluation.generate=end")
    assert model.evaluate(str(path))["exact_match"] == 1.0
    out = tmp_path / "out.jsonl"
    code, _, err = tiny.jaxsft("predict", f"run={result.run_dir}", f"input={path}", f"output={out}")
    assert code == 0, err
    assert [json.loads(line)["prediction"] for line in out.read_text().splitlines()] == [
        word[::-1] for word in WORDS
    ]
    assert model.generate("say red", num_beams=2) == "der"
    ledger = rundir.read_json(result.run_dir / "ledger.json")["train"]
    assert (
        ledger["source_tokens"]["kept"] == sum(len(f"say {word}") + 2 for word in WORDS)
        and ledger["packing"]["source"]["fill"] > 0
    )
