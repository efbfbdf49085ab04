import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data.formats import Row, read
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare.neighbours import normalise
from jaxsft.prepare.stage import Context
from tests.prepare.harness import make, one, rows_of, run, texts
from tests.realdata import real

LONG = "the quick brown fox jumps over the lazy dog and runs away from the old house by the river"


def lines(rows):
    return [row.line for row in rows]


def test_exact_after_normalisation():
    rows, report = one(make("dedup", method="exact"), "A  b", "a b", "a b!", "c", "a\nb")
    assert texts(rows) == ["A  b", "a b!", "c"]
    assert report.dropped == [
        ("rows.jsonl:2", "exact duplicate"),
        ("rows.jsonl:5", "exact duplicate"),
    ]
    assert report.facts["clusters"] == 1 and report.facts["largest clusters"] == [
        {"rows": 3, "first": [f"rows.jsonl:{i}" for i in (1, 2, 5)]}
    ]
    assert texts(
        one(
            make("dedup", method="exact", ignore_case=False, ignore_space=False),
            "A b",
            "a b",
            "a  b",
        )[0]
    ) == ["A b", "a b", "a  b"]
    assert texts(
        one(make("dedup", method="exact", ignore_punctuation=True), "a b", "a, b!")[0]
    ) == ["a b"]


def test_near_ones_are_those_at_the_threshold():
    """The two texts share 15 shingles of 19."""
    pair = (LONG, LONG.replace("quick", "slow"))
    assert len(one(make("dedup", threshold=15 / 19), *pair)[0]) == 1
    assert len(one(make("dedup", threshold=15 / 19 + 0.001), *pair)[0]) == 2
    rows, report = one(make("dedup", threshold=0.7), *pair, LONG.upper())
    assert lines(rows) == [1] and report.dropped == [
        ("rows.jsonl:2", "near duplicate"),
        ("rows.jsonl:3", "exact duplicate"),
    ]


def test_chinese_is_compared_by_characters():
    text = "委员会将于星期二再次开会讨论新的规则并且决定明年的预算安排"
    assert len(one(make("dedup", threshold=0.6), text, text.replace("二", "三"))[0]) == 1
    assert (
        len(one(make("dedup", threshold=0.6, unit="word"), text, text.replace("二", "三"))[0]) == 2
    )


def test_a_test_row_is_never_dropped_for_a_training_row():
    sets = {
        "train": rows_of("x", LONG, LONG + " today", "y"),
        "validation": rows_of(LONG),
        "test": rows_of("only test", LONG.upper()),
    }
    out, reports = run(make("dedup"), sets)
    assert [lines(out[split]) for split in sets] == [[1, 4], [], [1, 2]]
    assert reports["train"].dropped == [
        ("rows.jsonl:2", "exact duplicate of a row of test"),
        ("rows.jsonl:3", "near duplicate of a row of test"),
    ]
    out, _ = run(make("dedup", keep="first"), sets)
    assert [lines(out[split]) for split in sets] == [[1, 2, 4], [], [1]]


def test_within_and_across():
    sets = {"train": rows_of("a", "a", "b"), "test": rows_of("b", "b")}
    assert [lines(rows) for rows in run(make("dedup", across=False), sets)[0].values()] == [
        [1, 3],
        [1],
    ]
    assert [lines(rows) for rows in run(make("dedup", within=False), sets)[0].values()] == [
        [1, 2],
        [1, 2],
    ]
    assert [lines(rows) for rows in run(make("dedup"), sets)[0].values()] == [[1], [1]]


def test_conflicting_labels():
    contents = [
        {"text": "a", "label": "x"},
        {"text": "A", "label": "y"},
        {"text": "b", "label": "x"},
    ]
    with pytest.raises(
        DataError,
        match=(
            r'rows.jsonl:2: it repeats rows.jsonl:1 with the label "y", not "x"; set'
            r" stages.dedup.conflict=keep"
        ),
    ):
        one(make("dedup"), *contents)
    assert lines(one(make("dedup", conflict="keep"), *contents)[0]) == [1, 3]
    rows, report = one(make("dedup", conflict="drop"), *contents)
    assert lines(rows) == [3] and {reason for _, reason in report.dropped} == {
        "duplicates with conflicting labels"
    }


def test_marking_keeps_every_row():
    rows, report = one(make("dedup", action="mark"), "a", "b", "A")
    assert texts(rows, "duplicate_of") == [None, None, "rows.jsonl:1"]
    assert texts(rows, "marks") == ["", "", "dedup: exact duplicate"]
    assert report.marked == {"exact duplicate": 1} and not report.dropped


def test_several_columns_are_compared_together():
    contents = [{"q": "a", "r": "b"}, {"q": "a", "r": "c"}, {"q": "A", "r": "B"}]
    assert lines(one(make("dedup", fields=["q", "r"]), *contents)[0]) == [1, 2]
    with pytest.raises(DataError, match=r"missing column 'text'.*stages.dedup.fields"):
        one(make("dedup"), *contents)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "validation", "test"]),
            st.sampled_from(["a", "A", "b", "c  d", "c d", ""]),
        ),
        max_size=14,
    )
)
def test_every_text_stays_once_in_its_best_split(pairs):
    sets = {
        split: [Row({"text": t}, "a.csv", i) for i, (s, t) in enumerate(pairs) if s == split]
        for split in ("train", "validation", "test")
    }
    for method in ("exact", "near"):
        out, _ = run(make("dedup", method=method), sets)
        kept = [normalise(text) for rows in out.values() for text in texts(rows)]
        assert sorted(kept) == sorted({normalise(text) for _, text in pairs})
        test = {normalise(text) for split, text in pairs if split == "test"}
        assert {normalise(text) for text in texts(out["test"])} == test


def test_it_is_deterministic_and_twice_is_once():
    rows = [
        Row({"text": row.fields["text"]}, row.file, row.line)
        for row in read(real("banking77/train.csv"))[:3000]
    ]
    stage = make("dedup", Context(seed=3), threshold=0.6, shingle=2)
    out, reports = run(stage, {"train": rows[:2000], "test": rows[2000:]})
    assert run(stage, {"train": rows[:2000], "test": rows[2000:]})[0] == out
    assert len(out["train"]) < 2000 and reports["train"].facts["recall"] >= 0.98
    assert (
        Counter(reason for _, reason in reports["train"].dropped)["near duplicate of a row of test"]
        > 0
    )
    assert run(stage, out)[0] == out
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    assert len(run(stage, {"train": shuffled})[0]["train"]) == len(
        run(stage, {"train": rows})[0]["train"]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"method": "fuzzy"},
        {"threshold": 0.0},
        {"within": False, "across": False},
        {"shingle": 0},
        {"threshold": 0.05, "num_perm": 8},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=r"stages.dedup"):
        make("dedup", **options)
