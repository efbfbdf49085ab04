"""Lists beside the turns that say which are trained are read, or are an error; never ignored."""

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import row_weights
from jaxsft.data.formats import Row
from jaxsft.data.records import LabelledText, chat_record
from jaxsft.errors import DataError

TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]
SHARED = [
    {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]}
    for turn in TURNS
]


def weights(columns=None, **fields):
    columns = columns or Columns()
    row = Row({"messages": TURNS} | fields, "data.jsonl", 117)
    record = row_weights.weighted(chat_record(row, columns), row, columns)
    return [message.weight for message in record.messages if message.role == "assistant"]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"loss_masks": [0, 0, 0, 1]}, [0, 1]),
        ({"loss_mask": [False, True]}, [0, 1]),
        ({"loss_mask": "[0, 1]"}, [0, 1]),
        ({"masked": [True, False]}, [0, 1]),
        ({"weights": [0.5, 2]}, [0.5, 2]),
        ({"weight": [1, 0, 1, 2.0]}, [0, 2]),
        ({"turn_weights": [0, 3]}, [0, 3]),
        ({"train_on": [True, False]}, [1, 0]),
        ({"loss_masks": None}, [1, 1]),
        ({"embedding": [0.5, 2.0]}, [1, 1]),
    ],
)
def test_lists_weigh_the_turns(fields, expected):
    assert weights(**fields) == expected
    turns = {"conversations": SHARED, "messages": None}
    row = Row({k: v for k, v in (fields | turns).items() if v is not None}, "data.jsonl", 117)
    found = chat_record(row, Columns()).messages
    assert [m.weight for m in found if m.role == "assistant"] == expected


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"loss_masks": [0, 1, 1]}, "has 3 values, expected one for each of the 4 messages, or"),
        ({"loss_masks": [1, 1, 0, 1]}, "message 1 has loss_mask=1 but the role 'user'"),
        ({"mask": [0, 1]}, "does not say whether 1 is trained or hidden"),
        ({"loss_masks": [0, 1], "weights": [1, 1]}, "both say which turns are trained"),
        ({"weights": [0.5, -1]}, "has the weight -1"),
        ({"weights": 0.5}, "column 'weights' is there; set data.columns.weight=weights"),
    ],
)
def test_what_is_in_doubt_is_an_error(fields, part):
    with pytest.raises(DataError, match=f"data.jsonl:117: .*{part}"):
        weights(**fields)


def test_the_option_decides():
    assert weights(Columns(weight="mask"), mask=[0, 1]) == [0, 1]
    assert weights(Columns(weight="none"), mask=[0, 1], loss_masks=[1, 0]) == [1, 1]
    turns = [TURNS[0], TURNS[1] | {"weight": 0}]
    with pytest.raises(DataError, match="message 2 has weight=0 and column 'weights' 1"):
        weights(messages=turns, weights=[1])


def test_a_row_without_turns_has_none_to_weigh():
    row = Row({"prompt": "a", "completion": "b", "loss_mask": [0, 1]}, "data.jsonl", 117)
    with pytest.raises(DataError, match="the row has no list of turns"):
        chat_record(row, Columns())


@pytest.mark.parametrize("name", ["weights", "sample_weight", "loss_weight", "example_weights"])
def test_weights_of_rows_under_other_names(name):
    record, row = LabelledText("a", None, "b"), Row({"text": "a", name: "0.5"}, "data.csv", 2)
    with pytest.raises(DataError, match=f"set data.columns.weight={name} to multiply"):
        row_weights.weighted(record, row, Columns())
    assert row_weights.weighted(record, row, Columns(weight=name)).weight == 0.5
    assert row_weights.weighted(record, row, Columns(weight="none")).weight == 1
    with pytest.raises(DataError, match="holds a list, which no record of this task reads"):
        row_weights.weighted(record, Row({name: [1, 0]}, "data.jsonl", 2), Columns())
