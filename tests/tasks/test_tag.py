"""task=tag from the file to the file: every gold word counts, long texts are read in windows, and
wrong tags are told with their place.
"""

import dataclasses
import functools

import numpy as np
import pytest

from jaxsft import api, rundir, tasks
from jaxsft.config.schema import Columns
from jaxsft.data import encoded_split, formats
from jaxsft.data.formats import Row
from jaxsft.data.records import Tags, tag_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.models.crf import ChainScores
from jaxsft.tasks.rows import words_by_row as by_text
from jaxsft.tasks.tag import UNTAGGED
from tests import tiny
from tests.conftest import assert_same, bench, make_config
from tests.measuring import matrix_of, numbers_of
from tests.realdata import real

WORDS = {"in": "O", "see": "O", "Rome": "B-LOC", "Oslo": "B-LOC", "Ann": "B-PER", "Lee": "I-PER"}


def sentence(rng, words):
    """Ann is followed by Lee, which is nothing by itself: tags depend on words alone."""
    out = []
    while len(out) < words:
        word = str(rng.choice(["in", "see", "Rome", "Oslo", "Ann"]))
        out += ["Ann", "Lee"] if word == "Ann" else [word]
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Short sentences to learn from; short and very long ones to score."""
    folder, rng = tmp_path_factory.mktemp("tags"), np.random.default_rng(0)
    for name, sizes in {"train": [6] * 40, "held": [5, 60, 7, 45]}.items():
        rows = [sentence(rng, n) for n in sizes]
        text = "\n".join("".join(f"{word}\t{WORDS[word]}\n" for word in row) for row in rows)
        (folder / f"{name}.conll").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(files):
    options = [
        "model.embed=32",
        "model.layers=1",
        "model.context=64",
        "data.max_length=64",
        "precision=fp32",
        "tokenizer=bytes",
        "mesh.data=1",
    ]
    options += [
        "train.duration=60steps",
        "train.batch_size=4",
        "optim.learning_rate=0.01",
        "task.crf=true",
        "task.valid=true",
        "model.dropout=0",
    ]
    options += [
        "data.too_long=window",
        "data.stride=20",
        "evaluation.every=60steps",
        "checkpoint.every=60steps",
        "model.mlp=64",
    ]
    splits = [f"data.train={files / 'train.conll'}", f"data.validation={files / 'held.conll'}"]
    code, _, err = tiny.jaxsft("train", "task=tag", *splits, f"run_dir={files / 'run'}", *options)
    assert code == 0, err
    return files / "run"


def gold(path):
    return [row.fields for row in formats.read(path)]


def test_every_word_of_the_file_is_scored(run, files):  # guards D6
    """Sentences of several rows' length are learnt and scored in windows; the counts are those of
    the file.
    """
    rows, lines, result = (
        gold(files / "held.conll"),
        rundir.read_jsonl(run / "predictions" / "validation.jsonl"),
        rundir.read_json(run / "result.json"),
    )
    count = sum(len(row["tokens"]) for row in rows)
    assert result["validation/words"] == count > 110
    assert [line["tokens"] for line in lines] == [row["tokens"] for row in rows] and all(
        len(x["tags"]) == len(x["prediction"]) for x in lines
    )
    right = sum(
        a == b for line in lines for a, b in zip(line["tags"], line["prediction"], strict=True)
    )
    assert result["validation/accuracy"] == right / count > 0.9
    assert result["validation/f1_micro"] > 0.9
    ledger = rundir.read_json(run / "ledger.json")["validation"]
    assert (
        ledger["packing"]["examples"] > len(rows) == ledger["rows"]["kept"]
        and ledger["tokens"]["dropped"] == {}
    )
    # a word is a target once, in however many windows it stands
    assert ledger["tokens"]["trained"] == count
    table = rundir.read_json(run / "figures" / "table_chunks_validation.json")
    assert sorted(row[0] for row in table["rows"]) == ["LOC", "PER"] and "LOC" in (
        run / "report.md"
    ).read_text("utf-8")


def test_predictions_come_back_in_the_format_of_the_input(run, files, tmp_path):
    """Words without tags in, words with tags out; as JSON the tags stand beside the fields; a text
    is cut into words.
    """
    rows = gold(files / "held.conll")
    formats.write(({"tokens": row["tokens"]} for row in rows), tmp_path / "new.conll")
    for name in ("out.conll", "out.jsonl"):
        code, _, err = tiny.jaxsft(
            "predict", f"run={run}", f"input={tmp_path / 'new.conll'}", f"output={tmp_path / name}"
        )
        assert code == 0, err
    out, lines = gold(tmp_path / "out.conll"), rundir.read_jsonl(tmp_path / "out.jsonl")
    assert [row["tokens"] for row in out] == [row["tokens"] for row in rows] and [
        row["tags"] for row in out
    ] == [x["prediction"] for x in lines]
    assert [x["prediction"] for x in lines] == [
        x["prediction"] for x in rundir.read_jsonl(run / "predictions" / "validation.jsonl")
    ]
    model = api.load(run)
    text, words = model.predict(["see Rome", {"tokens": ["see", "Rome"]}])
    assert text["prediction"] == words["prediction"] == ["O", "B-LOC"]
    scored = model.evaluate(str(files / "held.conll"))
    assert (
        scored["f1_micro"] == rundir.read_json(run / "result.json")["validation/f1_micro"]
        and scored["rows_read"] == 4
    )


# --- without a model
# --------------------------------------------------------------------------------------------------
@functools.cache
def task(valid=False, **data):
    config = make_config("tag", data=data, task={"valid": valid})
    records = [Tags(("a", "b", "c"), ("B-X", "I-X", "O"), "iob2"), Tags(("d",), ("B-Y",), "iob2")]
    kind = tasks.get("tag")
    return kind(
        config, Tokenizer.bytes(), kind.fit(config, Tokenizer.bytes(), records, ["f:1", "f:2"])
    )


@pytest.mark.parametrize(
    "record, message",
    [
        (
            Tags(("a", "b"), ("O", "B-Z"), "iob2"),
            (
                r"f:7: tag 'B-Z' of word 2, 'b', is not in the vocabulary of 4 tags \(B-X, B-Y,"
                r" I-X, O\)"
            ),
        ),
        (
            Tags(("a", "b"), ("O", "I-X"), "iob1"),
            (
                r"f:7: tag 2 breaks iob2, in which the training split is written:"
                r" .*data.columns.scheme=none"
            ),
        ),
    ],
)
def test_a_wrong_tag_is_told_with_its_place(record, message):
    with pytest.raises(DataError, match=message):
        task().encode_all([record], ["f:7"])


def test_what_cannot_be_learnt():
    kind, config = tasks.get("tag"), make_config("tag")
    with pytest.raises(DataError, match=r"f: 1 different tags \(O\); tagging needs at least two"):
        kind.fit(config, Tokenizer.bytes(), [Tags(("a",), ("O",), "iob2")], ["f:1"])
    with pytest.raises(ConfigError, match=r"task.valid=true: the tags are no chunks"):
        kind.fit(
            make_config("tag", task={"valid": True}),
            Tokenizer.bytes(),
            [Tags(("a", "b"), ("N", "V"), "none")],
            ["f:1"],
        )
    for options, message in {
        "too_long": (
            {"data": {"too_long": "truncate_left"}},
            r"data.too_long=truncate_left: task=tag would score fewer words than the file has",
        ),
        "crf": (
            {"task": {"crf": True, "align": "all"}},
            r"task.crf=true excludes task.align=all: a chain runs over words",
        ),
        "smoothing": (
            {"task": {"crf": True}, "loss": {"label_smoothing": 0.1}},
            r"loss.label_smoothing=0.1: is read .* with task.crf other than true",
        ),
        "z_loss": (
            {"loss": {"z_loss": 0.1}},
            r"loss.z_loss=0.1: is read by tasks with an output over the vocabulary only",
        ),
        "stride": (
            {"data": {"stride": 8}},
            r"data.stride=8: is read with data.too_long=window only",
        ),
    }.values():
        with pytest.raises(ConfigError, match=message):
            make_config("tag", **options)


def test_rows_that_were_dropped_count_as_wrong():  # guards D6
    config = dataclasses.replace(
        make_config("tag", data={"too_long": "drop", "max_dropped": 0.9, "max_length": 8}).data
    )
    t = task()
    records = [
        Tags(("a", "b"), ("B-X", "O"), "iob2"),
        Tags(("long" * 4, "b"), ("B-X", "O"), "iob2"),
    ]
    split = encoded_split.load_split("test", records, ["f:1", "f:2"], t, config, 64)
    assert split.dropped == {1: "too_long"}
    numbers = numbers_of(
        t, split, {"word.prediction": np.array([t.labels.index("B-X"), t.labels.index("O")])}
    )
    assert (
        numbers["words"] == 4
        and numbers["accuracy"] == 0.5
        and numbers["recall_micro"] == 0.5
        and numbers["precision_micro"] == 1
    )


PARTLY = [
    Tags(("a", "b", "c"), ("N", "_", "V"), "none"),
    Tags(("d", "e"), ("_", "V"), "none"),
    Tags(("f",), ("_",), "none"),
]
PLACES = ["f:1", "f:2", "f:3"]


def test_words_that_nobody_tagged_are_neither_trained_nor_scored():
    """Whatever they are said to be, the step is the same; and of the scores they are no part."""
    b = bench(
        "tag",
        records=(PARTLY, PLACES),
        task={"untagged": "_"},
        train={"batch_size": 4},
        model={"dropout": 0.0},
    )
    assert b.parts.task.labels == ["N", "V"]
    batch = b.batches[0]
    untagged = batch.words["tag"] == UNTAGGED
    steps = [
        b.step(
            b.state(),
            b.apart[1],
            batch._replace(words=batch.words | {"tag": np.where(untagged, k, batch.words["tag"])}),
            b.hyper,
        )
        for k in (0, 1)
    ]
    assert untagged.sum() == 3 and float(steps[0][1].totals["cross_entropy"]) == 3
    assert_same(steps[0][0].trainable, steps[1][0].trainable)
    (_, totals, states), _ = b.evaluate(*b.apart, batch, b.hyper)
    assert float(totals["cross_entropy"]) == int(states["words"].count) == 3
    split = b.batches.split
    found = {"word.prediction": np.array([0, 0, 1, 1, 0, 0])}
    numbers = numbers_of(b.parts.task, split, found)
    assert numbers["words"] == 3 and numbers["accuracy"] == pytest.approx(2 / 3)
    assert [line["correct"] for line in b.parts.task.predictions(split, found, None)] == [
        True,
        False,
        True,
    ]
    assert matrix_of(b.parts.task, split, found).sum() == 3


def test_a_tag_that_stands_for_none_is_told():
    kind, fit = (
        tasks.get("tag"),
        lambda records=PARTLY, **options: kind.fit(
            make_config("tag", task=options), Tokenizer.bytes(), records, PLACES
        ),
    )
    with pytest.raises(
        DataError,
        match=(
            r"f:1: 3 words of the split have the tag '_', which stands for none in CoNLL-U;"
            r" task.untagged=_ leaves"
        ),
    ):
        fit()
    assert fit(labels=["N", "V", "_"])["labels"] == ["N", "V", "_"] and fit(untagged="_")[
        "labels"
    ] == ["N", "V"]
    with pytest.raises(
        ConfigError, match=r"task.untagged=X: no word of the training split has this tag"
    ):
        fit(labels=["N", "V", "_"], untagged="X")
    with pytest.raises(ConfigError, match=r"task.untagged=_: task.labels names it too"):
        fit(labels=["N", "V", "_"], untagged="_")
    with pytest.raises(ConfigError, match=r"task.untagged=O: the tags are chunks"):
        fit([Tags(("a", "b", "c"), ("B-X", "B-Y", "O"), "iob2")], untagged="O")
    with pytest.raises(
        ConfigError,
        match=r"task.crf=true excludes task.untagged=_: a chain is of the tags of all words",
    ):
        fit(untagged="_", crf=True)


def test_only_what_the_scheme_allows_is_said():
    bars = task(valid=True)._bars
    ok = lambda value: bool(value == 0)
    at = {label: i for i, label in enumerate(task().labels)}
    assert (
        isinstance(bars, ChainScores)
        and not ok(bars.transitions[at["O"], at["I-X"]])
        and not ok(bars.transitions[at["B-Y"], at["I-X"]])
    )
    assert ok(bars.transitions[at["B-X"], at["I-X"]]) and ok(bars.transitions[at["I-X"], at["B-X"]])
    assert not ok(bars.start[at["I-X"]]) and ok(bars.start[at["O"]]) and all(map(ok, bars.end))


def test_a_row_without_tags():
    t = task()
    assert t.unlabelled(Row({"tokens": ["a", "b"]}, "f", 1), Columns()).tokens == ("a", "b")
    found = t.unlabelled(Row({"text": "to Rome, now"}, "f", 1), Columns())
    assert found.tokens == ("to", "Rome", ",", "now") and found.glued == (2,)
    with pytest.raises(
        DataError,
        match=r"f:1: no list of words in column 'tokens'; found words; set data.columns.tokens",
    ):
        t.unlabelled(Row({"words": ["a"]}, "f", 1), Columns())


@pytest.mark.parametrize("context", [64, 512])
def test_long_documents_of_noisy_text_are_whole(context):  # guards D6
    """HIPE's documents in windows: every word of the file is owned once, in its order, and its
    weights sum to one.
    """
    rows = formats.read(real("hipe2022_ajmc/en/dev.tsv.gz"), format="conll")
    records = [tag_record(row, Columns()) for row in rows]
    config = make_config("tag", data={"too_long": "window"}, model={"context": context})
    kind = tasks.get("tag")
    t = kind(
        config,
        Tokenizer.bytes(),
        kind.fit(config, Tokenizer.bytes(), records, [row.where for row in rows]),
    )
    split = encoded_split.load_split(
        "validation", records, [row.where for row in rows], t, config.data, context
    )
    assert split.limit <= context < max(sum(len(w.encode()) + 1 for w in r.tokens) for r in records)
    assert split.ledger["rows"]["kept"] == len(rows) and split.examples > len(rows)
    stitched = by_text(split, split.arrays["word.index"])
    assert [stitched[i].tolist() for i in range(len(rows))] == [
        list(range(len(r.tokens))) for r in records
    ]
    assert (
        split.arrays["word.weight"].sum()
        == sum(len(r.tokens) for r in records)
        == split.arrays["word.own"].sum()
    )
    tags = by_text(split, split.arrays["word.tag"])
    assert [[t.labels[i] for i in tags[row]] for row in range(len(rows))] == [
        list(r.tags) for r in records
    ]
