"""Calls of tools in generated answers."""

import numpy as np
import pytest

from jaxsft.errors import DataError
from jaxsft.metrics import tool_calls
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd
from tests.metrics.properties import check

METRIC = tool_calls.METRICS["tool_call_match"]
CALL = {"name": "weather", "arguments": {"city": "Köln", "days": 2}}
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": 2}}\n</tool_call>'
OTHER = '<tool_call>{"name": "time", "arguments": {}}</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        f"<think>the weather</think>\nI look it up.\n{WRITTEN}\n",
        '<tool_call>{"arguments": {"days": 2.0, "city": "K\\u00f6ln"}, "name": "weather"}'
        "</tool_call>",
        '{"name": "weather", "parameters": {"days": 2, "city": "Köln"}}',
        '<|python_tag|>{"name": "weather", "parameters": {"days": 2, "city": "Köln"}}',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"days": 2, "city": "Köln"}, "id": "x"}]',
        '[{"id": "1", "type": "function", "function": {"name": "weather", "arguments":'
        ' "{\\"city\\": \\"Köln\\", \\"days\\": 2}"}}]',
        WRITTEN.removesuffix("\n</tool_call>"),  # a stop token may stand for the end
    ],
)
def test_forms_of_a_call(text):
    assert tool_calls.calls_of(text) == [CALL]
    found = measure(METRIC, answered([text], [[WRITTEN]]))
    assert found["tool_call_match"] == 1


@pytest.mark.parametrize("text", ["", "I cannot.", '{"name": "Ann"}', "[1]", "[]", "17", "{}"])
def test_texts_that_call_nothing(text):
    assert tool_calls.calls_of(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call>{'name': 1}</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        "[TOOL_CALLS] weather",
        f"{WRITTEN}<tool_call>{{",
    ],
)
def test_calls_that_cannot_be_read(text):
    with pytest.raises(DataError):
        tool_calls.calls_of(text)
    found = measure(METRIC, answered([text], [[WRITTEN]]))
    assert found == {
        "tool_call_match": 0,
        "tool_name_match": 0,
        "tool_call_valid": 0,
        "tool_call_rows": 1,
    }


def rows():
    wrong = WRITTEN.replace("2", "3")
    return answered(
        [WRITTEN + OTHER, wrong, "no call", OTHER, "a text", "<tool_call>", WRITTEN, WRITTEN * 2],
        [
            [OTHER + WRITTEN],  # in any order
            [WRITTEN],  # the name alone
            [WRITTEN],
            ["a text"],  # a call that nobody wanted
            ["a text"],  # nothing to call: does not count
            ["a text"],
            [OTHER, WRITTEN],
            [WRITTEN],  # twice is not once
        ],
    )


def test_by_hand():
    assert measure(METRIC, rows()) == {
        "tool_call_match": 2 / 7,
        "tool_name_match": 3 / 7,
        "tool_call_valid": 6 / 7,
        "tool_call_rows": 7,
    }
    assert np.isnan(measure(METRIC, answered(["a"], [["a"]]))["tool_call_match"])


def test_a_reference_has_to_be_readable():
    with pytest.raises(DataError, match="row 0: of a reference, a tool call is no JSON"):
        measure(METRIC, answered([WRITTEN], [["<tool_call>{</tool_call>"]]))


def test_weights_and_compiled_programs():
    check(METRIC, rows())
    check(METRIC, odd())
