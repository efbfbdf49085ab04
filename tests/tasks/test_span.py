"""`task=span`: what is scored, where the pointers stand in packed rows and in windows, and which
stretch is the likeliest.
"""

import dataclasses
import itertools
import string
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batches
from jaxsft.data.records import Question, question_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics import answers
from jaxsft.rundir import read_json, read_jsonl
from jaxsft.tasks.span import SpanTask
from tests import tiny
from tests.conftest import assert_close, bench, distance, make_config
from tests.invariants.test_packing import left_padded


# --- metrics and records
# --------------------------------------------------------------------------------------------------
def test_scores_of_answers_by_hand():
    assert answers.normalised(" The U.S.  Navy, an arm") == "us navy arm"
    assert answers.exact("the Navy!", "navy") == 1 and answers.exact("army", "navy") == 0
    assert answers.f1("red big house", "the big red barn") == pytest.approx(2 * 2 / (3 + 3))
    assert answers.f1("big big", "big") == pytest.approx(2 / 3)
    assert answers.f1("", "x") == 0 and answers.f1("the", "") == 1  # no words on both sides
    assert (
        answers.best(answers.f1, "a b c", ["z", "b c"]) == 1
        and answers.best(answers.exact, "", ()) == 1
        and answers.best(answers.f1, "x", ()) == 0
    )


def row(**fields):
    return Row({"question": "Who?", "context": "It was Ann, then Bo."} | fields, "a.jsonl", 3)


@pytest.mark.parametrize(
    "found",
    [
        {"text": ["Ann", "Bo"], "answer_start": [7, 17]},
        [{"text": "Ann", "answer_start": 7}, {"text": "Bo", "start": 17}],
    ],
)
def test_answers_are_read_from_either_form(found):
    assert question_record(row(answers=found), Columns()) == Question(
        "Who?", "It was Ann, then Bo.", ("Ann", "Bo"), (7, 17)
    )
    assert question_record(row(answers={"text": [], "answer_start": []}), Columns()).answers == ()
    named = question_record(row(q="Why?", a=found), Columns(text="q", answers="a"))
    assert named.question == "Why?" and named.starts == (7, 17)


@pytest.mark.parametrize(
    "found, message",
    [
        (
            {"text": ["Ann"], "answer_start": [8]},
            "at character 8 of the context stands 'nn,', expected the answer 'Ann'",
        ),
        ({"text": ["Ann"], "answer_start": []}, "1 texts and 0 places"),
        ({"text": "Ann"}, "expected text and answer_start"),
        ("Ann", "expected text and answer_start"),
        ({"text": [""], "answer_start": [0]}, "expected a text and a number"),
        ({"text": ["Ann"], "answer_start": [-3]}, "at character -3"),
    ],
)
def test_an_answer_that_does_not_stand_there_names_its_row(found, message):  # guards D9
    with pytest.raises(DataError) as error:
        question_record(row(answers=found), Columns())
    assert str(error.value).startswith("a.jsonl:3: column 'answers'") and message in str(
        error.value
    )


# --- pointers
# --------------------------------------------------------------------------------------------------
def questions(count=9):
    rng, out = np.random.default_rng(0), []
    for i in range(count):
        context = "".join(rng.choice(list(string.ascii_lowercase + "  "), 12 + 3 * i))
        start = int(rng.integers(0, len(context) - 4))
        answer = context[start : start + 3]
        none = i % 4 == 3 or not answer.strip()
        out.append(
            Question(
                "".join(rng.choice(list("xyz"), 1 + i % 3)),
                context,
                () if none else (answer,),
                () if none else (start,),
            )
        )
    return out, [f"a.jsonl:{i + 1}" for i in range(count)]


def made(packing=True, accumulate=1, max_length=64, **data):
    options = {"packing": packing, "max_length": max_length, **data}
    b = bench(
        "span",
        records=questions(),
        task={"max_answer": 5},
        data=options,
        train={"batch_size": 16, "accumulate": accumulate},
        model={"layers": 1},
    )
    return dataclasses.replace(b, batches=Batches(b.batches.split, b.batches.plan, 16, None))


