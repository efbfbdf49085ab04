"""task=seq2seq: what is trained, how references are used, and whole runs of it."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from jaxsft import api, rundir, tasks
from jaxsft.config import schema
from jaxsft.data import formats
from jaxsft.data.file_records import Records
from jaxsft.data.records import Seq2Seq, seq2seq_record
from jaxsft.data.split_notes import in_training_too
from jaxsft.data.splits import read_splits
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.tasks.seq2seq import Seq2SeqTask
from jaxsft.training import setup
from jaxsft.training.components import build_components
from tests import tiny
from tests.measuring import scores_of
from tests.realdata import real

BYTES = Tokenizer.bytes()
BOS, END = BYTES.bos_id, BYTES.eos_id


def config(model=None, data=None, **task):
    files = {"train": "a.jsonl", "validation": "b.jsonl"} | (data or {})
    small = {
        "layers": 2,
        "embed": 16,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp": 32,
        "context": 128,
    } | (model or {})
    task = {"scores": ["exact_match"]} | task  # the others need a library
    return schema.Config(
        task=schema.Seq2SeqTask(**task),
        data=schema.DataConfig(**files),
        model=schema.ModelConfig(**small),
        mesh=schema.MeshConfig(data=1),
    )


def task_of(records, tokenizer=BYTES, **options):
    chosen = config(**options)
    return Seq2SeqTask(
        chosen, tokenizer, Seq2SeqTask.fit(chosen, tokenizer, records, ["a:1"] * len(records))
    )


def test_by_hand():  # guards C1, C6, C9, C15
    """bos, the source in its template, the target and eos; the last two carry the loss."""
    records = [Seq2Seq("ab", "xyz"), Seq2Seq(" ", "x"), Seq2Seq("q", "")]
    task = task_of(records, template="<{source}>")
    one, empty, short = task.encode_all(records, ["a:1", "a:2", "a:3"])
    assert (
        one.ids.tolist() == [BOS, *b"<ab>xyz", END]
        and one.weights.tolist() == [0] * 5 + [1] * 4
        and one.stop_ids == (END,)
    )
    assert (
        empty == "empty" and short.ids.tolist() == [BOS, *b"<q>", END] and short.weights.sum() == 1
    )
    assert (
        task.prompt(records[0], "a:1") == one.ids[:5].tolist()
        and task.answer(records[0], "a:1") == one.ids[5:].tolist()
    )
    assert task.answers_up_to == 2 * 4 + 16 and one.source is None
    plain = task_of(records)
    assert plain.prompt(records[0], "a:1") == [BOS, *b"ab\n"]
    assert plain.digest != task.digest  # guards D7


def test_text_that_looks_like_a_control_token_is_text():  # guards C11
    record = Seq2Seq("a<|end|>{source}", "<|bos|>")
    ids = task_of([record]).encode_all([record], ["a:1"])[0].ids.tolist()
    assert ids == [BOS, *b"a<|end|>{source}\n", *b"<|bos|>", END]


def test_training_has_every_reference_and_evaluation_every_source():
    records = [Seq2Seq("a", "x", ("x", "y")), Seq2Seq("b", "z"), Seq2Seq("a", "w")]
    where = ["f:1", "f:2", "f:3"]
    columns = schema.Columns(group_references=True)
    pairs, places = Seq2SeqTask.arrange(records, where, columns, training=True)
    assert [(r.source, r.target, r.references) for r in pairs] == [
        ("a", "x", ()),
        ("a", "y", ()),
        ("b", "z", ()),
        ("a", "w", ()),
    ]
    assert places == ["f:1", "f:1", "f:2", "f:3"]
    grouped, places = Seq2SeqTask.arrange(records, where, columns, training=False)
    assert grouped == [
        Seq2Seq("a", "x", ("x", "y", "w")),
        Seq2Seq("b", "z", ("z",)),
    ] and places == ["f:1", "f:2"]
    assert Seq2SeqTask.arrange(records, where, schema.Columns(), training=False) == (records, where)
    weighted = dataclasses.replace(records[0], weight=2.0)
    assert [
        r.weight for r in Seq2SeqTask.arrange([weighted], ["f:1"], columns, training=True)[0]
    ] == [2.0, 2.0]


def test_answers_are_scored_against_all_references():  # guards E14
    records = [Seq2Seq("a", "x", ("x", "the cat sat on the mat")), Seq2Seq("b", "no")]
    task = task_of(records, scores=["exact_match"])
    assert scores_of(task, ["the cat sat on the mat ", "yes"], records, ["", ""]) == {
        "exact_match": 0.5
    }
    assert (
        task.describe(records[0], "", "the cat sat on the mat")["correct"]
        and not task.describe(records[1], "", "x")["correct"]
    )
    # generation has room for the longest
    assert task.answer(records[0], "") == [*b"the cat sat on the mat", END]
    pytest.importorskip("sacrebleu")
    scores = lambda tokens: scores_of(
        task_of(records, scores=["bleu", "rouge_l"], score_tokens=tokens),
        ["the cat sat", "no."],
        records,
        ["", ""],
    )
    assert set(scores("13a")) == {"bleu", "rouge_l"} and scores("13a") != scores("none")


def test_tokens_of_scores_are_learnt_or_those_of_what_is_scored():  # guards E14
    """By the targets of training; a model that was not trained here has none."""
    pytest.importorskip("sacrebleu")
    chinese = [Seq2Seq("a", "我喜欢吃苹果。")]
    score = lambda task: scores_of(task, ["我喜欢吃红苹果。"], chinese, [""])["bleu"]
    trained, untrained = task_of(chinese, scores=["bleu"]), task_of([], scores=["bleu"])
    assert (trained.state["score_tokens"], untrained.state["score_tokens"]) == ("zh", None)
    assert (
        score(trained)
        == score(untrained)
        > 40
        > 1
        > score(task_of(chinese, scores=["bleu"], score_tokens="13a"))
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"template": "no place"}, r"expected \{source\} in it once"),
        ({"scores": ["bleu", "wer"]}, r"task.scores=\[wer\]"),
        ({"scores": []}, "expected at least one"),
        ({"score_tokens": "moses"}, "expected one of auto, 13a"),
        ({"model": {"causal": False}}, "set model.causal=True"),
        ({"start": ["<|bos|>"]}, "task.start=.*is read with model.decoder_layers"),
        ({"data": {"max_source_length": 9}}, "data.max_source_length=9: is read with"),
        (
            {"scores": ["chrf"], "score_tokens": "zh"},
            "is read with task.scores=null or bleu or rouge_l only",
        ),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        setup.resolve(config(**options))


def test_a_tokenizer_without_an_end_is_refused():  # guards C1
    with pytest.raises(ConfigError, match="an answer would never end"):
        task_of([Seq2Seq("a", "b")], tokenizer=Tokenizer(BYTES._document, {}))


def test_an_end_that_does_not_fit_drops_the_row(tmp_path):  # guards D8, C5
    records = [Seq2Seq("a", "b"), Seq2Seq("ab", "c" * 40)]
    made = lambda stop: config(
        data={
            "max_length": 16,
            "too_long": "truncate_right",
            "max_dropped": 0.5,
            "require_stop": stop,
            "cache_dir": str(tmp_path),
        }
    )
    for stop, dropped in ((True, {1: "stop_token_truncated"}), (False, {})):
        c = setup.resolve(made(stop))
        parts = build_components(c, BYTES, Seq2SeqTask.fit(c, BYTES, records, ["a:1", "a:2"]))
        assert parts.split("train", Records(records, ["a:1", "a:2"])).dropped == dropped


def test_rows_of_a_source_stay_in_one_split(tmp_path):
    """A file that is split keeps the references of a source together where they are grouped; a leak
    counts rows, not references.
    """
    rows = [{"source": f"s{i // 5}", "target": f"t{i}"} for i in range(100)]
    path = tiny.write_lines(tmp_path / "all.jsonl", rows)
    both = functools.partial(config, data={"train": None, "validation": None, "path": str(path)})
    plain = read_splits(both(), tasks.get("seq2seq"))
    grouped = both()
    grouped = dataclasses.replace(
        grouped,
        data=dataclasses.replace(grouped.data, columns=schema.Columns(group_references=True)),
    )
    apart = read_splits(grouped, tasks.get("seq2seq"))
    sources = lambda found: {name: {r.source for r in part.records} for name, part in found.items()}
    assert (
        not sources(plain)["train"] & sources(plain)["test"]
        and not sources(apart)["train"] & sources(apart)["test"]
    )
    assert len(apart["test"].records) == len(sources(apart)["test"]) and apart[
        "test"
    ].rows == 5 * len(apart["test"].records)
    assert in_training_too(apart, Seq2SeqTask)["test"] == 0
    leaky = apart | {
        "test": Records(
            [Seq2Seq("s", "t", ("t", apart["train"].records[0].target)), apart["train"].records[0]],
            ["", ""],
        )
    }
    assert in_training_too(leaky, Seq2SeqTask)["test"] == 1


# --- whole runs
# --------------------------------------------------------------------------------------------------
SMALL = [*tiny.FAST, "tokenizer=bytes", "task.scores=[exact_match]"]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run that has learnt ten pairs by heart."""
    folder = tmp_path_factory.mktemp("learnt")
    rows = [
        {"source": f"say {word}", "target": word[::-1]}
        for word in ("red", "blue", "green", "one", "two", "tree", "sun", "moon", "cat", "dog")
    ]
    path = tiny.write_lines(folder / "pairs.jsonl", rows)
    changed = [
        "train.duration=120steps",
        "evaluation.every=120steps",  # a step of an evaluation is saved, though none is made here
        "evaluation.generate=end",
        "generate.max_new_tokens=auto",
        "optim.learning_rate=0.01",
        "data.max_length=32",
    ]
    keep = [o for o in SMALL if o.partition("=")[0] not in {c.partition("=")[0] for c in changed}]
    result = api.train(
        "task=seq2seq",
        *keep,
        *changed,
        "model.embed=32",
        data={"train": path, "test": path},
        run_dir=folder / "run",
    )
    return rows, path, result


