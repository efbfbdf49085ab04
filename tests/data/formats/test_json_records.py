"""Rows that lie deeper in a JSON document, and the raw files of SNIPS."""

import json

import pytest

from jaxsft.data.formats import read
from jaxsft.errors import ConfigError, DataError


def put(folder, name, content):
    path = folder / name
    path.write_text(content)
    return path


def found(path, **options):
    return [(row.line, row.fields) for row in read(path, options=options)]


NESTED = '{"version": [1],\n "sst2": [\n{"idx": 0},\n{"idx": 1}], "qqp":\n[{"idx": 0}]}'


def test_a_star_gives_the_rows_of_every_list_with_its_key(tmp_path):
    path = put(
        tmp_path, "a.json", '{"sst2": [\n{"idx": 0},\n{"idx": 1}], "qqp":\n[{"idx": 0}], "rte": []}'
    )
    assert found(path, records="*") == [
        (2, {"key": "sst2", "idx": 0}),
        (3, {"key": "sst2", "idx": 1}),
        (4, {"key": "qqp", "idx": 0}),
    ]
    assert found(path, records="*", key="task")[2] == (4, {"task": "qqp", "idx": 0})
    assert found(put(tmp_path, "b.json", NESTED), records="sst2") == [
        (3, {"idx": 0}),
        (4, {"idx": 1}),
    ]
    with pytest.raises(
        DataError,
        match=(
            r"b.json:1: data.options.records: there is no key 'rte'; found 'version', 'sst2', 'qqp'"
        ),
    ):
        found(tmp_path / "b.json", records="rte")


def test_paths_of_several_steps(tmp_path):
    squad = {
        "data": [
            {"title": "a", "paragraphs": [{"context": "x"}, {"context": "y"}]},
            {"title": "b", "paragraphs": [{"context": "z"}]},
        ]
    }
    path = put(tmp_path, "a.json", json.dumps(squad))
    assert [fields["context"] for _, fields in found(path, records="data.*.paragraphs")] == [
        "x",
        "y",
        "z",
    ]
    ontology = put(
        tmp_path,
        "b.json",
        '{"intents": {"affirm": {"d": 1}, "deny": {"d": 2}}, "slots": {"date": {"d": 3}}}',
    )
    assert [fields for _, fields in found(ontology, records="*.*")] == [
        {"key": "intents.affirm", "d": 1},
        {"key": "intents.deny", "d": 2},
        {"key": "slots.date", "d": 3},
    ]
    assert [fields["key"] for _, fields in found(ontology, records="intents.*")] == [
        "affirm",
        "deny",
    ]
    lacking = put(tmp_path, "c.json", '[{"p": []},\n{"q": []}]')
    with pytest.raises(DataError, match=r"c.json:2: .*there is no key 'p'; found 'q'"):
        found(lacking, records="*.p")
    with pytest.raises(DataError, match=r"a.json:1: .*where it looks for 'x'; expected an object"):
        found(path, records="data.x")


def test_what_is_no_object_is_a_column(tmp_path):
    path = put(tmp_path, "a.json", '["card_arrival",\n "pin", [1, 2], null]')
    assert [fields for _, fields in found(path, records="*")] == [
        {"value": "card_arrival"},
        {"value": "pin"},
        {"value": 1},
        {"value": 2},
        {"value": None},
    ]
    assert found(path, records="*", value="label")[1] == (2, {"label": "pin"})
    with pytest.raises(DataError, match="found a JSON string, expected an object"):
        read(path)


def test_broken_json_and_columns_in_the_way(tmp_path):
    for content, part in (
        ('{"a": [{"b": 1}', "a.json:1: broken JSON"),
        ('{"a": [{"b": 1}]} x', "after the end"),
        ('{"a": tru}', "broken JSON"),
    ):
        with pytest.raises(DataError, match=part):
            found(put(tmp_path, "a.json", content), records="*")
    path = put(tmp_path, "b.json", '{"a": [{"key": 1}]}')
    with pytest.raises(
        DataError, match=r"b.json:1: the row has a column 'key' already; set data.options.key"
    ):
        found(path, records="*")
    with pytest.raises(ConfigError, match="it has records, key, value"):
        found(path, record="*")


SNIPS = (
    '{\n "GetWeather": [\n  {"data": [{"text": "rain in "},\n {"text": "Rome", "entity": "city"},'
    ' {"text": "?"}]},\n {"data": [{"text": "sun"}]}]}'
)


def test_snips_is_told_by_its_content_and_becomes_text_with_spans(tmp_path):
    path = put(tmp_path, "a.json", SNIPS)
    rows = [
        (
            3,
            {
                "text": "rain in Rome?",
                "intent": "GetWeather",
                "spans": [{"start": 8, "end": 12, "label": "city"}],
            },
        ),
        (5, {"text": "sun", "intent": "GetWeather", "spans": []}),
    ]
    assert found(path) == rows
    bad = put(tmp_path, "c.json", SNIPS.replace('"text": "sun"', '"txt": "sun"'))
    with pytest.raises(DataError, match=r"c.json:5: found an utterance without its parts"):
        read(bad)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    "second",
    ['{"text": "b", "label": "x", "text": "c"}', '{"text": "b", "more": {"k": 1, "k": 2}}'],
)
def test_a_key_that_occurs_twice_is_an_error_and_not_the_last_value(tmp_path, name, second):
    lines = ['{"text": "a"}', second]
    (tmp_path / name).write_text(
        "\n".join(lines) if name == "a.jsonl" else "[" + ",\n".join(lines) + "]"
    )
    with pytest.raises(
        DataError, match=rf"{name}:2: broken JSON \(the key '(text|k)' occurs twice in an object"
    ):
        read(tmp_path / name)
