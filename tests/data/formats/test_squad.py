"""SQuAD in its own layout."""

import json

import pytest

from jaxsft.config.schema import Columns
from jaxsft.data import formats
from jaxsft.data.records import question_record

ANSWER = {"text": "Ann", "answer_start": 0}


def put(folder, *questions, context="Ann lives in Rome."):
    paragraph = {"context": context, "qas": [{"question": "Who?", **q} for q in questions]}
    path = folder / "a.json"
    path.write_text(
        json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}]})
    )
    return path


def test_questions_are_rows_with_their_context(tmp_path):
    impossible = {"id": "2", "answers": [], "plausible_answers": [ANSWER], "is_impossible": True}
    path = put(
        tmp_path,
        {"id": "1", "answers": [ANSWER], "is_impossible": False},
        impossible,
        {"id": "3", "answers": [ANSWER, ANSWER]},
        {"id": "4"},
    )
    rows = formats.read(path)
    assert (
        [row.fields["id"] for row in rows] == ["1", "2", "3", "4"]
        and rows[0].fields["title"] == "t"
        and rows[1].fields["is_impossible"] is True
    )
    assert "answers" not in rows[3].fields
    found = [question_record(row, Columns()) for row in rows[:3]]
    assert [record.answers for record in found] == [("Ann",), (), ("Ann", "Ann")] and found[
        0
    ].context == "Ann lives in Rome."


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ({"answers": "Ann"}, "expected a list of objects"),
        ({"answers": [ANSWER], "is_impossible": True}, "has 1 answers, and is_impossible is True"),
        ({"answers": [], "is_impossible": False}, "has 0 answers"),
        ({"question": None, "answers": [ANSWER]}, "has no text"),
    ],
)
def test_a_broken_question_is_put_aside_alone(tmp_path, question, part):
    bad = []
    assert (
        len(
            list(
                formats.stream(
                    put(tmp_path, question, {"answers": [ANSWER]}), quarantine=bad.append
                )
            )
        )
        == 1
    )
    assert len(bad) == 1 and part in bad[0].reason


def test_broken_articles_are_put_aside(tmp_path):
    bad = []
    whole = {
        "title": "t",
        "paragraphs": [{"context": "Ann", "qas": [{"question": "Who?", "answers": [ANSWER]}]}],
    }
    (tmp_path / "a.json").write_text(
        json.dumps(
            {"data": [whole, {"paragraphs": 3}, {"paragraphs": [4, {"context": "x", "qas": [5]}]}]}
        )
    )
    assert (
        len(list(formats.stream(tmp_path / "a.json", quarantine=bad.append))) == 1 and len(bad) == 3
    )