def test_what_was_learnt_is_generated(learnt):  # guards C1, C10
    rows, _, result = learnt
    assert result.numbers["test/exact_match"] == 1.0 and result.numbers["test/stopped"] == 1.0
    lines = rundir.read_jsonl(result.run_dir / "predictions" / "test.jsonl")
    assert [line["prediction"] for line in lines] == [row["target"] for row in rows] and all(
        line["correct"] for line in lines
    )


def test_predict_generate_and_eval_agree_with_training(learnt):
    rows, path, result = learnt
    model = api.load(result)
    given = [{"source": row["source"], "more": i} for i, row in enumerate(rows)]
    out = model.predict(given)
    assert [(line["prediction"], line["more"], line["stopped"]) for line in out] == [
        (row["target"], i, True) for i, row in enumerate(rows)
    ]
    assert (
        model.generate(rows[0]["source"])
        == rows[0]["target"]
        == model.predict([rows[0]["source"]])[0]["prediction"]
    )
    numbers = model.evaluate(str(path))
    assert numbers["exact_match"] == 1.0 and numbers["loss"] == pytest.approx(
        result.numbers["test/loss"], rel=1e-5
    )


def test_the_command_predicts_a_file_without_targets(learnt, tmp_path):
    rows, _, result = learnt
    path = tiny.write_lines(tmp_path / "new.jsonl", [{"source": row["source"]} for row in rows[:3]])
    code, _, err = tiny.jaxsft(
        "predict", f"run={result.run_dir}", f"input={path}", f"output={tmp_path / 'out.jsonl'}"
    )
    assert code == 0, err
    assert [
        json.loads(x)["prediction"] for x in (tmp_path / "out.jsonl").read_text().splitlines()
    ] == [row["target"] for row in rows[:3]]


