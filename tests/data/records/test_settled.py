"""What only all rows of a file tell together: chunks or not, one-hot lists, labels that stand for
none.
"""

from __future__ import annotations

import re

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import Doubtful, multilabel_record, settled, tag_record
from jaxsft.data.records.fields import declared_labels, one_hot
from jaxsft.data.records.settled import labels
from jaxsft.data.schemes import respelled
from jaxsft.errors import DataError


def tagged(*lists, **columns):
    rows = [
        Row({"tokens": ["w"] * len(tags), columns.get("tags", "tags"): list(tags)}, "a", i)
        for i, tags in enumerate(lists, start=1)
    ]
    return rows, Columns(**columns)


def labelled(*labels, name="label"):
    return [Row({"text": f"t{i}", name: label}, "a", i) for i, label in enumerate(labels, start=1)]


@pytest.mark.parametrize(
    "spelt", ["{0}_{1}", "{0}:{1}", "{1}-{0}", "{1}_{0}", "{0}.{1}", "{0}|{1}"]
)
@pytest.mark.parametrize("lower", [False, True])
def test_tags_in_another_spelling_name_the_option_that_reads_them(spelt, lower):
    of = lambda prefix, kind: spelt.format(prefix.lower() if lower else prefix, kind)
    rows, columns = tagged([of("B", "PER"), of("I", "PER"), "O"], ["O", of("B", "LOC"), "O"])
    with pytest.raises(Doubtful, match=r"data\.columns\.scheme=iob2 reads them as chunks") as error:
        settled.tags(rows, columns)
    assert error.value.finding == "tag_spelling"
    asked = settled.tags(rows, Columns(scheme="iob2"))
    record = tag_record(rows[0], asked)
    assert record.tags == ("B-PER", "I-PER", "O") and record.scheme == "iob2"
    assert tag_record(rows[0], settled.tags(rows, Columns(scheme="none"))).tags == (
        of("B", "PER"),
        of("I", "PER"),
        "O",
    )


def test_b_per_in_small_letters():
    rows, columns = tagged(["b-PER", "i-PER", "o"], ["o", "b-LOC"])
    with pytest.raises(Doubtful, match="tags of chunks in another spelling"):
        settled.tags(rows, columns)


@pytest.mark.parametrize(
    "lists", [[["PER", "I-PER", "O"], ["B-PER", "O"]], [["NOUN"], ["VERB", "B-X"]]]
)
def test_mixed_tags_are_an_error(lists):
    with pytest.raises(
        Doubtful, match=r"data\.columns\.scheme=none to take each tag for itself"
    ) as error:
        settled.tags(*tagged(*lists))
    assert error.value.finding == "mixed_tags"


@pytest.mark.parametrize(
    "tags",
    [
        ["NN", "VBZ", "DT"],
        ["S_x", "N_y", "O_z"],
        ["love", "hate"],
        ["NOUN", "O"],
        ["X", "E", "S"],
        ["-LRB-", "NN"],
        ["0", "1"],
        ["b", "i"],
    ],
)
def test_other_tags_stand_for_themselves(tags):
    assert settled.tags(*tagged(tags, tags[::-1])).scheme == "none"


def test_letters_are_chunks_where_all_rows_fit():
    assert settled.tags(*tagged(["B", "I", "O"], ["B", "O"])).scheme == "auto"
    # parts of speech
    assert settled.tags(*tagged(["E", "I"], ["M", "U", "S"], ["L", "B"])).scheme == "none"
    with pytest.raises(Doubtful, match=r"data\.columns\.scheme=bmes"):
        settled.tags(*tagged(*[["B", "M", "E", "S"]] * 19, ["M", "E"]))


@pytest.mark.parametrize("name", ["upos", "xpos"])
def test_parts_of_speech_of_conllu_are_never_chunks(name):
    assert settled.tags(*tagged(["B", "E"], ["S"], tags=name)).scheme == "none"


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, -1],
        [-1, -1],
        [0, 1, -100],
        ["0", "1", "-1.0"],
        ["1", "-1", "0"],
        ["a", "nan"],
        ["a", "NULL"],
        ["x", "<NA>"],
    ],
)
def test_what_stands_for_no_label_is_no_class(labels):
    rows = labelled(*labels)
    with pytest.raises(Doubtful, match=r"data\.columns\.no_label=") as error:
        settled.label(rows, Columns())
    mark = error.value.repair.rpartition("=")[2]
    assert settled.label(rows, Columns(no_label=mark)) == Columns(no_label=mark)
    assert settled.label(rows, Columns(), [mark]) == Columns()


