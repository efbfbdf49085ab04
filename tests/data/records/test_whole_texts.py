"""Texts with a class, several, numbers, or a second text."""

import json
import math

import numpy as np
import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.formats import Row
from jaxsft.data.records import (
    NUMBERS,
    LabelledText,
    MultiLabel,
    Pair,
    Regression,
    Text,
    Unlabelled,
    label_names,
    label_record,
    multilabel_record,
    pair_record,
    parse_rows,
    regression_record,
    text_record,
)
from jaxsft.errors import ConfigError, DataError
from tests.realdata import real


def row(**fields):
    return Row(fields, "data.jsonl", 117)


def names_file(folder, content, name="names.txt"):
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


def test_text():
    assert text_record(row(text=""), Columns()) == Text("")
    assert text_record(row(body="x"), Columns(text="body")) == Text("x")
    for bad in (None, 3):
        with pytest.raises(DataError, match=r"expected a string; set data.columns.text"):
            text_record(row(text=bad), Columns())


# --- one label
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "found, label",
    [
        ("3", "3"),
        (3, "3"),
        (3.0, "3"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (1.37e18, "1370000000000000000"),
    ],
)
def test_labels_of_any_type(found, label):  # guards D10
    assert label_record(row(text="x", label=found), Columns()) == LabelledText("x", None, label)
    assert multilabel_record(row(text="x", label=[found]), Columns()).labels == (label,)
    assert pair_record(row(text="x", text_pair="y", label=found), Columns()).label == label


@pytest.mark.parametrize(
    "bad", [None, "", " ", 1.5, float("nan"), float("inf"), ["a", "b"], [], [["a"]], {}]
)
def test_labels_that_are_none(bad):
    with pytest.raises(DataError, match=r"data.jsonl:117: column 'label' holds"):
        label_record(row(text="x", label=bad), Columns())


def test_pairs_of_a_class():
    assert label_record(
        row(a="x", b="y", c="z"), Columns(text="a", text_pair="b", label="c")
    ) == LabelledText("x", "y", "z")
    with pytest.raises(DataError, match=r"missing column 'b'.*data.columns.text_pair"):
        label_record(row(text="x", label="z"), Columns(text_pair="b"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("n.txt", "no\nyes\n\n"),
        ("n.json", '["no", "yes"]'),
        ("n.json", '{"1": "yes", "0": "no"}'),
        ("n.json", '{"yes": 1, "no": 0}'),
        ("n.txt", "\ufeffno\r\nyes"),
    ],
)
def test_ids_are_named_by_a_class_file(tmp_path, name, content):
    columns = Columns(label_names=names_file(tmp_path, content, name))
    assert [
        label_record(row(text="x", label=label), columns).label
        for label in (0, "1", 1.0, "no", "yes")
    ] == ["no", "yes", "yes", "no", "yes"]
    for bad, part in (
        (2, "the id 2, but .* names the ids 0 to 1"),
        (-1, "the id -1"),
        ("maybe", "none of the 2 names"),
    ):
        with pytest.raises(DataError, match=f"data.jsonl:117: .*{part}.*data.columns.label_names"):
            label_record(row(text="x", label=bad), columns)