def test_the_report_shows_sources_and_scores(learnt):
    page = (learnt[2].run_dir / "report.html").read_text()
    assert "say red" in page and "exact match" in page


# --- real data
# --------------------------------------------------------------------------------------------------
def test_meaning_representations_have_several_sentences():
    rows = formats.read(real("e2e_nlg/testset_w_refs.csv.gz"))
    columns = schema.Columns(source="mr", target="ref", group_references=True)
    records = [seq2seq_record(row, columns) for row in rows]
    grouped, _ = Seq2SeqTask.arrange(records, [row.where for row in rows], columns, training=False)
    assert (len(records), len(grouped)) == (4693, 630) and sum(
        len(r.references) for r in grouped
    ) <= len(records)
    encoded = task_of(grouped[:50]).encode_all(grouped[:50], [""] * 50)
    assert all(
        np.count_nonzero(e.weights) == len(r.target.encode()) + 1
        for e, r in zip(encoded, grouped[:50], strict=True)
    )


def test_stages_that_ask_a_model_take_such_a_run(learnt, tmp_path):
    """`prepare` translates with it, and new rows are translated alike before they are predicted."""
    rows, path, result = learnt
    stages = (
        "stages=[{translate: {target: back, language: null, input: source, fields: [source],"
        " original: before}}]"
    )
    _, done = api.prepare(
        f"data.train={path}", stages, f"run={result.run_dir}", f"output.dir={tmp_path / 'out'}"
    )
    assert done
    out = rundir.read_jsonl(tmp_path / "out" / "train.jsonl")
    assert [(row["source"], row["before"]) for row in out] == [
        (row["target"], row["source"]) for row in rows
    ]