@pytest.mark.parametrize(
    "labels", [[1, -1], [0, 1, 2], ["a", "none"], [-2, 2], [True, False], ["-1", "x"]]
)
def test_other_labels_are_classes(labels):
    assert settled.label(labelled(*labels), Columns()) == Columns()


@pytest.mark.parametrize(
    "lists",
    [
        [[0, 1], [1, 0]],
        [["1.0"], [1]],
        ["[0, 1, 0]", "[1, 0, 0]"],
        [[True, False], [False, True]],
        ["[1 0]", "[0 1]"],
    ],
)
def test_one_hot_lists_are_told(lists):
    rows = labelled(*lists, name="labels")
    if lists[0] == ["1.0"]:
        assert settled.labels(rows, Columns()) == Columns()  # lists of one are names
        return
    with pytest.raises(Doubtful, match=r"data.columns.labels=\[\.\.\.\]"):
        settled.labels(rows, Columns())
    count = 3 if "0, 0" in str(lists) else 2
    record = multilabel_record(rows[0], Columns(labels=["a", "b", "c"][:count]))
    assert record.labels == (("a",) if lists[0] in ([True, False], "[1 0]") else ("b",))
    with pytest.raises(DataError, match="names 4 classes"):
        multilabel_record(rows[0], Columns(labels=list("abcd")))


@pytest.mark.parametrize(
    "lists", [[[0, 1], ["a"]], [[0, 1], [1]], [["joy"], ["fear", "joy"]], [[], [1]]]
)
def test_other_lists_are_names(lists):
    assert settled.labels(labelled(*lists, name="labels"), Columns()) == Columns()


def test_lists_as_pandas_writes_them():
    row = labelled("['joy', 'fear']", name="labels")[0]
    assert multilabel_record(row, Columns()).labels == ("joy", "fear")


def test_labels_of_options_are_spelled_as_the_data():
    assert declared_labels([True, "False"], {"true", "false"}) == ["true", "false"]
    assert declared_labels([True, False, "x"], {"TRUE", "FALSE"}) == ["TRUE", "FALSE", "x"]
    assert declared_labels(["True"], {"True", "true"}) == ["True"]


def test_respelled():
    assert [respelled(tag) for tag in ("B-PER", "b_PER", "PER-I", "O", "o", "NOUN", "B")] == [
        "B-PER",
        "B-PER",
        "I-PER",
        "O",
        "O",
        None,
        "B",
    ]
    assert [respelled(tag) for tag in ("B PER", "I\u2013PER", "BEGIN-PER", "inside_PER")] == [
        "B-PER",
        "I-PER",
        "B-PER",
        "I-PER",
    ]
    assert [respelled(tag) for tag in ("START_TIME", "BERT-PER", "PER_MAX")] == [None, None, None]


@pytest.mark.parametrize(
    ("cells", "sign"),
    [
        (["joy|fear", "joy"], "|"),
        (["joy; fear", "joy"], ";"),
        (["joy/fear", "joy", "fear"], "/"),
        (["joy fear", "joy", "fear"], " "),
    ],
)
def test_cells_parted_by_another_sign_are_told(cells, sign):
    with pytest.raises(Doubtful, match=re.escape(f"data.columns.separator='{sign}'")):
        labels(labelled(*cells, name="labels"), Columns())
    assert labels(labelled(*cells, name="labels"), Columns(separator=sign)).separator == sign
    assert labels(labelled(*cells, name="labels"), Columns(), [cells[0]])


@pytest.mark.parametrize(
    "cells",
    [
        ["joy", "fear"],
        ["joy, fear|anger", "joy"],
        ["hip/hop", "rock"],
        ["not spam", "spam"],
        ["['a|b']", "a"],
    ],
)
def test_cells_without_another_sign_are_left_alone(cells):
    assert labels(labelled(*cells, name="labels"), Columns())


@pytest.mark.parametrize(
    "cells",
    [["0 1 0", "1 0 0"], ["0,1", "1,0"], ["0;1", "1;1"], ["[0 1]", "[1 0]"], ["0|1", "1|0"]],
)
def test_zeros_and_ones_of_a_cell_are_one_hot(cells):
    rows = labelled(*cells, name="labels")
    with pytest.raises(Doubtful, match="one-hot"):
        labels(rows, Columns())
    names = list("abc")[: len(one_hot(cells[0]))]
    assert multilabel_record(rows[0], Columns(labels=names)).labels == ("b",)
