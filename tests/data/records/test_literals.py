"""Cells that spell lists, numbers in one spelling, and spans as tools write them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.formats.spans import Problem, located
from jaxsft.data.records import (
    features,
    label_record,
    literals,
    multilabel_record,
    regression_record,
    span_record,
    tag_record,
)
from jaxsft.errors import DataError


def row(**fields):
    return Row(fields, "a.csv", 7)


value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(-1e9, 1e9)
    | st.text(max_size=6),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(value, max_size=4))
def test_what_python_prints_is_read_back(found):
    assert literals.read(repr(found)) == found and literals.read(repr(tuple(found))) == found


@pytest.mark.parametrize(
    "text",
    [
        "['a' 'b']",
        "[a]",
        "['a'",
        "['a'] x",
        "[1,,2]",
        "[" * 5000,
        "{1: 2}",
        "['a', open('x')]",
        "",
        "[0x10]",
    ],
)
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        literals.read(text)


@pytest.mark.parametrize(
    "cell", ["['joy', 'fear']", '["joy", "fear"]', "('joy', 'fear')", "[\"joy\", 'fear', ]"]
)
def test_labels_in_a_cell(cell):
    assert multilabel_record(row(text="x", labels=cell), Columns()).labels == ("joy", "fear")


def test_a_set_in_a_cell_is_no_pair_of_labels():
    with pytest.raises(DataError, match=r"a.csv:7: column 'labels' holds broken JSON"):
        multilabel_record(row(text="x", labels="{'joy', 'fear'}"), Columns())
    assert multilabel_record(row(text="x", labels="(a), {b}"), Columns()).labels == ("(a)", "{b}")


def test_words_and_tags_in_cells():
    found = tag_record(row(tokens="['Ann', \"isn't\"]", tags="['B-PER', 'O']"), Columns())
    assert found.tokens == ("Ann", "isn't") and found.tags == ("B-PER", "O")
    for cell in (
        "[(0, 3, 'PER')]",
        '[{"start": 0, "end": 3, "text": "Ann", "labels": ["PER"]}]',
        "[{'start_offset': 0, 'end_offset': 3, 'label': 'PER'}]",
    ):
        assert span_record(row(text="Ann is", label=cell), Columns(spans="label")).spans == (
            (0, 3, "PER"),
        )
    with pytest.raises(
        DataError,
        match=r"a.csv:7: column 'tags' holds broken JSON .* no list of Python .*without a comma",
    ):
        tag_record(row(tokens='["a"]', tags="['O' 'O']"), Columns())


@pytest.mark.parametrize(
    "found", [["a"], '["a"]', "['a']", {"choices": ["a"]}, '{"choices": ["a"]}', "a"]
)
def test_a_list_of_one_label_is_that_label(found):
    assert label_record(row(text="x", label=found), Columns()).label == "a"


def test_a_list_of_several_labels_is_no_label():
    for found in (["a", "b"], '["a", "b"]', "['a', 'b']"):
        with pytest.raises(DataError, match=r"expected one label.*task=multilabel reads lists"):
            label_record(row(text="x", label=found), Columns())
    assert label_record(row(text="x", label="[UNK]"), Columns()).label == "[UNK]"
    assert multilabel_record(row(text="x", label='{"choices": ["a", "b"]}'), Columns()).labels == (
        "a",
        "b",
    )


NUMBERS = {"12": 12, " 1.5 ": 1.5, "-3": -3, "+1e3": 1000, ".5": 0.5, "7.": 7, 3: 3, 2.5: 2.5}
NO_NUMBERS = [
    "1_000",
    "２０",
    "1,250",
    "3,5",
    "inf",
    "-Infinity",
    "1e200",
    "0x10",
    "12 kg",
    "٣",
    10**400,
    True,
    "1e",
    float("inf"),
]


@pytest.mark.parametrize("found", NUMBERS)
def test_numbers_have_one_spelling(found):
    assert regression_record(row(text="x", label=found), Columns()).targets == (NUMBERS[found],)


@pytest.mark.parametrize("found", NO_NUMBERS)
def test_other_spellings_are_no_numbers(found):
    with pytest.raises(
        DataError, match=r"a.csv:7: column 'label' holds .*expected a finite number"
    ):
        regression_record(row(text="x", label=found), Columns())


@pytest.mark.parametrize("odd", ["1e200", "old", "1_000", "２０", "inf", "3,5"])
def test_one_cell_does_not_make_names_of_a_column_of_numbers(odd):
    columns = Columns(features=["x"], missing="mask")
    rows, where = [("1",), ("2.5",), (None,), (odd,), ("3",)], [f"a.csv:{i}" for i in range(2, 7)]
    with pytest.raises(
        DataError,
        match=rf"a.csv:5: column 'x' holds '{odd}' beside 3 numbers.*data.columns.categories",
    ):
        features.learn(columns, rows, where)
    (known,) = features.learn(Columns(features=["x"], categories=["x"]), rows, where)
    assert odd in known["values"]
    (learnt,) = features.learn(columns, [*rows[:3], rows[4]], where[:4])
    with pytest.raises(DataError, match=rf"b.csv:9: column 'x' holds '{odd}'"):
        features.encode([learnt], [(odd,)], ["b.csv:9"])


@pytest.mark.parametrize("cells", [("1_000", "2_000"), ("3,5", "4,5"), ("inf", "inf")])
def test_numbers_in_another_spelling_are_no_names(cells):
    with pytest.raises(DataError, match="expected a finite number"):
        features.learn(Columns(features=["x"]), [(cell,) for cell in cells], ["a.csv:2", "a.csv:3"])


def test_what_is_learnt_of_numbers_and_made_of_them_is_finite():
    columns, where = Columns(features=["x"]), ["a.csv:1", "a.csv:2"]
    (learnt,) = features.learn(columns, [("3e38",), ("-3e38",)], where)
    assert json.loads(json.dumps(learnt, allow_nan=False)) == learnt
    (tiny,) = features.learn(columns, [("1e-30",), ("2e-30",)], where)
    with pytest.raises(
        DataError, match=r"b.csv:1: column 'x' holds 1e\+30, too far from the numbers of training"
    ):
        features.encode([tiny], [("1e30",)], ["b.csv:1"])


SEVERAL = [
    {"start": 0, "end": 8, "label": "X", "parts": [[0, 3], [6, 8]]},
    {"start": 0, "end": 8, "label": "X", "fragments": [{}, {}]},
]


@pytest.mark.parametrize("span", SEVERAL)
def test_spans_of_several_parts_are_refused_or_taken_whole_where_asked(span):
    with pytest.raises(
        DataError,
        match=(
            r"a.csv:7: column 'spans': span 1 is .*of several"
            r" parts.*data.columns.allow=\[discontinuous\]"
        ),
    ):
        span_record(row(text="abc de fg", spans=[span]), Columns())
    assert span_record(
        row(text="abc de fg", spans=[span]), Columns(allow=["discontinuous"])
    ).spans == ((0, 8, "X"),)
    one = {"start": 0, "end": 3, "label": "X", "parts": [[0, 3]]}
    assert span_record(row(text="abc de fg", spans=[one]), Columns()).spans == ((0, 3, "X"),)


@pytest.mark.parametrize(
    "quoted",
    [
        "Berlin, Germany",
        "Berlin,  Germany",
        "Berlin,\nGermany",
        "Berlin,\\nGermany",
        "Berlin,Germany",
    ],
)
def test_a_quote_may_show_white_space_otherwise(quoted):
    text = "Text: Berlin,  Germany."
    assert located(text, 6, 22, quoted, "the span") == (6, 22)
    assert span_record(
        row(text=text, spans=[{"start": 6, "end": 22, "text": quoted, "label": "LOC"}]), Columns()
    ).spans == ((6, 22, "LOC"),)
    assert located("😀 " + text, 9, 25, quoted, "the span") == (8, 24)  # counted as JavaScript does
    with pytest.raises(Problem, match="is 'Berlin, France', but the text"):
        located(text, 6, 22, "Berlin, France", "the span")
