"""What a run says of its numbers: bounds, clusters, slices, probabilities, and several sets."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxsft.errors import JaxsftError
from jaxsft.evaluation import slices
from jaxsft.reports import page
from jaxsft.rundir import read_json, read_jsonl
from tests import tiny

LABELS = ("bad", "good")
SMALL = ["model.layers=1", *(one for one in tiny.FAST if not one.startswith("model.layers"))]


@pytest.fixture(scope="module")
def rows():
    """Texts whose first word is their label, but for every fifth; four of a document."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(60):
        label, other = rng.permutation(LABELS)
        word = other if i % 5 == 0 else label
        text = f"{word} {' '.join(rng.choice(list('abc'), rng.integers(1, 6)))}"
        out.append({"text": text, "label": label, "doc": f"d{i // 4}", "lang": "de" * (i % 2)})
        out[-1]["id"] = f"x{i}"
    return out


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    data = tiny.write_lines(folder / "rows.jsonl", rows)
    rules = folder / "rules.yaml"
    rules.write_text(
        "- {name: short, column: length, below: 6}\n- {name: of a, column: text, contains: a}\n"
    )
    tiny.train(
        "task=classify",
        *SMALL,
        f"data.train={data}",
        f"data.test={data}",
        "data.columns.cluster=doc",
        "evaluation.on_train=true",
        f"evaluation.slices=[lang,length,{rules}]",
        "evaluation.probabilities=true",
        "evaluation.level=0.9",
        "evaluation.replicates=200",
        "evaluation.metrics=[mcc]",
        "task.out_of_scope=good",
        f"run_dir={folder / 'run'}",
    )
    return folder / "run"


def test_each_number_has_its_bounds_or_says_why_not(run):
    numbers, intervals = read_json(run / "result.json"), read_json(run / "intervals.json")
    results = {name: value for name, value in numbers.items() if name.startswith("test/")}
    assert set(results) == {name for name in intervals if name.startswith("test/")}
    for name, entry in intervals.items():
        assert entry["value"] == pytest.approx(numbers[name]) and entry["level"] == 0.9
        if entry["low"] is None:
            assert entry["method"] in ("count", "none")
        else:
            assert entry["low"] <= entry["value"] <= entry["high"] and entry["n"] == 60
            assert entry["clusters"] == 15 and entry["naive_se"] >= 0
    assert intervals["test/mcc"]["low"] is not None


def test_slices_are_numbers_of_their_rows(run, rows):
    lines = read_jsonl(run / "predictions" / "test.jsonl")
    right = np.array([line["correct"] for line in lines])
    found = {one["slice"]: one for one in read_json(run / "figures" / "slices_test.json")}
    masks = {
        "lang=de": np.array([row["lang"] == "de" for row in rows]),
        "of a": np.array(["a" in row["text"] for row in rows]),
    }
    for name, mask in masks.items():
        entry = found[name]["numbers"]["accuracy"]
        assert entry["value"] == pytest.approx(right[mask].mean()) and entry["n"] == mask.sum()
        low, high = found[name]["corrected"]["accuracy"]
        assert low <= entry["low"] and entry["high"] <= high
    quarters = [one["rows"] for name, one in found.items() if name.startswith("length ")]
    assert sum(quarters) == 60 and "short" in found


def test_the_slices_of_a_column_have_a_gap(run):
    found = read_json(run / "figures" / "slice_gaps_test.json")
    values = {
        one["slice"]: one["numbers"]["accuracy"]["value"]
        for one in read_json(run / "figures" / "slices_test.json")
    }
    one, other = values["lang=de"], values["lang="]
    gap = found["lang"]["accuracy"]
    assert gap["best_minus_worst"]["value"] == pytest.approx(abs(one - other))
    assert gap["best_minus_mean"]["value"] == pytest.approx(abs(one - other) / 2)
    assert values[gap["best"]] == max(one, other) and gap["groups"] == 2
    assert gap["best_minus_worst"]["low"] >= 0 and "rows" not in found["lang"]
    assert set(found) == {"lang", "length", next(name for name in found if "rules" in name)}
    told = page.render(run)
    assert "by lang, lang=" in told and "after looking at all 2" in told


def test_probabilities_of_all_labels_are_written_where_they_are_asked_for(run):
    line = read_jsonl(run / "predictions" / "test.jsonl")[0]
    assert set(line["probabilities"]) == set(LABELS)
    assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert max(line["probabilities"].values()) == pytest.approx(line["probability"], abs=1e-5)


