"""Answers that have to be JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics import json_answers
from jaxsft.metrics.base import measure
from tests.metrics.answered import answered, odd, score
from tests.metrics.properties import check

VALID, MATCH, SCHEMA = (
    json_answers.METRICS[name] for name in ("json_valid", "json_match", "json_schema")
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=2), parts),
    max_leaves=8,
)
PERSON = '{"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}'


@pytest.mark.parametrize(
    "text, valid",
    [
        ('{"a": [1, 2.5, null, true]}', True),
        (' "text"\n', True),
        ("", False),
        ("{'a': 1}", False),
        ('{"a": 1} and more', False),
        ('```json\n{"a": 1}\n```', False),
        ("NaN", False),
        ('{"a": 1, "a": 2}', False),
        ("[" * 500 + "]" * 500, False),
    ],
)
def test_what_is_json(text, valid):
    assert score(VALID, [text], [[]]) == valid


@given(values)
def test_any_value_is_equal_to_itself_however_it_is_written(value):
    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return list(map(turned, value)) if isinstance(value, list) else value

    written = json.dumps(turned(value), indent=1, ensure_ascii=True)
    assert score(MATCH, [written], [[json.dumps(value, ensure_ascii=False)]]) == 1


@pytest.mark.parametrize(
    "answer, reference, same",
    [
        ("1", "1.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("null", "false", False),
        ('"1"', "1", False),
        ("[1, 2]", "[2, 1]", False),
        ("[]", "{}", False),
        ("broken", "null", False),
    ],
)
def test_what_is_equal(answer, reference, same):
    assert score(MATCH, [answer], [["3", reference]]) == same


def test_rows_without_a_right_value_do_not_count():
    found = measure(MATCH, answered(["1", "2", "3"], [["1"], ["two"], ["three", "4"]]))
    assert found == {"json_match": 0.5, "json_rows": 2}


def test_each_row_has_a_schema_of_its_own():
    pytest.importorskip("jsonschema")
    answers = ['{"age": 3}', '{"age": "3"}', "{}", "no JSON", "[1]"]
    schemas = [PERSON] * 4 + ['{"items": {"type": "integer"}}']
    outputs = answered(answers, [[]] * 5, schema=schemas)
    assert check(SCHEMA, outputs)["json_schema"] == 2 / 5
    of_values = answered(answers, [[]] * 5, schema=[json.loads(schema) for schema in schemas])
    assert measure(SCHEMA, of_values)["json_schema"] == 2 / 5


@given(values)
def test_any_value_is_judged_as_by_jsonschema(value):
    jsonschema = pytest.importorskip("jsonschema")
    schema = {"type": ["object", "array"], "maxProperties": 1, "maxItems": 1}
    outputs = answered([json.dumps(value)], [[]], schema=[json.dumps(schema)])
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert measure(SCHEMA, outputs)["json_schema"] == expected


@pytest.mark.parametrize(
    "schema, message",
    [
        ("{", "row 0: its schema is no JSON Schema .expected an object"),
        ('{"type": "person"}', "row 0: its schema is no JSON Schema .*person"),
        ('{"$ref": "http://localhost:1/x"}', "row 0: its schema refers to 'http://localhost:1/x'"),
        ('{"$ref": "file:///etc/hostname"}', "row 0: its schema refers to"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema, message):
    pytest.importorskip("jsonschema")
    with pytest.raises(DataError, match=message):
        measure(SCHEMA, answered(["{}"], [[]], schema=[schema]))


def test_schemas_need_their_library(monkeypatch):
    def absent(name):
        raise ImportError(name)

    json_answers._validator.cache_clear()
    monkeypatch.setattr("jaxsft.extras.importlib.import_module", absent)
    with pytest.raises(ConfigError, match=r"the metric json_schema: install jaxsft\[text\]"):
        measure(SCHEMA, answered(["{}"], [[]], schema=["{}"]))


def test_weights_and_compiled_programs():
    check(VALID, odd())
    check(MATCH, answered(["1", "2", "x", "{}"], [["1"], ["1"], ["1"], ["{}", "3"]]))
