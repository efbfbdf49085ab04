"""The card as a whole: planted faults are found where they are, on files and in memory; the
command; two cards side by side.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
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
from jaxsft.prepare.quality.card_comparison import read
from jaxsft.prepare.quality.measures import LENGTH, MEASURES
from jaxsft.reports import quality_page as pages
from tests import realdata
from tests.tiny import jaxsft

TOPICS = {
    "card": "my new card has not arrived in the post yet",
    "cash": "the machine in the street gave me too little money",
    "fee": "why was I charged",
}


def clean(count, start=0):
    return [
        {"id": i, "text": f"{TOPICS[label]} number {i} of {i * 7 % 13}", "label": label}
        for i in range(start, start + count)
        for label in TOPICS
    ]


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
    test[1] |= {
        "text": (
            "Note: " + train[20]["text"] + " and there was something else in the letter that came"
        )
    }
    return {"train": train, "test": test}


def sets_of(data):
    return quality.of_rows(
        {
            name: [Row(fields, f"{name}.jsonl", line) for line, fields in enumerate(rows, start=1)]
            for name, rows in data.items()
        }
    )


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
    assert where("consistency/mojibake") == ["train.jsonl:5"] and where(
        "consistency/label_variant"
    ) == ["train.jsonl:6"]
    assert (
        where("consistency/type") == ["train.jsonl:7"]
        and numbers["consistency"]["train"]["type_violations"] == 1
    )
    assert (
        where("noise/word_run") == ["train.jsonl:8"]
        and numbers["completeness"]["train"]["rows_without_label"] == 1
    )
    assert (
        where("drift/shared") == ["test.jsonl:1"]
        and numbers["drift"]["test against train"]["shared_rows"] == 1
    )
    copied = [
        (one["row"], one["other"])
        for one in found
        if one["finding"] == "contamination/test in train"
    ]
    assert ("train.jsonl:11", "test.jsonl:1") in copied and (
        "train.jsonl:21",
        "test.jsonl:2",
    ) in copied
    assert card["conflicts"] == [{
        "text": "Where is it?", "count": 2,
        "rows": [{"row": "train.jsonl:4", "split": "train", "labels": ["card"]},
        {"row": "train.jsonl:51", "split": "train", "labels": ["fee"]}],
    }]  # fmt: skip


def test_every_number_has_a_definition_and_the_card_is_strict_json(card):
    card, _ = card
    used = {
        name for family in card["numbers"].values() for values in family.values() for name in values
    }
    assert used and used == set(card["definitions"]) <= set(MEASURES)
    assert all(
        d["says"] and d["better"] in ("", "lower", "higher") for d in card["definitions"].values()
    )
    assert json.loads(json.dumps(card, allow_nan=False)) == json.loads(rundir.json_text(card))


def test_counts_add_up(card):
    card, found = card
    for name, split in card["data"]["splits"].items():
        assert (
            sum(counts[name] for counts in card["tables"]["scripts"].values())
            == split["rows"]
            == card["numbers"]["completeness"][name]["rows"]
        )
        assert sum(card["curves"]["lengths"]["words"]["counts"][name]) == split["rows"]
        assert sum(cluster["sizes"][name] for cluster in card["tables"]["clusters"]) == min(
            split["rows"], 5000
        )
        assert (
            card["curves"]["growth"][name]["words"][-1]
            == card["numbers"]["diversity"][name]["words"]
        )
    assert sum(kind["count"] for kind in card["findings"].values()) == len(found)


def test_listed_shortens_the_card_and_not_the_findings():
    short, found = made(planted(), ngram=8, listed=1)
    whole, every = made(planted(), ngram=8)
    assert found == every and all(len(kind["rows"]) == 1 for kind in short["findings"].values())
    assert short["numbers"] == whole["numbers"]


def test_the_sample_bounds_only_the_measures_of_diversity():
    small, whole = made(planted(), sample=20)[0], made(planted())[0]
    assert small["numbers"]["diversity"]["train"]["sampled_rows"] == 20
    assert (
        small["numbers"]["diversity"]["train"]["vocabulary"]
        < whole["numbers"]["diversity"]["train"]["vocabulary"]
    )
    same = ("completeness", "consistency", "noise", "distribution", "contamination")
    assert all(small["numbers"][family] == whole["numbers"][family] for family in same)


def test_several_labels_of_a_cell_and_one_hot_columns():
    data = {
        "all": [
            {"text": f"t {i}", "label": label, "a": int("1" in label), "b": int("2" in label)}
            for i, label in enumerate(["1,2", "2, 1", "1"])
        ]
    }
    numbers = lambda **options: made(data, **options)[0]["numbers"]["distribution"]["all"]
    assert numbers()["classes"] == 3 and numbers(multilabel=True)["classes"] == 2
    one_hot = numbers(data=DataFiles(columns=Columns(labels=["a", "b"])))
    assert one_hot["classes"] == 2 and one_hot["labels_per_row"] == numbers(multilabel=True)[
        "labels_per_row"
    ] == pytest.approx(5 / 3, rel=1e-5)


def test_a_quantity_is_measured_as_one():
    data = {
        name: [{"text": f"t {i}", "label": i / 7 + shift} for i in range(40)]
        for name, shift in (("train", 0), ("test", 3))
    }
    card, _ = made(data)
    assert (
        card["data"]["label_is"] == "quantity"
        and "classes" not in card["numbers"]["distribution"]["train"]
    )
    assert card["numbers"]["drift"]["test against train"]["label_drift"] == "large"


ODD = {
    "one row": {"all": [{"text": "a"}]},
    "no text at all": {"all": [{"text": ""}, {"text": None}, {"text": " "}]},
    "an empty split": {
        "train": [{"text": "hello you", "label": "a"}],
        "test": [{"text": "", "label": None}],
    },
    "numbers that are none": {
        "all": (
            [{"text": f"t {i}", "label": str(i / 3)} for i in range(40)]
            + [{"text": "t", "label": "inf"}]
        )
    },
    "huge and no numbers": {
        "all": [
            {"text": "t", "label": 10**400},
            {"text": "t", "label": math.nan},
            {"text": "t", "label": math.inf},
        ]
    },
    "half characters": {"all": [{"text": "a\ud800b", "label": "\udfff"}] * 3},
    "lists": {"all": [{"text": "a", "label": ["x", "y"]}, {"text": {"b": 1}, "label": []}]},
    "a chat": {
        "all": [
            {
                "messages": [
                    {"role": "user", "content": None},
                    {"role": "assistant", "content": "hi", "tool_calls": [1]},
                ]
            }
        ]
    },
    "words": {"all": [{"tokens": ["a", "b"], "tags": ["O", "O"]}]},
    "one text only": {
        "train": [{"text": "a b c d e f g"}] * 100,
        "test": [{"text": "a b c d e f g"}] * 5,
    },
    "odd columns": {"all": [{"text": "a", "|x": 1, "": 2}]},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_give_a_card_and_its_pages(name):
    card, found = made(ODD[name])
    assert "NaN" not in (text := rundir.json_text(card["numbers"])) and "Infinity" not in text
    assert rundir.json_text([card, found]) and pages.html(card, name) and pages.markdown(card, name)
    assert {split: part["rows"] for split, part in card["data"]["splits"].items()} == {
        split: len(rows) for split, rows in ODD[name].items()
    }


# --- errors
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "given",
    [{"ngram": 0}, {"ngram": "x"}, {"folds": 1}, {"listed": -1}, {"sample": 1},
    {"ratings": RatingsConfig(level="x")},
     {"ratings": RatingsConfig(columns=["a"])}, {"ratings": RatingsConfig(file="a")},
     {"ratings": RatingsConfig(values=["V"])},
     {"ratings": RatingsConfig(file="f", values=["V"], columns=["a", "b"])},
     {"embeddings": "e.npy"}],
)  # fmt: skip
def test_impossible_options(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        made(planted(), **given)


def test_a_column_that_no_row_has():
    with pytest.raises(
        DataError, match="no row has the column 'topic': found 'id', 'label', 'text'"
    ):
        made(planted(), data=DataFiles(columns=Columns(label="topic")))


# --- agreement and wrong labels
# --------------------------------------------------------------------------------------------------
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C: four observers, twelve
# units; the dots are ratings that are not there.
OBSERVERS = {"A": "123321412...", "B": "1233224125.3", "C": ".3332342251.", "D": "12332441251."}
PUBLISHED = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}


@pytest.mark.parametrize("level", PUBLISHED)
def test_annotators_in_columns(level):
    rows = [
        {
            "text": f"unit {i}",
            **{name: None if line[i] == "." else int(line[i]) for name, line in OBSERVERS.items()},
        }
        for i in range(12)
    ]
    card, _ = made({"all": rows}, ratings=RatingsConfig(columns=list(OBSERVERS), level=level))
    found = card["numbers"]["agreement"]["ratings"]
    assert found["alpha"] == pytest.approx(PUBLISHED[level], abs=5e-4)
    assert (found["rated_items"], found["items_rated_twice"], found["ratings"]) == (12, 11, 41)
    assert ("kappa_mean" in found) == (level == "nominal")


@pytest.mark.parametrize("by", [None, "who"])
@pytest.mark.parametrize("level", ["nominal", "interval"])
def test_annotators_in_a_file(tmp_path, by, level):
    """Who gave a rating does not matter to alpha."""
    rows = [
        {"id": i, "who": name, "V": line[i]}
        for i in range(12)
        for name, line in OBSERVERS.items()
        if line[i] != "."
    ]
    formats.write(rows, tmp_path / "r.csv")
    card, _ = made(
        planted(),
        ratings=RatingsConfig(
            file=str(tmp_path / "r.csv"), values=["V"], annotator=by, level=level
        ),
    )
    assert card["numbers"]["agreement"]["V"]["alpha"] == pytest.approx(PUBLISHED[level], abs=5e-4)


def test_kappas_by_hand():
    rows = [{"text": "t", "x": x, "y": y} for x, y in ["aa", "aa", "ab", "bb", "bb", "bb"]]
    found = made({"all": rows}, ratings=RatingsConfig(columns=["x", "y"]))[0]["numbers"][
        "agreement"
    ]["ratings"]
    # Cohen: observed 5/6, by chance 1/2 * 1/3 + 1/2 * 2/3 = 1/2. Fleiss: shares 5/12 and 7/12, by
    # chance 74/144.
    assert (
        found["kappa_mean"] == pytest.approx((5 / 6 - 1 / 2) / (1 / 2), rel=1e-5)
        and found["kappa_pairs"] == 1
    )
    assert found["fleiss_kappa"] == pytest.approx((5 / 6 - 74 / 144) / (70 / 144), rel=1e-5)


def test_an_annotator_who_rates_twice_and_a_rating_that_is_no_number(tmp_path):
    formats.write(
        [{"id": 1, "who": "a", "V": "x"}, {"id": 1, "who": "a", "V": "y"}], tmp_path / "r.csv"
    )
    ratings = RatingsConfig(file=str(tmp_path / "r.csv"), values=["V"], annotator="who")
    with pytest.raises(DataError, match=r"r\.csv:3: annotator 'a' rated item '1' before"):
        made(planted(), ratings=ratings)
    with pytest.raises(DataError, match="found 'x', expected a number"):
        made(planted(), ratings=dataclasses.replace(ratings, annotator=None, level="ordinal"))


def test_wrong_labels_are_found():
    rows = clean(300)
    turned = {12: "fee", 40: "card", 77: "cash"}
    for at, label in turned.items():
        assert rows[at]["label"] != label
        rows[at] |= {"label": label}
    card, found = made({"train": [*rows, {"text": "alone", "label": "rare"}]}, folds=3)
    told = {
        int(one["row"].partition(":")[2]) - 1: one["detail"]
        for one in found
        if one["finding"] == "noise/label_issue"
    }
    assert (
        {12, 40} <= set(told) <= set(turned)
        and told[12].startswith("fee (")
        and told[12].endswith("likelier card")
    )
    numbers = card["numbers"]["noise"]["train"]
    assert numbers["label_issue_rows"] == 900 and numbers["label_issues"] == pytest.approx(
        len(told) / 900, rel=1e-5
    )
    few = made({"train": rows[:4]}, folds=3)[0]
    assert (
        "folds=3" in few["skipped"]["label_issues"]
        and "label_issues" not in few["numbers"]["noise"]["train"]
    )


def test_languages():
    pytest.importorskip("py3langid")
    english = [
        {"text": f"The weather was rather nice when we arrived in the evening of day {i}"}
        for i in range(5)
    ]
    german = [
        {"text": f"Das Wetter war ziemlich schön, als wir am Abend des Tages {i} ankamen"}
        for i in range(5)
    ]
    card, _ = made({"train": english, "test": [*german, {"text": "ja"}]}, languages=True)
    assert card["tables"]["languages"] == {
        "de": {"train": 0, "test": 5},
        "en": {"train": 5, "test": 0},
        "und": {"train": 0, "test": 1},
    }
    assert card["numbers"]["drift"]["test against train"]["language_cramers_v"] == 1


# --- files and the command
# --------------------------------------------------------------------------------------------------
def files(folder):
    data = planted()
    for name, rows in data.items():
        formats.write(rows, folder / f"{name}.jsonl")
    formats.write(
        [{**row, "part": name} for name, rows in data.items() for row in rows],
        folder / "both.jsonl",
    )
    return folder


def test_the_command_gives_the_same_bytes_again_and_says_what_changed(tmp_path):
    folder = files(tmp_path)
    given = [
        "quality",
        f"data.train={folder / 'train.jsonl'}",
        f"data.test={folder / 'test.jsonl'}",
        "ngram=8",
    ]
    code, out, err = jaxsft(*given, f"output={tmp_path / 'one'}")
    assert code == 0, err
    assert "test in train:" in out and all(
        (tmp_path / "one" / f"card.{kind}").is_file() for kind in ("json", "md", "html")
    )
    assert (
        jaxsft(*given, f"output={tmp_path / 'two'}", f"compare={tmp_path / 'one' / 'card.json'}")[0]
        == 0
    )
    for name in ("card.json", "card.md", "card.html", "findings.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), (
            name
        )
    lines = rundir.read_json(tmp_path / "two" / "comparison.json")
    assert lines and {line["verdict"] for line in lines} == {"same"}
    assert all((tmp_path / "two" / f"comparison.{kind}").is_file() for kind in ("md", "html"))


def test_a_split_column_gives_what_two_files_give(tmp_path):
    folder = files(tmp_path)
    data = DataFiles(path=str(folder / "both.jsonl"))
    one = quality.card(quality.of_config(data, "part"), QualityConfig(data=data, ngram=8))
    two = quality.card(
        quality.of_config(
            DataFiles(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"))
        ),
        QualityConfig(ngram=8),
    )
    # there is a column more
    assert one["numbers"] == {**two["numbers"], "completeness": one["numbers"]["completeness"]}
    assert (
        list(one["data"]["splits"]) == ["train", "test"]
        and one["numbers"]["completeness"]["test"]["rows"] == 30
    )


def test_rows_that_cannot_be_read_are_an_error_or_counted(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in clean(10)) + "{broken\n", "utf-8")
    code, _, err = jaxsft("quality", f"data.path={path}", f"output={tmp_path / 'q'}")
    assert code == 1 and "d.jsonl:31" in err and not (tmp_path / "q" / "card.json").exists()
    assert (
        jaxsft(
            "quality", f"data.path={path}", "data.on_bad_row=quarantine", f"output={tmp_path / 'q'}"
        )[0]
        == 0
    )
    card = read(str(tmp_path / "q" / "card.json"))
    assert (
        card["numbers"]["completeness"]["all"] | {"rows": 30, "unreadable_rows": 1}
        == card["numbers"]["completeness"]["all"]
    )
    code, _, err = jaxsft(
        "quality",
        f"data.path={path}",
        "data.on_bad_row=quarantine",
        "data.max_dropped=0.01",
        f"output={tmp_path / 'r'}",
    )
    assert code == 1 and "1 of 31 rows cannot be read, more than data.max_dropped=0.01" in err


def test_a_benchmark_in_another_format(tmp_path):
    copied = clean(1, 5)[0]["text"]
    formats.write(
        [
            {"question": f"Read this! {copied.upper()}", "n": "1"},
            {"question": "is this a new one", "n": "2"},
        ],
        tmp_path / "bench.csv",
    )
    formats.write(clean(20), tmp_path / "d.jsonl")
    assert (
        jaxsft(
            "quality",
            f"data.path={tmp_path / 'd.jsonl'}",
            f"benchmarks=[{tmp_path / 'bench.csv'}]",
            "ngram=9",
            f"output={tmp_path / 'q'}",
        )[0]
        == 0
    )
    found = read(str(tmp_path / "q" / "card.json"))["numbers"]["contamination"][
        str(tmp_path / "bench.csv")
    ]
    assert found["contaminated_rows"] == 1 and found["short_rows"] == 1


def test_errors_are_one_line(tmp_path):
    folder = files(tmp_path)
    for given, told in [
        (["data.path=nowhere.jsonl"], "nowhere.jsonl"),
        ([], "data.path=FILE"),
        ([f"data.path={folder / 'train.jsonl'}", "benchmark=[a]"], "benchmarks"),
        (
            [f"data.path={folder / 'train.jsonl'}", f"compare={folder / 'train.jsonl'}"],
            "train.jsonl",
        ),
        ([f"data.train={folder / 'train.jsonl'}", "split_column=x"], "split_column=x"),
    ]:
        code, _, err = jaxsft("quality", *given, f"output={tmp_path / 'q'}")
        assert code == 1 and told in err and len(err.strip().splitlines()) == 1, err


def test_the_verdict_of_a_comparison():
    before = {
        "numbers": {
            "noise": {"a": {"noisy_rows": 0.2, "rows": 3, "x": 1, "mtld": 50.0, "word": "small"}}
        },
        "definitions": {},
    }
    after = {
        "numbers": {
            "noise": {"b": {"noisy_rows": 0.1, "rows": 3, "y": 1, "mtld": 40.0, "word": "large"}}
        }
    }
    after["definitions"] = {
        "noisy_rows": {"better": "lower"},
        "mtld": {"better": "higher"},
        "word": {"better": ""},
    }
    found = {
        line["measure"]: (line["verdict"], line["difference"], line["part"])
        for line in quality.compare(before, after)
    }
    assert found == {
        "noisy_rows": ("better", -0.1, "a → b"), "rows": ("same", 0.0, "a → b"),
        "x": ("removed", None, "a → b"), "y": ("added", None, "a → b"),
        "mtld": ("worse", -10.0, "a → b"), "word": ("changed", None, "a → b"),
    }  # fmt: skip


# --- real data
# --------------------------------------------------------------------------------------------------
def test_sms_spam(tmp_path):
    lines = realdata.real("sms_spam/sms.tsv").read_text("utf-8").split("\n")[:1200]
    path = tmp_path / "sms.tsv"
    path.write_text("\n".join(lines), "utf-8")
    config = overrides.composed(
        [
            f"data.path={path}",
            "data.header=false",
            "data.columns.text=1",
            "data.columns.label=0",
            "sample=500",
        ],
        "quality",
    )
    card = quality.card(quality.of_config(config.data), config)
    spam = sum(line.startswith("spam\t") for line in lines)
    assert (
        card["numbers"]["completeness"]["all"]["rows"] == 1200
        and card["tables"]["classes"]["spam"]["all"] == spam
    )
    assert card["numbers"]["distribution"]["all"]["majority_share"] == pytest.approx(
        1 - spam / 1200, rel=1e-5
    )
    assert card["tables"]["damage"]["all"]["html_entity"] == sum(
        "&lt;" in t or "&gt;" in t or "&amp;" in t for t in lines
    )


def test_goemotions_has_the_label_conflicts_that_a_dictionary_finds():
    path = realdata.real("goemotions/dev.tsv")
    config = overrides.composed(
        [
            f"data.path={path}",
            "data.header=false",
            "data.columns.text=0",
            "data.columns.label=1",
            "sample=300",
        ],
        "quality",
    )
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
    assert card["numbers"]["diversity"]["all"]["vendi"] == pytest.approx(
        np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))), rel=1e-5
    )
    with pytest.raises(DataError, match=r"e\.npy: found 40 vectors, expected 39"):
        made({"all": rows[1:]}, embeddings=str(tmp_path / "e.npy"))


def test_the_page_has_every_number_with_its_definition():
    page = (Path(__file__).parents[3] / "docs" / "quality.md").read_text("utf-8")
    for name, measure in MEASURES.items():
        family = next(
            (
                f"`{p}_*`"
                for p in ("characters", "words", "label")
                if name.startswith(f"{p}_") and measure.source == LENGTH
            ),
            None,
        )
        drift = re.fullmatch(
            r"(?:characters|words|label|script|language|class|cluster)_(ks|ks_p|psi|drift|cramers_v|chi_square|freedom|p|cells_below_5)",
            name,
        )
        says = measure.says.partition(": ")[2] if drift else measure.says
        assert (family or (f"`*_{drift[1]}`" if drift else f"| `{name}` |")) in page and (
            family or says in page
        ), name
        assert not measure.source or f"| {measure.source} |" in page, name