@pytest.mark.parametrize(
    "content, part",
    [
        ('["a", "a"]', "'a' occurs twice"),
        ('["1", "0"]', "'1' has another id"),
        ('{"0": "a", "2": "b"}', "the ids 0 to 1"),
        ('["a", ""]', "expected a list of names"),
        ("3", "expected a list of names"),
        ("{", "cannot be read"),
    ],
)
def test_a_class_file_that_leaves_doubt_is_refused(tmp_path, content, part):
    with pytest.raises(ConfigError, match=f"data.columns.label_names=.*{part}"):
        label_names(names_file(tmp_path, content, "n.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        label_names(str(tmp_path / "none.txt"))


def test_a_class_file_is_read_again_when_it_changes(tmp_path):
    path = names_file(tmp_path, "a\nb\n")
    assert list(label_names(path)) == ["a", "b"]
    import os

    names_file(tmp_path, "c\nd\n")
    os.utime(path, ns=(1, 1))
    assert list(label_names(path)) == ["c", "d"]


def test_a_row_without_a_majority_is_dropped_where_it_is_declared():
    rows = [row(text="x", label="a"), row(text="x", label="-"), row(text="x", label=None)]
    with pytest.raises(Unlabelled):
        label_record(rows[1], Columns(no_label="-"))
    assert label_record(rows[1], Columns()).label == "-"  # not declared: a label like any other
    aside = []
    kept, records = parse_rows(rows[:2], label_record, Columns(no_label="-"), aside, "error")
    assert (
        [r.label for r in records] == ["a"]
        and kept == rows[:1]
        and [(a.line, a.reason) for a in aside] == [(117, "no_label")]
    )
    with pytest.raises(DataError, match="holds null"):
        parse_rows(rows, label_record, Columns(no_label="-"), [], "error")
    aside = []
    parse_rows(rows, label_record, Columns(no_label="-"), aside, "quarantine")
    assert [a.reason for a in aside] == ["no_label", "no_record"] and "holds null" in aside[
        1
    ].message


# --- several labels
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "found, labels",
    [
        ("3,27", ("3", "27")),
        (" 3 , 27 ", ("3", "27")),
        ("3", ("3",)),
        (3, ("3",)),
        ([3, "b"], ("3", "b")),
        ("", ()),
        ([], ()),
        ('["a", "b"]', ("a", "b")),
    ],
)
def test_several_labels_of_a_row(found, labels):
    assert multilabel_record(row(text="x", labels=found), Columns()) == MultiLabel(
        "x", None, labels
    )
    assert multilabel_record(row(text="x", kinds=found), Columns(label="kinds")).labels == labels


def test_an_absent_list_of_labels_is_an_error_unless_it_is_allowed():
    for found in (row(text="x"), row(text="x", labels=None)):
        assert multilabel_record(found, Columns(allow=["absent"])).labels == ()
        with pytest.raises(
            DataError,
            match=(
                r"data.columns"
                if "labels" in found.fields
                else r"set data.columns.allow=\[absent\], or data.columns.label="
            ),
        ):
            multilabel_record(found, Columns())


def test_another_separator_and_named_ids(tmp_path):
    columns = Columns(separator="|", label_names=names_file(tmp_path, "a\nb, or c\n"))
    assert multilabel_record(row(text="x", labels="1|a"), columns).labels == ("b, or c", "a")
    with pytest.raises(DataError, match="'a' stands twice"):
        multilabel_record(row(text="x", labels="0|a"), columns)


def test_one_hot_columns():
    columns = Columns(labels=["a", "b", "c"])
    assert multilabel_record(row(text="x", a=1, b="0", c="1"), columns).labels == ("a", "c")
    assert multilabel_record(row(text="x", a=True, b=0.0, c="false"), columns).labels == ("a",)
    for bad in (2, "yes", None, ""):
        with pytest.raises(DataError, match=r"column 'b' holds .*, expected 0 or 1"):
            multilabel_record(row(text="x", a=1, b=bad, c=0), columns)
    with pytest.raises(DataError, match=r"missing column 'c'.*data.columns.labels"):
        multilabel_record(row(text="x", a=1, b=1), columns)


# --- numbers
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("found", [3, 3.0, "3", "3.0", " 3 ", np.int64(3), np.float64(3)])
def test_targets_are_float32_whatever_they_were(found):  # guards D11
    record = regression_record(row(text="x", label=found), Columns())
    assert record == Regression("x", None, (3.0,)) and type(record.targets[0]) is float


def test_targets_are_rounded_to_float32():  # guards D11
    (value,) = regression_record(row(text="x", label=0.1), Columns()).targets
    assert value == float(np.float32(0.1)) != 0.1


@pytest.mark.parametrize("bad", ["much", True, "inf", float("inf"), 1e39, [1], "1,5"])
def test_what_is_no_number(bad):
    with pytest.raises(
        DataError, match=r"data.jsonl:117: column 'label' holds .*expected a finite number"
    ):
        regression_record(row(text="x", label=bad), Columns())


@pytest.mark.parametrize("missing", [None, "", "NA", "nan", float("nan")])
def test_missing_targets_are_an_error_or_masked(missing):
    found = row(text="x", V=1, A=missing)
    with pytest.raises(DataError, match=r"data.columns.missing=mask"):
        regression_record(found, Columns(targets=["V", "A"]))
    first, second = regression_record(found, Columns(targets=["V", "A"], missing="mask")).targets
    assert first == 1 and math.isnan(second)
    with pytest.raises(DataError, match="every target is missing"):
        regression_record(row(text="x", V=missing), Columns(targets=["V"], missing="mask"))


# --- pairs
# --------------------------------------------------------------------------------------------------
def test_pairs():
    found = row(text="a", text_pair="b", label="near", gold=4.5)
    assert pair_record(found, Columns()) == Pair("a", "b", "near", None)
    assert pair_record(found, Columns(score="gold")) == Pair("a", "b", None, 4.5)
    assert pair_record(row(text="a", text_pair="b"), Columns()) == Pair("a", "b")
    assert pair_record(row(q="a", d="b"), Columns(text="q", text_pair="d")) == Pair("a", "b")
    with pytest.raises(DataError, match="missing column 'kind'"):
        pair_record(found, Columns(label="kind"))
    with pytest.raises(DataError, match="holds no score"):
        pair_record(row(text="a", text_pair="b", s=None), Columns(score="s"))


# --- real files
# --------------------------------------------------------------------------------------------------
def test_goemotions():
    columns = Columns(text="0", label="1", label_names=str(real("goemotions/labels.txt")))
    records = [
        multilabel_record(r, columns)
        for r in formats.stream(real("goemotions/dev.tsv"), columns=["0", "1"])
    ]
    assert (
        len(records) == 5426
        and records[1].labels == ("approval", "neutral")
        and max(len(r.labels) for r in records) > 2
    )
    assert {label for r in records for label in r.labels} == set(label_names(columns.label_names))


def test_emobank():
    columns = Columns(targets=["V", "A", "D"])
    kind = NUMBERS
    rows = formats.read(
        real("emobank/emobank.csv.gz"), columns=[*kind.inputs(columns), *kind.outputs(columns)]
    )
    targets = np.array([kind.record(r, columns).targets for r in rows])
    assert targets.shape == (10062, 3) and targets.min() >= 1 and targets.max() <= 5


def test_banking77_names_are_those_of_its_class_file():
    names = json.loads(real("banking77/categories.json").read_text(encoding="utf-8"))
    columns = Columns(label="category", label_names=str(real("banking77/categories.json")))
    rows = formats.read(real("banking77/test.csv"), columns=["text", "category"])
    assert {label_record(r, columns).label for r in rows} == set(names)
