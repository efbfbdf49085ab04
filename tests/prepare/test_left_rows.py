"""`prepare` obeys the columns that say whether a row may be used, as training and check do."""

import json

import pytest

from jaxsft.config.schema import PrepareConfig, UsedFiles
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import prepared_set, run
from tests import tiny

ROWS = [
    {"text": "a", "answer": "accept", "status": "approved"},
    {"text": "b", "answer": "reject", "status": "approved"},
    {"text": "c", "answer": "accept", "status": "draft"},
    {"text": "d", "answer": "ignore", "status": "approved"},
]


def prepared(tmp_path, rows, stages=("clean",), **data):
    tiny.write_lines(tmp_path / "rows.jsonl", rows)
    files = UsedFiles(path=str(tmp_path / "rows.jsonl"), **data)
    output = PrepareConfig().output.__class__(dir=str(tmp_path / "out"))
    manifest, _ = run.prepare(PrepareConfig(data=files, stages=list(stages), output=output))
    file = next((tmp_path / "out").glob("*all*.jsonl"), None) or next(
        p for p in (tmp_path / "out").glob("*.jsonl") if p.name != prepared_set.DROPPED
    )
    lines = [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
    return lines, manifest, (tmp_path / "out" / prepared_set.DROPPED)


def test_verdicts_are_obeyed_and_counted(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "status"} for row in ROWS]
    texts, _, dropped = prepared(tmp_path, rows)
    assert texts == ["a", "c"]
    said = [json.loads(line) for line in dropped.read_text("utf-8").splitlines()]
    assert [(str(one["row"]).rpartition(":")[2], one["reason"]) for one in said] == [
        ("2", "rejected"),
        ("4", "ignored"),
    ]


def test_what_is_in_doubt_is_an_error_until_keep_decides(tmp_path):
    with pytest.raises(DataError, match=r"rows.jsonl:3: column 'status' holds 'draft'.*data.keep"):
        prepared(tmp_path, ROWS)
    assert prepared(tmp_path, ROWS, keep={"status": "approved"})[0] == ["a"]


def test_keep_may_take_all(tmp_path):
    texts, *_ = prepared(tmp_path, ROWS, keep={"status": "any", "answer": "any"})
    assert texts == ["a", "b", "c", "d"]


def test_keep_of_a_column_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"data.keep.state: no row .*'text', 'answer', 'status'"):
        prepared(tmp_path, ROWS, keep={"state": "x"})


def test_a_column_that_a_stage_reads_is_no_verdict(tmp_path):
    texts, *_ = prepared(
        tmp_path,
        [{"text": t, "split": s} for t, s in zip("abc", ("train", "test", "train"), strict=True)],
        stages=[{"clean": {"fields": ["text", "split"]}}],
    )
    assert texts == ["a", "b", "c"]