def test_texts_out_of_scope_are_told_by_low_confidence(run):
    lines = read_jsonl(run / "predictions" / "test.jsonl")
    outside = [line["label"] == "good" for line in lines]
    score = [-max(line["probabilities"].values()) for line in lines]
    expected = sklearn.roc_auc_score(outside, score)
    assert read_json(run / "result.json")["test/oos_auroc"] == pytest.approx(expected, abs=2e-3)
    assert read_json(run / "intervals.json")["test/oos_auroc"]["low"] is not None


def test_several_sets_are_scored_by_one_command(run, rows, tmp_path):
    a = tiny.write_lines(tmp_path / "a.jsonl", rows[:30])
    b = tiny.write_lines(tmp_path / "b.jsonl", rows[30:])
    sets = f"eval.sets={{one: {a}, two: {b}}}"
    code, out, err = tiny.jaxsft("eval", f"run={run}", sets, f"output={tmp_path / 'out'}")
    assert code == 0, err
    whole = read_json(run / "result.json")["test/accuracy"]
    parts = [read_json(tmp_path / "out" / name / "result.json") for name in ("one", "two")]
    assert parts[0]["one/accuracy"] + parts[1]["two/accuracy"] == pytest.approx(2 * whole)
    assert "one/accuracy" in out and "two/accuracy" in out
    intervals = read_json(tmp_path / "out" / "two" / "intervals.json")
    assert intervals["two/accuracy"]["n"] == 30
    assert set(intervals) == set(parts[1]) - {"checkpoint_step"}
    assert intervals["two/rows_read"]["reason"] == "it only counts"


@pytest.mark.parametrize(
    "option, told",
    [
        ("evaluation.slices=[topic]", "no column 'topic', which evaluation.slices names"),
        ("data.columns.cluster=topic", "no column 'topic', which data.columns.cluster names"),
        ("evaluation.metrics=[rouge_1]", "reads answer, references, which task=classify"),
        ("evaluation.level=1", "evaluation.level=1"),
        ("evaluation.level=0.999", "evaluation.level=0.999 needs 2000 of them"),
        ("evaluation.slices=[id]", "the column has 60 values, more than 50"),
        ("evaluation.metrics=[out_of_scope]", "reads out_of_scope, which task=classify"),
        ("task.out_of_scope=other", "task.out_of_scope=other: is none of the labels (bad, good)"),
        ("data.columns.schema=doc", "data.columns.schema: task=classify never reads it"),
        ("evaluation.metrics=[row_count]", "gives rows, which label_scores gives too"),
    ],
)
def test_what_cannot_be_is_refused(option, told, rows, tmp_path):
    data = tiny.write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(JaxsftError, match=re.escape(told)):
        tiny.train("task=classify", *SMALL, f"data.train={data}", f"data.test={data}", option)


def test_training_rows_that_are_scored_have_clusters_and_slices_too(run):
    found = read_json(run / "intervals.json")["train/accuracy"]
    assert found["clusters"] == 15 and found["low"] <= found["value"] <= found["high"]
    assert (run / "figures" / "slices_train.json").exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("evaluation.generate=never", "is of generated answers; set evaluation.generate=end"),
        ("evaluation.metric=validation/rouge_1", "answers must be generated at every evaluation"),
    ],
)
def test_metrics_of_answers_need_answers(option, told, tmp_path):
    data = tiny.data(tmp_path)
    with pytest.raises(JaxsftError, match=re.escape(told)):
        tiny.train(
            "task=chat",
            *(one for one in SMALL if not one.startswith("evaluation.")),
            f"data.train={data / 'chat.jsonl'}",
            f"data.validation={data / 'chat_held.jsonl'}",
            "evaluation.metrics=[rouge_1]",
            option,
        )


@pytest.mark.parametrize(
    "rule, told",
    [
        ({"name": "x", "column": "length"}, "expected name, column and one of"),
        ({"name": "x", "column": "length", "below": "3"}, "below: expected a number"),
        ({"name": "x", "column": "length", "in": 3}, "in: expected a list"),
        ("x", "expected name, column and one of"),
    ],
)
def test_a_rule_that_is_none_is_told_by_its_place(rule, told):
    with pytest.raises(slices.ConfigError, match=told):
        slices._test(rule, "rules.yaml: rule 1")