@pytest.mark.parametrize("max_length", [64, 30])
def test_pointers_stand_on_the_answer(max_length):  # guards D6, B6
    """In packed rows, and in windows: in each one that holds it whole, and in at least one; else on
    the first token. Weights of a row add to 1.
    """
    b = made(max_length=max_length, too_long="window", stride=5)
    batch, records = b.batches[0], questions()[0]
    seen, parts = {}, np.bincount(b.batches.split.arrays["row"])
    assert (parts.max() > 1) == (max_length == 30)
    for i, g in np.argwhere(batch.example_ids >= 0):
        row = int(b.batches.split.arrays["row"][batch.example_ids[i, g]])
        ids = batch.tokens[i][batch.segment_ids[i] == g + 1]
        start, end = (int(batch.segment[name][i, g]) for name in ("start", "end"))
        if start:
            assert b.parts.tokenizer.decode(ids[start : end + 1]) == records[row].answers[0]
            seen[row] = True
        else:
            assert end == 0
    assert set(seen) == {i for i, r in enumerate(records) if r.answers}
    np.testing.assert_allclose(
        np.bincount(b.batches.split.arrays["row"], b.batches.split.arrays["segment.weight"]),
        1,
        rtol=1e-6,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_question_does_not_know_its_mates():  # guards A1, B1, B9
    """Packed or not, padded left, in micro-batches: one loss, one gradient, one answer."""
    packed, plain, cut = made(), made(packing=False), made(packing=False, accumulate=4)
    assert packed.batches.plan.texts > 1
    (one, sums), (two, other), (three, third) = packed.run([0]), plain.run([0]), cut.run([0])
    assert distance(one.trainable, packed.params) > 1e-3 and not sums.skipped
    for state, found in ((two, other), (three, third)):
        assert_close((sums.terms, sums.totals), (found.terms, found.totals), rtol=1e-11)
        assert_close(one.trainable, state.trainable, atol=1e-11)

    def said(b, batch):
        found = b.evaluate(*b.apart, batch, b.hyper)[1]
        return {
            int(e): {k: np.asarray(v[i]) for k, v in found.items()}
            for i, e in np.ndenumerate(batch.example_ids)
            if e >= 0
        }

    expected = said(plain, plain.batches[0])
    assert len(expected) == 9
    for batch in (packed.batches[0], left_padded(packed.batches[0])):
        assert_close(said(packed, batch), expected, atol=1e-10)


def test_the_likeliest_stretch_is_that_of_all(seed=0):
    """By looking at every stretch of up to five tokens of each context; the loss by hand."""
    b = made()
    batch, task, rng = b.batches[0], b.parts.task, np.random.default_rng(seed)
    logits = rng.normal(size=(*batch.tokens.shape, 2)).astype(np.float32)
    g = batch.example_ids.shape[1]
    mine = batch.segment_ids[:, None] == np.arange(1, g + 1)[None, :, None]
    log_z = jax.nn.logsumexp(jnp.where(mine[..., None], logits[:, None], -1e30), axis=2)
    found = task.best(jnp.asarray(logits), log_z, batch)
    tail = b.parts.tokenizer.wrap([], []).tail
    for i, k in np.argwhere(batch.example_ids >= 0):
        z = logits[i][batch.segment_ids[i] == k + 1].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum(0))
        context = range(int(batch.segment["context"][i, k]), len(z) - tail)
        best = max(
            (log_p[s, 0] + log_p[e, 1], s, e)
            for s, e in itertools.product(context, context)
            if 0 <= e - s < 5
        )
        assert (int(found.start[i, k]), int(found.end[i, k])) == best[1:] and float(
            found.score[i, k]
        ) == pytest.approx(best[0], rel=1e-4)
        assert float(found.nothing[i, k]) == pytest.approx(log_p[0].sum(), rel=1e-4)


@pytest.mark.parametrize("how", ["truncate_right", "head_tail"])
def test_a_cut_that_would_lose_answers_is_refused(how):
    with pytest.raises(ConfigError, match=r"^data\.too_long=.*task=span would lose answers"):
        make_config("span", data={"too_long": how})


