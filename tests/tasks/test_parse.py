"""task=parse from the file to the file: trees are learnt, scored against every gold word, and
written as CoNLL-U.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxsft import api, rundir, tasks
from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.records import Parse, parse_record
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.models import biaffine
from jaxsft.models.trees import greedy, is_tree
from tests import tiny
from tests.conftest import make_config

NOUNS, VERBS = ("dog", "cat", "man"), ("sees", "has", "eats")


def sentence(rng, number):
    """`[the] dog sees [the] cat .`: words, heads, relations and parts of speech; in every third
    `the cat's` is a range of two words.
    """
    words: list[tuple[str, int, str, str]] = []
    for role in ("nsubj", "obj"):
        if rng.random() < 0.5:
            words.append(("the", 1, "det", "DET"))
        words.append((str(rng.choice(NOUNS)), 0, role, "NOUN"))
        if role == "nsubj":
            words.append((str(rng.choice(VERBS)), 0, "root", "VERB"))
    words.append((".", 0, "punct", "PUNCT"))
    verb = next(i for i, w in enumerate(words, start=1) if w[2] == "root")
    lines = [f"# sent_id = {number}"]
    for i, (form, ahead, relation, tag) in enumerate(words, start=1):
        head = i + 1 if ahead else 0 if relation == "root" else verb
        lines.append(
            "\t".join(
                [str(i), form, "_", tag, "_", "_", str(head), relation, f"{head}:{relation}", "_"]
            )
        )
    return "\n".join(lines) + "\n\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("trees"), np.random.default_rng(0)
    for name, count in {"train": 60, "held": 12}.items():
        (folder / f"{name}.conllu").write_text(
            "".join(sentence(rng, i) for i in range(count)), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def run(files):
    options = [
        "model.embed=32",
        "model.layers=1",
        "model.context=64",
        "precision=fp32",
        "tokenizer=bpe",
        "tokenizer.vocab_size=300",
        "mesh.data=1",
    ]
    options += [
        "train.duration=60steps",
        "train.batch_size=4",
        "optim.learning_rate=0.01",
        "model.dropout=0",
        "model.mlp=64",
    ]
    options += [
        "evaluation.every=60steps",
        "checkpoint.every=60steps",
        "task.arc=16",
        "task.label=8",
        "task.upos=0.5",
    ]
    splits = [f"data.train={files / 'train.conllu'}", f"data.validation={files / 'held.conllu'}"]
    code, _, err = tiny.jaxsft("train", "task=parse", *splits, f"run_dir={files / 'run'}", *options)
    assert code == 0, err
    return files / "run"


def test_trees_are_learnt_and_every_word_counts(run, files):  # guards D6
    rows, lines, result = (
        formats.read(files / "held.conllu"),
        rundir.read_jsonl(run / "predictions" / "validation.jsonl"),
        rundir.read_json(run / "result.json"),
    )
    number = lambda name: result[f"validation/{name}"]
    assert [line["heads"] for line in lines] == [row.fields["head"] for row in rows]
    words = [
        (row.fields, i, line["prediction"])
        for row, line in zip(rows, lines, strict=True)
        for i in range(len(row.fields["form"]))
    ]
    both = [
        (
            p["head"][i] == f["head"][i],
            p["deprel"][i] == f["deprel"][i],
            f["upos"][i] != "PUNCT",
            f["head"][i] == 0,
        )
        for f, i, p in words
    ]
    share = lambda marks: sum(marks) / len(marks)
    assert (
        number("words") == len(both)
        and number("uas") == share([h for h, *_ in both])
        and number("las") == share([h and r for h, r, *_ in both])
    )
    assert number("uas_nopunct") == share([h for h, _, keep, _ in both if keep])
    assert number("las_nopunct") == share([h and r for h, r, keep, _ in both if keep])
    assert number("root_accuracy") == share([h for h, _, _, root in both if root]) and number(
        "label_accuracy"
    ) == share([r for _, r, *_ in both])
    assert number("upos_accuracy") == share([p["upos"][i] == f["upos"][i] for f, i, p in words])
    assert number("trees") == 1 and all(
        is_tree(np.array(line["prediction"]["head"])) for line in lines
    )
    assert number("las") > 0.9 and number("upos_accuracy") > 0.9
    table = rundir.read_json(run / "figures" / "table_relations_validation.json")
    assert sum(row[1] for row in table["rows"]) == len(both) and {
        row[0] for row in table["rows"]
    } >= {"det", "root", "punct"}


def test_trees_are_written_where_they_were_learnt_from(run, files, tmp_path):
    """A file without trees in, the same file with trees out; enhanced dependencies, which told of
    another tree, are emptied.
    """
    plain = (files / "held.conllu").read_text("utf-8").splitlines()
    blank = [
        (
            "\t".join([*line.split("\t")[:3], "_", "_", "_", "_", "_", "_", "_"])
            if "\t" in line
            else line
        )
        for line in plain
    ]
    (tmp_path / "new.conllu").write_text("\n".join(blank) + "\n", encoding="utf-8")
    code, _, err = tiny.jaxsft(
        "predict",
        f"run={run}",
        f"input={tmp_path / 'new.conllu'}",
        f"output={tmp_path / 'out.conllu'}",
    )
    assert code == 0, err
    found = [row.fields for row in formats.read(tmp_path / "out.conllu")]
    lines = rundir.read_jsonl(run / "predictions" / "validation.jsonl")
    assert [row["head"] for row in found] == [line["prediction"]["head"] for line in lines]
    assert [row["deprel"] for row in found] == [line["prediction"]["deprel"] for line in lines]
    assert [row["upos"] for row in found] == [line["prediction"]["upos"] for line in lines] and set(
        found[0]["deps"]
    ) == {"_"}
    assert [row["sent_id"] for row in found] == [str(i) for i in range(len(lines))]
    (one,) = api.load(run).predict(["the dog sees the cat ."])
    assert len(one["prediction"]["head"]) == 6


# --- without a model
# --------------------------------------------------------------------------------------------------
def made(config, records):
    kind = tasks.get("parse")
    return kind(
        config,
        Tokenizer.bytes(),
        kind.fit(config, Tokenizer.bytes(), records, [f"f:{i + 1}" for i in range(len(records))]),
    )


RECORDS = [Parse(("a", "b"), (2, 0), ("det", "root"), {"upos": ("DET", "NOUN")})]


def test_what_was_not_seen_is_told_with_its_place():
    task = made(make_config("parse", task={"upos": 1.0}), RECORDS)
    with pytest.raises(
        DataError,
        match=(
            r"f:9: relation 'obj' of word 1, 'x', is not in the vocabulary of 2 of the training"
            r" split \(det, root\)"
        ),
    ):
        task.encode_all(
            [Parse(("x", "y"), (2, 0), ("obj", "root"), {"upos": ("DET", "NOUN")})], ["f:9"]
        )
    with pytest.raises(DataError, match=r"f:9: part of speech 'X' of word 2, 'y'"):
        task.encode_all(
            [Parse(("x", "y"), (2, 0), ("det", "root"), {"upos": ("DET", "X")})], ["f:9"]
        )
    with pytest.raises(DataError, match=r"f:9: no column 'upos', which task.upos=1.0 needs"):
        task.encode_all([Parse(("x", "y"), (2, 0), ("det", "root"))], ["f:9"])


def test_parts_of_speech_that_are_not_there():
    with pytest.raises(DataError, match=r"f:1: no column 'upos', which task.upos=1.0 needs"):
        made(make_config("parse", task={"upos": 1.0}), [Parse(("a",), (0,), ("root",))])
    with pytest.raises(
        DataError,
        match=r"f:1: no column 'upos', which evaluation.metric=validation/las_nopunct needs",
    ):
        made(
            make_config("parse", evaluation={"metric": "validation/las_nopunct"}),
            [Parse(("a",), (0,), ("root",))],
        )
    with pytest.raises(
        ConfigError,
        match=(
            r"evaluation.metric=validation/upos_accuracy: no parts of speech are learnt; set"
            r" task.upos=1"
        ),
    ):
        made(make_config("parse", evaluation={"metric": "validation/upos_accuracy"}), RECORDS)


def test_a_tree_is_never_cut():
    for how in ("window", "truncate_right", "sentence"):
        with pytest.raises(ConfigError, match=f"data.too_long={how}: "):
            make_config("parse", data={"too_long": how})


def test_greedy_heads_need_not_be_a_tree():
    """Two words that love each other: the best tree gives one of them to the root, the best heads,
    which the device finds, do not.
    """
    arcs = np.zeros((1, 3, 4), np.float32)
    arcs[0, 0] = [0, -9, 5, 1]
    arcs[0, 1] = [1, 5, -9, 0]
    arcs[0, 2] = [0, 2, 0, -9]
    relations = np.arange(12).reshape(1, 3, 4)
    columns = {"arcs": arcs, "relations": relations, "segment": np.array([[1, 1, 1]])}
    assert greedy(arcs[0]).tolist() == [2, 1, 1]
    found = made(make_config("parse"), RECORDS).decoded(columns)
    assert found["word.head"].tolist() == [[2, 0, 1]]
    assert found["word.deprel"].tolist() == [[2, 4, 9]]


def test_the_device_finds_what_the_host_finds_of_the_scores_of_arcs():
    """Two sentences of a row and filler behind them: only numbers of words leave the device."""
    task = made(make_config("parse", task={"decode": "greedy"}), RECORDS)
    rng, relations = np.random.default_rng(0), 5
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    views = biaffine.Views(draw(1, 7, 8), draw(1, 7, 4), draw(1, 8, 4), draw(4, relations, 4), None)
    segment = np.array([[1, 1, 1, 2, 2, 2, 0]])
    arcs = biaffine.masked_arcs(views, segment)
    model = SimpleNamespace(precision="fp32")
    found = task.decoded(task._columns(model, views, arcs, {"segment": segment}))
    assert {name: x.shape for name, x in found.items()} == {
        "word.head": (1, 7), "word.deprel": (1, 7)
    }  # fmt: skip
    labels = np.asarray(biaffine.best_labels(views, "fp32"))[0]
    for at in (np.arange(3), np.arange(3, 6)):
        places = np.append(0, at + 1)
        heads = greedy(np.asarray(arcs)[0][np.ix_(at, places)])
        assert found["word.head"][0, at].tolist() == heads.tolist()
        assert found["word.deprel"][0, at].tolist() == labels[at, places[heads]].tolist()
    assert found["word.head"][0, 6] == found["word.deprel"][0, 6] == 0


def test_a_row_without_a_tree():
    task = made(make_config("parse"), RECORDS)
    row = Row(
        {
            "form": ["a", "b", "c"],
            "head": [None] * 3,
            "deprel": ["_"] * 3,
            "upos": ["_"] * 3,
            "feats": ["_"] * 3,
        },
        "f",
        1,
    )
    assert task.unlabelled(row, Columns()).heads == (0, 1, 1)
    with pytest.raises(DataError, match="the head of word 1"):
        parse_record(row, Columns())
