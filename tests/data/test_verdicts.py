"""Columns that say whether a row may be used: obeyed where their tool leaves no doubt, refused
elsewhere until data.keep decides.
"""

from __future__ import annotations

import re

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import Doubtful
from jaxsft.data.verdicts import used
from jaxsft.errors import ConfigError, DataError


def of(name, values, **more):
    return [
        Row({"text": f"t{i}", "label": "abc"[i % 3], name: value} | more, "f.jsonl", i)
        for i, value in enumerate(values, start=1)
    ]


def kept(rows, keep=None, split="train", task="classify", **columns):
    aside = []
    return [row.line for row in used(rows, Columns(**columns), keep or {}, split, aside, task)], {
        a.line: a.reason for a in aside
    }


def test_the_verdict_of_prodigy_is_obeyed():
    rows = of("answer", ["accept", "reject", "ignore", "accept", None])
    assert kept(rows) == ([1, 4], {2: "rejected", 3: "ignored", 5: "not_answered"})
    aside = []
    used(rows, Columns(), {}, "train", aside, "tag")
    assert all(one.declared for one in aside)


@pytest.mark.parametrize("name", ["skipped", "was_cancelled"])
def test_what_an_annotator_skipped_is_left_out(name):
    assert kept(of(name, [False, True, False])) == ([1, 3], {2: "skipped"})


@pytest.mark.parametrize(("task", "negative"), [("classify", "not spam"), ("multilabel", [])])
def test_what_is_rejected_of_one_class_is_a_negative(task, negative):
    rows = of("answer", ["accept", "reject", "ignore"], label="spam")
    out = used(rows, Columns(), {}, "train", [], task)
    assert [row.fields["label"] for row in out] == ["spam", negative]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("is_valid", [True, False]),
        ("isValid", ["true", "false"]),
        ("valid", [1, 0]),
        ("skip", [False, True]),
        ("SKIP", ["no", "yes"]),
        ("excluded", ["0", "1"]),
        ("deleted", [0.0, 1.0]),
        ("status", ["submitted", "discarded"]),
        ("verdict", ["good", "bad"]),
        ("gold", [False, True]),
        ("_golden", ["false", "true"]),
        ("fold", [0, 1]),
        ("split", ["train", "dev"]),
        ("set", ["training", "test"]),
        ("was discarded", [False, True]),
        ("AssignmentStatus", ["Approved", "Rejected"]),
        ("needs_review", [False, True]),
        ("masked", [0, 1]),
        ("loss", [True, False]),
    ],
)
@pytest.mark.parametrize("split", ["train", ""])
def test_a_column_that_speaks_against_rows_is_refused_with_the_option_that_decides(
    name, values, split
):
    rows = of(name, values)
    with pytest.raises(Doubtful, match=r"f\.jsonl:\d: column ") as error:
        used(rows, Columns(), {}, split, [], "classify")
    assert kept(rows, {name: "any"}, split)[0] == [1, 2]
    assert f"{name}=any" in str(error.value) or f"{{{name}: any}}" in str(error.value)
    wanted = values[0]
    assert kept(rows, {name: wanted}, split) == ([1], {2: f"keep.{name}"})
    assert kept(rows, {"train": {name: wanted}} if split else {name: wanted}, split)[0] == [1]
    assert kept(rows, None, split, label=name)[0] == [1, 2]  # a column that is read is no verdict


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("is_valid", [True, True]),
        ("skip", [False, None]),
        ("split", ["test", "test"]),
        ("split", ["en", "de"]),
        ("status", ["open", "closed"]),
        ("fold", [3, 3]),
        ("fold", ["left", "right"]),
        ("gold", ["a", "b"]),
        ("answer", ["yes", "no"]),
        ("correct", [True, False]),
        ("verified", [True, False]),
        ("loss", [1, 0.25]),
        ("marital_status", ["single", "married"]),
        ("state", ["Ohio", "Utah"]),
    ],
)
def test_a_column_that_says_nothing_about_rows_is_left_alone(name, values):
    assert kept(of(name, values)) == ([1, 2], {})


def test_rows_of_several_splits_name_a_command_for_each():
    with pytest.raises(Doubtful) as error:
        used(of("split", ["train", "dev", "test"]), Columns(), {}, "", [], "lm")
    for part, spelt in (("train", "train"), ("validation", "dev"), ("test", "test")):
        assert f"data.{part}=f.jsonl data.keep.{part}.split={spelt}" in str(error.value)


def test_keep_that_fits_no_row_is_an_error():
    with pytest.raises(ConfigError, match=r"data\.keep\.kind: no row"):
        used(of("status", ["a"]), Columns(), {"kind": "a"}, "train", [], "lm")
    with pytest.raises(
        DataError, match=re.escape("data.keep.status=b leaves none of the 1 rows (a: 1)")
    ):
        used(of("status", ["a"]), Columns(), {"status": "b"}, "train", [], "lm")
