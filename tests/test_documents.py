"""JSON and YAML of anybody's making: read, or refused in one sentence that begins with the file."""

import json
import os

import pytest

from jaxsft import documents
from jaxsft.errors import ConfigError, DataError

JSON = {
    "[" * 100_000 + "]" * 100_000: "more than 100 deep",
    "[" * 101 + "]" * 101: "more than 100 deep",
    '{"a":' * 5000: "more than 100 deep",
    '{"b": 0, "a": 1, "a": 2}': "the key 'a' occurs twice",
    '{"x": [NaN]}': "found NaN",
    "[-Infinity]": "found -Infinity",
    "1e999": "too large",
    "1" * 400: "too large",
    "1" * 5000: "too large",
    '["\\ud83d"]': "half of a surrogate pair",
    "": "not a JSON file",
    '{"a": 1} x': "not a JSON file",
}
YAML = {
    "[" * 5000: ":1: .*nested more than 100 deep",
    "- " * 5000 + "a": ":1: .*nested more than 100 deep",
    "\n".join(" " * i + "a:" for i in range(300)): ":101: .*nested more than 100 deep",
    "a: 1\nb: 2\na: 3": ":3: .*'a' was given before",
    "{1: 1, 0x1: 2}": "key 1 was given before",
    "a0: &a0 {k: v}\na1: [*a0, *a0]": ":1: .*alias or anchor 'a0'",
    "a: *b": "alias or anchor 'b'",
    "<<: {a: 1}\nb: 1": "merge key",
    "a: !!python/object:x 1": ":1: .*tag",
    "a: !!int x": "invalid literal",
    "a: 2001-99-99": "month",
    "a: !!bool x": "'x'",
    "a: \x00": "unacceptable character",
    "a: [": ":1: ",
}


@pytest.mark.parametrize("text", JSON)
def test_json_that_no_file_needs_is_one_sentence(text, tmp_path):
    with pytest.raises(ConfigError, match=JSON[text]) as caught:
        documents.parse_json(text, "f.json", ConfigError)
    assert str(caught.value).startswith("f.json: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", YAML)
def test_yaml_that_no_file_needs_is_one_sentence(text):
    with pytest.raises(
        DataError, match="^f.yaml" + YAML[text] if YAML[text][0] == ":" else YAML[text]
    ) as caught:
        documents.parse_yaml(text, "f.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", YAML)
def test_a_long_document_has_the_same_bounds(text, monkeypatch):
    monkeypatch.setattr(documents, "LONG_YAML", 0)  # this one counts as long
    ours = any(word in YAML[text] for word in ("nested", "given before", "alias", "merge"))
    with pytest.raises(DataError, match=YAML[text] if ours else "^f.yaml") as caught:
        documents.parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith("f.yaml") and "\n" not in str(caught.value)
    assert documents.parse_yaml("a: [1, {b: .inf}]\nc: ~", "f") == {
        "a": [1, {"b": float("inf")}],
        "c": None,
    }


def test_what_files_need_is_read(tmp_path):
    value = {
        "a": [1, -2.5e-3, 10**30, True, None, {"ü😀": "\u2028"}],
        "deep": json.loads("[" * 98 + "]" * 98),
    }
    text = json.dumps(value)
    assert (
        documents.parse_json(text, "f")
        == documents.parse_json(b"\xef\xbb\xbf" + text.encode(), "f")
        == value
    )
    assert documents.parse_yaml("a: [1, {b: .inf}]\nc: ~", "f") == {
        "a": [1, {"b": float("inf")}],
        "c": None,
    }
    (tmp_path / "f.json").write_text(text, encoding="utf-8")
    assert documents.read_json(tmp_path / "f.json", top=dict) == value
    assert documents.parse_json('["\\ud83d"]', "f", halves=True) == ["\ud83d"]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "list").write_text("[]")
    for path in (
        "/dev/zero",
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "bytes",
        tmp_path / "absent",
        "n" * 300,
        "a\0",
    ):
        with pytest.raises(DataError, match="cannot read"):
            documents.read_json(path)
    with pytest.raises(DataError, match=r"list: found a list, expected an object"):
        documents.read_json(tmp_path / "list", top=dict)
    with pytest.raises(DataError, match="more than 1 bytes"):
        documents.read_yaml(tmp_path / "list", limit=1)


def test_deep_brackets_are_refused_as_they_are_scanned(monkeypatch):
    scanned, whole = [], documents.Loader.fetch_flow_sequence_start
    monkeypatch.setattr(
        documents.Loader, "fetch_flow_sequence_start", lambda self: scanned.append(1) or whole(self)
    )
    with pytest.raises(DataError, match="nested more than 100 deep"):
        documents.parse_yaml("[" * 2000, "x.yaml")
    assert len(scanned) == documents.LEVELS + 1
