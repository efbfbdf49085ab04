"""The card as a whole: planted faults are found where they are, on files and in memory; the command; two cards side by side."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from jaxsft import rundir
from jaxsft.config import overrides
from jaxsft.config.schema import Columns, DataFiles, QualityConfig, RatingsConfig
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import quality
from jaxsft.prepare.quality.compare import read
from jaxsft.prepare.quality.measures import LENGTH, MEASURES
from tests import realdata
from tests.tiny import jaxsft

TOPICS = {
    "card": "my new card has not arrived in the post yet",
    "cash": "the machine in the street gave me too little money",
    "fee": "why was I charged",
}


def clean(count, start=0):
    return [{"id": i, "text": f"{TOPICS[label]} number {i} of {i * 7 % 13}", "label": label} for i in range(start, start + count) for label in TOPICS]


def planted():
    train = clean(30)
    train[3] |= {"text": "Where is it?", "label": "card"}
    train[50] |= {"text": "where  is IT?", "label": "fee"}
    train[4] |= {"text": "cafÃ© opening hours"}
    train[5] |= {"label": "Card"}
    train[6] |= {"id": "seven"}
    train[7] |= {"text": "buy buy buy buy buy it"}
    train[8] |= {"label": None}
    test = clean(10, 100)
    test[0] |= {"text": train[10]["text"], "label": train[10]["label"]}
    test[1] |= {"text": "Note: " + train[20]["text"] + " and there was something else in the letter that came"}
    return {"train": train, "test": test}


def sets_of(data):
    return quality.of_rows({name: [Row(fields, f"{name}.jsonl", line) for line, fields in enumerate(rows, start=1)] for name, rows in data.items()})


def made(rows, **options):
    found = []
    return quality.card(sets_of(rows), QualityConfig(**options), found.append), found


@pytest.fixture(scope="module")
def card():
    return made(planted(), ngram=8)


def test_planted_faults_are_found_where_they_are(card):
    card, found = card
    numbers = card["numbers"]
    where = lambda name: [one["row"] for one in found if one["finding"] == name]
    assert where("consistency/conflict") == ["train.jsonl:4", "train.jsonl:51"]
    assert numbers["consistency"]["train"]["conflicting_rows"] == pytest.approx(2 / 90, rel=1e-5)
    assert where("consistency/mojibake") == ["train.jsonl:5"] and where("consistency/label_variant") == ["train.jsonl:6"]
    assert where("consistency/type") == ["train.jsonl:7"] and numbers["consistency"]["train"]["type_violations"] == 1
    assert where("noise/word_run") == ["train.jsonl:8"] and numbers["completeness"]["train"]["rows_without_label"] == 1
    assert where("drift/shared") == ["test.jsonl:1"] and numbers["drift"]["test against train"]["shared_rows"] == 1
    copied = [(one["row"], one["other"]) for one in found if one["finding"] == "contamination/test in train"]
    assert ("train.jsonl:11", "test.jsonl:1") in copied and ("train.jsonl:21", "test.jsonl:2") in copied
    assert card["conflicts"] == [{
        "text": "Where is it?", "count": 2,
        "rows": [{"row": "train.jsonl:4", "split": "train", "labels": ["card"]}, {"row": "train.jsonl:51", "split": "train", "labels": ["fee"]}],
    }]  # fmt: skip


def test_every_number_has_a_definition_and_the_card_is_strict_json(card):
    card, _ = card
    used = {name for family in card["numbers"].values() for values in family.values() for name in values}
    assert used and used == set(card["definitions"]) <= set(MEASURES)
    assert all(d["says"] and d["better"] in ("", "lower", "higher") for d in card["definitions"].values())
    assert json.loads(json.dumps(card, allow_nan=False)) == json.loads(rundir.json_text(card))


def test_counts_add_up(card):
    card, found = card
    for name, split in card["data"]["splits"].items():
        assert sum(counts[name] for counts in card["tables"]["scripts"].values()) == split["rows"] == card["numbers"]["completeness"][name]["rows"]
        assert sum(card["curves"]["lengths"]["words"]["counts"][name]) == split["rows"]
        assert sum(cluster["sizes"][name] for cluster in card["tables"]["clusters"]) == min(split["rows"], 5000)
        assert card["curves"]["growth"][name]["words"][-1] == card["numbers"]["diversity"][name]["words"]
    assert sum(kind["count"] for kind in card["findings"].values()) == len(found)


def test_listed_shortens_the_card_and_not_the_findings():
    short, found = made(planted(), ngram=8, listed=1)
    whole, every = made(planted(), ngram=8)
    assert found == every and all(len(kind["rows"]) == 1 for kind in short["findings"].values())
    assert short["numbers"] == whole["numbers"]


def test_the_sample_bounds_only_the_measures_of_diversity():
    small, whole = made(planted(), sample=20)[0], made(planted())[0]
    assert small["numbers"]["diversity"]["train"]["sampled_rows"] == 20
    assert small["numbers"]["diversity"]["train"]["vocabulary"] < whole["numbers"]["diversity"]["train"]["vocabulary"]
    same = ("completeness", "consistency", "noise", "distribution", "contamination")
    assert all(small["numbers"][family] == whole["numbers"][family] for family in same)


def test_several_labels_of_a_cell_and_one_hot_columns():
    data = {
        "all": [{"text": f"t {i}", "label": label, "a": int("1" in label), "b": int("2" in label)} for i, label in enumerate(["1,2", "2, 1", "1"])]
    }
    numbers = lambda **options: made(data, **options)[0]["numbers"]["distribution"]["all"]
    assert numbers()["classes"] == 3 and numbers(multilabel=True)["classes"] == 2
    one_hot = numbers(data=DataFiles(columns=Columns(labels=["a", "b"])))
    assert one_hot["classes"] == 2 and one_hot["labels_per_row"] == numbers(multilabel=True)["labels_per_row"] == pytest.approx(5 / 3, rel=1e-5)


def test_a_quantity_is_measured_as_one():
    data = {name: [{"text": f"t {i}", "label": i / 7 + shift} for i in range(40)] for name, shift in (("train", 0), ("test", 3))}
    card, _ = made(data)
    assert card["data"]["label_is"] == "quantity" and "classes" not in card["numbers"]["distribution"]["train"]
    assert card["numbers"]["drift"]["test against train"]["label_drift"] == "large"


# --- errors -----------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "given",
    [{"ngram": 0}, {"ngram": "x"}, {"folds": 1}, {"listed": -1}, {"sample": 1}, {"ratings": RatingsConfig(level="x")},
     {"ratings": RatingsConfig(columns=["a"])}, {"ratings": RatingsConfig(file="a")}, {"ratings": RatingsConfig(values=["V"])},
     {"ratings": RatingsConfig(file="f", values=["V"], columns=["a", "b"])}, {"embeddings": "e.npy"}],
)  # fmt: skip
def test_impossible_options(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        made(planted(), **given)


def test_a_column_that_no_row_has():
    with pytest.raises(DataError, match="no row has the column 'topic': found 'id', 'label', 'text'"):
        made(planted(), data=DataFiles(columns=Columns(label="topic")))


# --- agreement and wrong labels -----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def judges(monkeypatch):
    """Stand-ins for the modules that count agreement and look for wrong labels, which keep what they were given."""
    seen = {}

    def alpha(ratings, level):
        seen["table"], seen["level"] = ratings, level
        return 0.5

    def probabilities(given, labels, folds, seed):
        seen["folds"] = folds
        return np.full((len(given), len(set(labels))), 0.5)

    agreement = types.SimpleNamespace(krippendorff_alpha=alpha, cohen_kappa=lambda a, b: float(np.mean(a == b)))
    noise = types.SimpleNamespace(cross_val_probabilities=probabilities, find_issues=lambda labels, p: np.array([2, 0]))
    monkeypatch.setitem(sys.modules, "jaxsft.prepare.agreement", agreement)
    monkeypatch.setitem(sys.modules, "jaxsft.prepare.label_noise", noise)
    return seen


def test_annotators_in_columns(judges):
    data = {"all": [{"text": f"t {i}", "x": "a", "y": y, "z": z} for i, (y, z) in enumerate([("a", None), ("b", "a"), ("a", "c")])]}
    card, _ = made(data, ratings=RatingsConfig(columns=["x", "y", "z"]))
    nan = np.nan
    np.testing.assert_array_equal(judges["table"], [[0, 0, 0], [0, 1, 0], [nan, 0, 2]])
    assert judges["level"] == "nominal"
    # x and y agree in 2 of 3, x and z in 1 of 2, y and z in 0 of 2
    assert card["numbers"]["agreement"]["ratings"] == {
        "rated_items": 3, "items_rated_twice": 3, "ratings": 8, "alpha": 0.5, "kappa_mean": pytest.approx((2 / 3 + 1 / 2 + 0) / 3, rel=1e-5),
        "kappa_pairs": 3,
    }  # fmt: skip


@pytest.mark.parametrize("by", [None, "who"])
def test_annotators_in_a_file(judges, tmp_path, by):
    rows = [("i1", "ann", 3), ("i1", "bob", 4), ("i2", "bob", 1), ("i2", "ann", 2), ("i3", "bob", 5)]
    formats.write([{"id": item, "who": who, "V": v} for item, who, v in rows], tmp_path / "r.csv")
    made(planted(), ratings=RatingsConfig(file=str(tmp_path / "r.csv"), values=["V"], annotator=by, level="interval"))
    expected = [[3, 2, np.nan], [4, 1, 5]] if by else [[3, 1, 5], [4, 2, np.nan]]
    np.testing.assert_array_equal(judges["table"], expected)


def test_an_annotator_who_rates_twice_and_a_rating_that_is_no_number(judges, tmp_path):
    formats.write([{"id": 1, "who": "a", "V": "x"}, {"id": 1, "who": "a", "V": "y"}], tmp_path / "r.csv")
    ratings = RatingsConfig(file=str(tmp_path / "r.csv"), values=["V"], annotator="who")
    with pytest.raises(DataError, match=r"r\.csv:3: annotator 'a' rated item '1' before"):
        made(planted(), ratings=ratings)
    with pytest.raises(DataError, match="found 'x', expected a number"):
        made(planted(), ratings=dataclasses.replace(ratings, annotator=None, level="ordinal"))


def test_wrong_labels(judges):
    card, found = made(planted(), folds=3)
    numbers = card["numbers"]["noise"]["train"]
    assert judges["folds"] == 3 and numbers["label_issue_rows"] == 89 and numbers["label_issues"] == pytest.approx(2 / 89, rel=1e-5)
    assert len([one for one in found if one["finding"] == "noise/label_issue"]) == 2


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxsft.prepare.agreement", None)
    monkeypatch.setitem(sys.modules, "jaxsft.prepare.label_noise", None)
    card, _ = made(planted(), folds=3, ratings=RatingsConfig(columns=["id", "label"]))
    assert "jaxsft.prepare.agreement" in card["skipped"]["agreement"] and "jaxsft.prepare.label_noise" in card["skipped"]["label_issues"]


# --- files and the command ----------------------------------------------------------------------------------------------------------------------
def files(folder):
    data = planted()
    for name, rows in data.items():
        formats.write(rows, folder / f"{name}.jsonl")
    formats.write([{**row, "part": name} for name, rows in data.items() for row in rows], folder / "both.jsonl")
    return folder


def test_the_command_gives_the_same_bytes_again_and_says_what_changed(tmp_path):
    folder = files(tmp_path)
    given = ["quality", f"data.train={folder / 'train.jsonl'}", f"data.test={folder / 'test.jsonl'}", "ngram=8"]
    code, out, err = jaxsft(*given, f"output={tmp_path / 'one'}")
    assert code == 0, err
    assert "test in train:" in out and all((tmp_path / "one" / f"card.{kind}").is_file() for kind in ("json", "md", "html"))
    assert jaxsft(*given, f"output={tmp_path / 'two'}", f"compare={tmp_path / 'one' / 'card.json'}")[0] == 0
    for name in ("card.json", "card.md", "card.html", "findings.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    lines = rundir.read_json(tmp_path / "two" / "comparison.json")
    assert lines and {line["verdict"] for line in lines} == {"same"}
    assert all((tmp_path / "two" / f"comparison.{kind}").is_file() for kind in ("md", "html"))


def test_a_split_column_gives_what_two_files_give(tmp_path):
    folder = files(tmp_path)
    data = DataFiles(path=str(folder / "both.jsonl"))
    one = quality.card(quality.of_config(data, "part"), QualityConfig(data=data, ngram=8))
    two = quality.card(quality.of_config(DataFiles(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"))), QualityConfig(ngram=8))
    assert one["numbers"] == {**two["numbers"], "completeness": one["numbers"]["completeness"]}  # there is a column more
    assert list(one["data"]["splits"]) == ["train", "test"] and one["numbers"]["completeness"]["test"]["rows"] == 30


def test_rows_that_cannot_be_read_are_an_error_or_counted(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in clean(10)) + "{broken\n", "utf-8")
    code, _, err = jaxsft("quality", f"data.path={path}", f"output={tmp_path / 'q'}")
    assert code == 1 and "d.jsonl:31" in err and not (tmp_path / "q" / "card.json").exists()
    assert jaxsft("quality", f"data.path={path}", "data.on_bad_row=quarantine", f"output={tmp_path / 'q'}")[0] == 0
    card = read(str(tmp_path / "q" / "card.json"))
    assert card["numbers"]["completeness"]["all"] | {"rows": 30, "unreadable_rows": 1} == card["numbers"]["completeness"]["all"]
    code, _, err = jaxsft("quality", f"data.path={path}", "data.on_bad_row=quarantine", "data.max_dropped=0.01", f"output={tmp_path / 'r'}")
    assert code == 1 and "1 of 31 rows cannot be read, more than data.max_dropped=0.01" in err


def test_a_benchmark_in_another_format(tmp_path):
    copied = clean(1, 5)[0]["text"]
    formats.write([{"question": f"Read this! {copied.upper()}", "n": "1"}, {"question": "is this a new one", "n": "2"}], tmp_path / "bench.csv")
    formats.write(clean(20), tmp_path / "d.jsonl")
    assert (
        jaxsft("quality", f"data.path={tmp_path / 'd.jsonl'}", f"benchmarks=[{tmp_path / 'bench.csv'}]", "ngram=9", f"output={tmp_path / 'q'}")[0]
        == 0
    )
    found = read(str(tmp_path / "q" / "card.json"))["numbers"]["contamination"][str(tmp_path / "bench.csv")]
    assert found["contaminated_rows"] == 1 and found["short_rows"] == 1


def test_errors_are_one_line(tmp_path):
    folder = files(tmp_path)
    for given, told in [
        (["data.path=nowhere.jsonl"], "nowhere.jsonl"),
        ([], "data.path=FILE"),
        ([f"data.path={folder / 'train.jsonl'}", "benchmark=[a]"], "benchmarks"),
        ([f"data.path={folder / 'train.jsonl'}", f"compare={folder / 'train.jsonl'}"], "train.jsonl"),
        ([f"data.train={folder / 'train.jsonl'}", "split_column=x"], "split_column=x"),
    ]:
        code, _, err = jaxsft("quality", *given, f"output={tmp_path / 'q'}")
        assert code == 1 and told in err and len(err.strip().splitlines()) == 1, err


def test_the_verdict_of_a_comparison():
    before = {"numbers": {"noise": {"a": {"noisy_rows": 0.2, "rows": 3, "x": 1, "mtld": 50.0, "word": "small"}}}, "definitions": {}}
    after = {"numbers": {"noise": {"b": {"noisy_rows": 0.1, "rows": 3, "y": 1, "mtld": 40.0, "word": "large"}}}}
    after["definitions"] = {"noisy_rows": {"better": "lower"}, "mtld": {"better": "higher"}, "word": {"better": ""}}
    found = {line["measure"]: (line["verdict"], line["difference"], line["part"]) for line in quality.compare(before, after)}
    assert found == {
        "noisy_rows": ("better", -0.1, "a → b"), "rows": ("same", 0.0, "a → b"), "x": ("removed", None, "a → b"), "y": ("added", None, "a → b"),
        "mtld": ("worse", -10.0, "a → b"), "word": ("changed", None, "a → b"),
    }  # fmt: skip


# --- real data ----------------------------------------------------------------------------------------------------------------------------------
def test_sms_spam():
    path = realdata.real("sms_spam/sms.tsv")
    config = overrides.composed([f"data.path={path}", "data.header=false", "data.columns.text=1", "data.columns.label=0", "sample=1000"], "quality")
    card = quality.card(quality.of_config(config.data), config)
    numbers = card["numbers"]
    lines = path.read_text("utf-8").split("\n")
    spam = sum(line.startswith("spam\t") for line in lines)
    assert numbers["completeness"]["all"]["rows"] == 5574 and card["tables"]["classes"]["spam"]["all"] == spam
    assert numbers["distribution"]["all"]["majority_share"] == pytest.approx(1 - spam / 5574, rel=1e-5)
    assert card["tables"]["damage"]["all"]["html_entity"] == sum("&lt;" in t or "&gt;" in t or "&amp;" in t for t in lines)


def test_goemotions_has_the_label_conflicts_that_a_dictionary_finds():
    path = realdata.real("goemotions/dev.tsv")
    config = overrides.composed([f"data.path={path}", "data.header=false", "data.columns.text=0", "data.columns.label=1", "sample=500"], "quality")
    card = quality.card(quality.of_config(config.data), config)
    by_text = {}
    for row in formats.stream(path, header="false", columns=("0",)):
        by_text.setdefault(" ".join(row.fields["0"].casefold().split()), []).append(row.fields["1"])
    expected = sum(len(labels) for labels in by_text.values() if len(set(labels)) > 1)
    assert card["findings"]["consistency/conflict"]["count"] == expected > 0


def test_embeddings_take_the_place_of_words(tmp_path):
    rows = [{"text": f"{'same words in all of them'} {i}"} for i in range(40)]
    vectors = np.zeros((40, 3))
    vectors[:30, 0] = vectors[30:, 1] = 1
    np.save(tmp_path / "e.npy", vectors)
    card, _ = made({"all": rows}, embeddings=str(tmp_path / "e.npy"), clusters=2, seed=1)
    assert [cluster["sizes"]["all"] for cluster in card["tables"]["clusters"]] == [30, 10]
    assert card["numbers"]["diversity"]["all"]["vendi"] == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))), rel=1e-5)
    with pytest.raises(DataError, match=r"e\.npy: found 40 vectors, expected 39"):
        made({"all": rows[1:]}, embeddings=str(tmp_path / "e.npy"))


def test_the_page_has_every_number_with_its_definition():
    page = (Path(__file__).parents[3] / "docs" / "quality.md").read_text("utf-8")
    for name, measure in MEASURES.items():
        family = next((f"`{p}_*`" for p in ("characters", "words", "label") if name.startswith(f"{p}_") and measure.source == LENGTH), None)
        drift = re.fullmatch(
            r"(?:characters|words|label|script|class|cluster)_(ks|ks_p|psi|drift|cramers_v|chi_square|freedom|p|cells_below_5)", name
        )
        says = measure.says.partition(": ")[2] if drift else measure.says
        assert (family or (f"`*_{drift[1]}`" if drift else f"| `{name}` |")) in page and (family or says in page), name
        assert not measure.source or f"| {measure.source} |" in page, name