def test_from_the_command_line(tmp_path):
    rows = []
    for i in range(24):
        name = ("Ann", "Bo", "Cy")[i % 3]
        context = f"{'x ' * (i % 5)}we saw {name} there"
        rows.append(
            {
                "question": "who",
                "context": context,
                "answers": {"text": [name], "answer_start": [context.index(name)]},
            }
        )
    tiny.write_lines(tmp_path / "train.jsonl", rows)
    tiny.write_lines(
        tmp_path / "bare.jsonl",
        [{"question": r["question"], "context": r["context"]} for r in rows[:4]],
    )
    options = [
        *tiny.FAST,
        "train.duration=40steps",
        "optim.learning_rate=0.02",
        "model.dropout=0.0",
        "tokenizer=bytes",
        "evaluation.every=40steps",
    ]
    code, _, err = tiny.jaxsft(
        "train",
        "task=span",
        *options,
        *(f"data.{n}={tmp_path / 'train.jsonl'}" for n in ("train", "validation")),
        f"run_dir={tmp_path / 'run'}",
    )
    assert code == 0, err
    result, lines = (
        read_json(tmp_path / "run" / "result.json"),
        read_jsonl(tmp_path / "run" / "predictions" / "validation.jsonl"),
    )
    assert (
        result["validation/exact_match"]
        == np.mean([line["prediction"] == line["label"] for line in lines])
        and result["validation/f1"] > 0.3
    )
    code, _, err = tiny.jaxsft(
        "predict",
        f"run={tmp_path / 'run'}",
        f"input={tmp_path / 'bare.jsonl'}",
        f"output={tmp_path / 'out.jsonl'}",
    )
    assert code == 0, err
    assert [line["prediction"] for line in read_jsonl(tmp_path / "out.jsonl")] == [
        line["prediction"] for line in lines[:4]
    ]


def filled(rng, rows, length, texts):
    """A batch of rows with texts of random lengths, beginning anywhere: segments, positions and
    where the context of each text begins.
    """
    segments, positions = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    context, ids = np.zeros((rows, texts), np.int32), np.full((rows, texts), -1)
    for row in range(rows):
        borders = (
            sorted(rng.choice(length + 1, 2 * texts))
            if row % 3
            else [0, length, *[length] * (2 * texts - 2)]
        )
        for k, (a, b) in enumerate(zip(borders[::2], borders[1::2], strict=True)):
            if b - a >= 3:
                segments[row, a:b], positions[row, a:b] = k + 1, np.arange(b - a)
                context[row, k], ids[row, k] = rng.integers(1, b - a - 1), k
    arrays = {"segment_ids": segments, "positions": positions, "example_ids": ids}
    return SimpleNamespace(
        **{name: jnp.asarray(x) for name, x in arrays.items()},
        segment={"context": jnp.asarray(context)},
    )


@pytest.mark.parametrize("longest", [1, 3, 30])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e38])
def test_the_best_stretch_lies_in_its_context_for_any_logits(longest, scale):
    """Whatever fills a row, to its last place too: equal to a search by two loops."""
    rng = np.random.default_rng(int(longest + scale % 7))
    batch = filled(rng, 40, 13, 3)
    logits = (scale * rng.normal(size=(40, 13, 2)).clip(-3, 3)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = rng.choice([min(9 * scale, 1e38), -np.inf])
    if scale == 1e38:
        logits[rng.random(logits.shape) < 0.2] = np.nan
    task = SimpleNamespace(tokenizer=SimpleNamespace(wrap=lambda a, b: SimpleNamespace(tail=1)))
    task.config = SimpleNamespace(task=SimpleNamespace(max_answer=longest))
    found = SpanTask.best(task, jnp.asarray(logits), jnp.zeros((40, 3, 2)), batch)
    start, end = np.asarray(found.start), np.asarray(found.end)
    for row, k in np.argwhere(batch.example_ids >= 0):
        own = np.flatnonzero(batch.segment_ids[row] == k + 1)
        first, last = batch.segment["context"][row, k], len(own) - 2
        assert (
            first <= start[row, k] <= end[row, k] <= last and end[row, k] - start[row, k] < longest
        )
        z = np.where(logits[row, own] > -1e30, logits[row, own], -1e30).astype(np.float64)
        best = max(
            z[s, 0] + z[e, 1]
            for s in range(first, last + 1)
            for e in range(s, min(s + longest, last + 1))
        )
        assert z[start[row, k], 0] + z[end[row, k], 1] == best
    assert (start >= 0).all() and (end >= start).all()


@pytest.mark.parametrize("text", ["\u200b", "\ufffd"])
def test_an_answer_that_the_tokenizer_empties_is_dropped_by_its_name(text):
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "sign": 3, "here": 4}
    document = {
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 9,
            "vocab": vocabulary,
        },
    }
    tokenizer = Tokenizer(
        document, {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    )
    task = SpanTask(make_config("span"), tokenizer, {"unanswered": False})
    records = [
        Question("sign", f"sign {text} here", (text,), (5,)),
        Question(text, "sign", ("sign",), (0,)),
        Question("here", "sign", ("sign",), (0,)),
    ]
    lost, no_question, kept = task.encode_all(records, ["a:1", "a:2", "a:3"])
    assert (lost, no_question) == ("answer_lost", "text_lost") and kept.segment[
        "start"
    ] == kept.segment["end"] == kept.segment["context"]
