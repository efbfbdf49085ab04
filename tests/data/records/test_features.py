"""Columns beside a text: what is learnt of them from training rows, and how a cell becomes a
number, a class or words.
"""

import numpy as np
import pytest

from jaxsft.config.schema import Columns
from jaxsft.data.formats import Row
from jaxsft.data.records import features, label_record
from jaxsft.errors import DataError

COLUMNS = Columns(features=("age", "country", "zip"), categories=("zip",), missing="mask")


def cells(*rows):
    where = [f"a.csv:{i}" for i in range(1, len(rows) + 1)]
    found = [dict(zip(COLUMNS.features, row, strict=True)) for row in rows]
    return [
        features.values_of(Row(f, "a.csv", i), COLUMNS) for i, f in enumerate(found, start=1)
    ], where


TRAIN = cells((20, "fr", 10115), ("40", "de", "10115"), (None, "fr", 20095), (30.0, "NA", "20095"))


def test_numbers_are_standardised_and_classes_numbered_from_training_rows():
    learnt = features.learn(COLUMNS, *TRAIN)
    assert learnt[1:] == [
        {"name": "country", "values": ["de", "fr"]},
        {"name": "zip", "values": ["10115", "20095"]},
    ]
    assert learnt[0]["mean"] == 30 and learnt[0]["deviation"] == pytest.approx(np.std([20, 40, 30]))
    assert features.sizes(learnt) == [0, 3, 3]
    numbers, classes = features.encode(learnt, *TRAIN)
    np.testing.assert_allclose(
        numbers[:, 0], np.array([-10, 10, 0, 0]) / np.std([20, 40, 30]), rtol=1e-6
    )
    assert (
        classes.tolist() == [[0, 2, 1], [0, 1, 1], [1, 2, 2], [0, 0, 2]]
        and not numbers[:, 1:].any()
    )
    # a country and a zip that training did not have
    numbers, classes = features.encode(learnt, *cells((50, "it", "99999")))
    assert numbers[0, 0] > 2 and classes.tolist() == [[0, 0, 0]]
    assert (
        features.written("{name}={value}; ", learnt, TRAIN[0][3], "text {value}")
        == "age=30.0; zip=20095; text {value}"
    )
    assert features.written("{value}", learnt, ("{name}", None, None), "x") == "{name}x"


@pytest.mark.parametrize(
    "rows, message",
    [
        ([(None, "a", 1)] * 2, r"^a\.csv: column 'age' has no value in any row of training"),
        ([(3, "a", 1)] * 2, r"^a\.csv: column 'age' holds 3 in every row of training"),
    ],
)
def test_a_column_that_tells_nothing_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        features.learn(COLUMNS, *cells(*rows))


def test_cells_that_cannot_be_read_name_their_row():  # guards D9
    learnt = features.learn(COLUMNS, *TRAIN)
    with pytest.raises(
        DataError,
        match=r"^a\.csv:2: column 'age' holds 'old', but it held numbers alone in training",
    ):
        features.encode(learnt, *cells((1, "de", 1), ("old", "de", 1)))
    row = Row({"text": "x", "label": "y", "age": []}, "b.jsonl", 7)
    with pytest.raises(
        DataError, match=r"^b\.jsonl:7: column 'age' holds \[\], expected a number or a name"
    ):
        label_record(row, Columns(features=("age",)))
    with pytest.raises(DataError, match=r"^b\.jsonl:7: .*'size'"):
        label_record(row, Columns(features=("size",)))
    empty = Row({"text": "x", "label": "y", "age": " "}, "b.jsonl", 7)
    with pytest.raises(DataError, match=r"data\.columns\.missing=mask"):
        label_record(empty, Columns(features=("age",)))
    assert label_record(empty, Columns(features=("age",), missing="mask")).features == (None,)


def test_a_cell_that_would_make_the_others_alike_is_an_error():
    columns, where = Columns(features=["n"]), [f"a.csv:{i}" for i in range(2, 102)]
    cells = [str(i % 7) for i in range(100)]
    far = [*cells[:41], "1e20", *cells[42:]]
    with pytest.raises(DataError, match=r"a.csv:43: column .n. holds .1e20., so far from"):
        features.learn(columns, [(cell,) for cell in far], where)
    prices = [*cells[:41], "9000", *cells[42:]]
    for those in (cells, prices, ["0"] * 99 + ["1e20"]):
        assert features.learn(columns, [(cell,) for cell in those], where)[0]["deviation"] > 0
