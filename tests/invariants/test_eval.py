"""The trust suite of evaluation: a number belongs to the data, not to the batches that it was
counted in.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxsft.data import pipeline
from jaxsft.data.records import Chat, Message
from jaxsft.errors import ConfigError
from jaxsft.evaluation import answered, generated, passes
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.evaluation.generated import answer_limit
from jaxsft.generation.decoding import Answer
from jaxsft.models.attention import TokenInfo
from tests.conftest import assert_same, bench, make_records, short

pytestmark = pytest.mark.usefixtures("x64")
ROWS = 13


@functools.cache
def made(task, mesh=(), packing=True):
    loss = (
        {"label_smoothing": 0.1, "z_loss": 0.01} if task != "classify" else {"label_smoothing": 0.1}
    )
    return bench(
        task, ROWS, loss=loss, data={"packing": packing}, model={"dropout": 0.3}, mesh=dict(mesh)
    )


@functools.cache
def evaluated(task, batch_size, mesh=(), packing=True):
    """(bench, Evaluation), as the training loop does it."""
    b = made(task, mesh, packing)
    split = dataclasses.replace(b.batches.split, name="validation")
    batches = pipeline.make_batches(split, b.config.data, batch_size, None)
    run = lambda batch: b.evaluate(*b.apart, b.put(batch), b.hyper)
    result = evaluation.evaluate(
        run,
        b.parts.task,
        batches,
        b.hyper["terms"],
    )
    return dataclasses.replace(b, batches=batches), result


def same(one, other):
    assert one.numbers.keys() == other.numbers.keys()
    np.testing.assert_allclose(list(one.numbers.values()), list(other.numbers.values()), rtol=1e-12)
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns:
        np.testing.assert_allclose(one.columns[name], other.columns[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("batch_size", short([1, 3], 3))
@pytest.mark.parametrize("task", ["chat", "classify"])
def test_batch_size_does_not_matter(task, batch_size):  # guards E1, E3
    _, expected = evaluated(task, 8)
    assert all(math.isfinite(v) for v in expected.numbers.values())
    same(evaluated(task, batch_size)[1], expected)


@pytest.mark.parametrize("task", short(["chat", "lm"], "chat"))
def test_packing_and_devices_do_not_matter(task):  # guards B9, E2
    """Eight devices with thirteen texts: the last batch is mostly filler."""
    _, expected = evaluated(task, 8)
    same(evaluated(task, 8, mesh=(("data", 8),), packing=False)[1], expected)


@pytest.mark.parametrize("task", ["chat", "lm", "classify"])
def test_every_row_is_evaluated_once(task):  # guards E2, E3, E5
    b, result = evaluated(task, 8)
    counted = "rows" if task == "classify" else "tokens"
    assert result.numbers[counted] == (
        ROWS if task == "classify" else b.batches.split.ledger["tokens"]["trained"]
    )
    lines = list(b.parts.task.predictions(b.batches.split, result.columns, None))
    assert [line["row"] for line in lines] == list(range(ROWS))
    if task != "classify":
        assert sum(line["tokens"] for line in lines) == result.numbers["tokens"]
    ids = [b.batches[k].example_ids for k in range(len(b.batches))]
    assert sorted(int(e) for x in ids for e in x.ravel() if e >= 0) == list(range(ROWS))


def test_a_row_that_is_missing_is_noticed():  # guards E2, E3
    b, _ = evaluated("chat", 3)

    class Short(pipeline.Batches):
        def example_ids(self, step):
            ids = super().example_ids(step)
            return np.full_like(ids, -1) if step == len(self) - 1 else ids

    run = lambda batch: b.evaluate(*b.apart, batch, b.hyper)
    with pytest.raises(AssertionError, match="twice or not at all"):
        passes.run_pass(run, Short(b.batches.split, b.batches.plan, 3, None))


def test_class_metrics_are_those_of_the_whole_file():  # guards E4
    """From the predictions, by scikit-learn, over batches of one row."""
    b, result = evaluated("classify", 1)
    lines = list(b.parts.task.predictions(b.batches.split, result.columns, None))
    gold, predicted = [line["label"] for line in lines], [line["prediction"] for line in lines]
    assert gold == [r.label for r in make_records("classify", ROWS)[0]] and len(b.batches) > 1
    assert result.numbers["accuracy"] == pytest.approx(
        sklearn.accuracy_score(gold, predicted), abs=1e-12
    )
    for average in ("macro", "micro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(
            gold, predicted, average=average, zero_division=0
        )
        found = [result.numbers[f"{m}_{average}"] for m in ("precision", "recall", "f1")]
        np.testing.assert_allclose(found, expected[:3], atol=1e-12)
    assert [line["correct"] for line in lines] == [
        g == p for g, p in zip(gold, predicted, strict=True)
    ]
    logits = result.columns["logits"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose([line["probability"] for line in lines], p.max(-1))


def test_perplexity_by_hand():  # guards C15, E5
    """Every trained token counts once, whatever its weight; the loss is weighted and smoothed, the
    perplexity is not.
    """
    b, result = evaluated("chat", 8, packing=False)
    nll, hits = {}, 0
    for k in range(len(b.batches)):
        batch = b.batches[k]
        hidden = b.parts.model.hidden(
            b.params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions)
        )
        logits = np.asarray(hidden @ b.params["embed"]["tokens"]["w"].T)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        for r, s in zip(*np.nonzero(batch.loss_weight > 0), strict=True):
            nll.setdefault(int(batch.example_ids[r, 0]), []).append(
                -log_p[r, s, batch.targets[r, s]]
            )
            hits += logits[r, s].argmax() == batch.targets[r, s]
    every = np.concatenate(list(nll.values()))
    assert result.numbers["tokens"] == len(every) and result.numbers[
        "token_accuracy"
    ] == hits / len(every)
    assert result.numbers["perplexity"] == pytest.approx(math.exp(every.mean()), rel=1e-12)
    assert abs(result.numbers["loss"] - every.mean()) > 1e-3
    lines = list(b.parts.task.predictions(b.batches.split, result.columns, None))
    np.testing.assert_allclose(
        [line["nll"] for line in lines], [sum(nll[line["row"]]) for line in lines], rtol=1e-12
    )


def test_generation_reaches_every_reference():
    """`auto` is enough for the longest answer with its stop token; a number that is not is an error
    that names the row, unless cuts are allowed.
    """
    records = [Chat((Message("user", "ask"), Message("assistant", "x" * n))) for n in (3, 70, 5)]
    where = [f"rows.jsonl:{i + 1}" for i in range(3)]

    def limit(rows=None, **generate):
        b = bench(
            "chat",
            records=(records, where),
            model={"context": 128},
            generate=generate,
            evaluation={"generate_rows": rows},
        )
        return answer_limit(b.parts.task, b.batches.split, b.config)

    assert limit() == (128, 0) and limit(rows=1) == (64, 0)  # 71 and 4, rounded up
    assert limit(max_new_tokens=71) == (71, 0) and limit(rows=1, max_new_tokens=4) == (4, 0)
    with pytest.raises(
        ConfigError,
        match=r"rows\.jsonl:2: the answer has 71 tokens .*max_new_tokens=70, .*1 of 3 such rows",
    ):
        limit(max_new_tokens=70)
    assert limit(max_new_tokens=5, allow_cut=True) == (5, 2)


def test_a_reference_is_what_is_trained(tmp_path):
    """Not the content of the message: a template may write more (a tool call), or the prompt may
    open what the content begins with.
    """
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{% if"
        " m.tool_calls %}CALL {{ m.tool_calls | tojson }}{% endif %}{{ m.content }}<|end|>{%"
        " endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}{% if"
        " add_generation_prompt %}<|assistant|>{% endif %}"
    )
    (tmp_path / "mine.jinja").write_text(source)
    calls = [{"type": "function", "function": {"name": "w"}}]
    records = [
        Chat((Message("user", "ask"), Message("assistant", "", 1.0, {"tool_calls": calls}))),
        Chat((Message("user", "b"), Message("assistant", "B"))),
    ]
    b = bench(
        "chat",
        records=(records, ["a:1", "a:2"]),
        task={"template": str(tmp_path / "mine.jinja")},
        model={"context": 128},
        longest=120,
    )
    call = 'CALL [{"type": "function", "function": {"name": "w"}}]'
    assert [b.parts.task.reference(r, "a:1") for r in records] == [call, "B"]
    line = b.parts.task.describe(records[0], "a:1", call)
    assert line["correct"] and not b.parts.task.describe(records[0], "a:1", "")["correct"]


def test_a_special_token_inside_an_answer_is_no_match(monkeypatch):  # guards C1
    records = [
        Chat((Message("user", "x"), Message("assistant", text))) for text in ("ab", "ab", "ab ")
    ]
    b = bench("chat", records=(records, [f"rows.jsonl:{i}" for i in range(1, 4)]))
    task, split = b.parts.task, b.batches.split
    plain, special = task.tokenizer.encode("ab"), task.tokenizer.special_id("<|user|>")
    text = lambda ids: task.tokenizer.decode(ids, skip_special=False)
    written = [
        Answer(ids, True, text(ids))
        for ids in (plain, [plain[0], special, plain[1]], [*plain, special])
    ]
    monkeypatch.setattr(generated, "generate", lambda *_, **__: written)
    empty = evaluation.Evaluation({}, {}, {})
    result = answered.with_answers(
        empty, task, b.parts.model, b.params, split, b.config, b.parts.mesh
    )
    answers, numbers = result.answers, result.numbers
    assert answers == {0: "ab", 1: "a<|user|>b", 2: "ab<|user|>"} and numbers[
        "exact_match"
    ] == pytest.approx(1 / 3)
    assert [task.describe(records[i], split.where[i], answers[i])["correct"] for i in range(3)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "positions, told",
    [("learned", "take model.positions=rope"), ("rope", "set generate.allow_long=true")],
)
def test_a_prompt_that_has_no_positions_is_named_before_training(positions, told):  # guards E8
    records = [Chat((Message("user", "x" * n), Message("assistant", "a"))) for n in (3, 90)]
    cut = {"too_long": "truncate_left", "max_length": 64}
    b = bench(
        "chat",
        records=(records, ["a:1", "a:2"]),
        model={"positions": positions, "context": 64},
        data=cut,
    )
    with pytest.raises(
        ConfigError, match=rf"^a:2: the prompt has 93 tokens, .*model\.context=64 .*{told}"
    ):
        answer_limit(b.parts.task, b.batches.split, b.config)
    long = dataclasses.replace(
        b.config, generate=dataclasses.replace(b.config.generate, allow_long=True)
    )
    if positions == "rope":
        assert answer_limit(b.parts.task, b.batches.split, long) == (64, 0)


@pytest.mark.parametrize("name", ["train", "held"])
def test_a_file_that_is_called_train_is_evaluated_in_order(name):  # guards E1
    b = bench("classify", 13, evaluation={"batch_size": 3}, train={"batch_size": 5})
    batches = b.parts.batches(dataclasses.replace(b.batches.split, name=name))
    assert batches.batch_size == 3 and batches.seed is None


def test_evaluation_repeats_and_changes_nothing():  # guards E13
    """The model has dropout: two evaluations are equal to the bit, and a training that is evaluated
    is the one that is not.
    """
    b, result = evaluated("chat", 8)
    evaluated.cache_clear()
    again = evaluated("chat", 8)[1]
    assert_same((result.numbers, result.columns), (again.numbers, again.columns))
    train = made("chat")
    straight, _ = train.run(2)
    state, _ = train.run(1)
    before = jax.tree.map(np.array, state)
    passes.run_pass(
        lambda batch: train.evaluate(
            train.program.weights(state), train.apart[1], batch, train.hyper
        ),
        b.batches,
    )
    assert_same(state, before)
    state, _ = train.run([1], state)
    assert_same(state, straight)


@pytest.mark.slow
def test_noise_on_embeddings_is_of_training_only():  # guards H9
    plain, noisy = (bench("lm", 5, train={"neftune": alpha}) for alpha in (None, 5.0))
    batch = plain.batches[0]
    evaluate = lambda b: b.evaluate(*b.apart, b.put(batch), b.hyper)
    assert_same(evaluate(plain)[0], evaluate(noisy)[0])
    losses = [b.step(b.state(), b.apart[1], b.put(batch), b.hyper)[1] for b in (plain, noisy)]
    assert any(
        np.abs(np.asarray(x) - np.asarray(y)).max() > 1e-6
        for x, y in zip(*map(jax.tree.leaves, losses), strict=True)
    )
