"""`data.on_bad_row`: an unreadable row, or one that gives no record, ends the run; or it is put
aside, counted in the ledger and told.
"""

import dataclasses
import json

import pytest

from jaxsft import api, rundir, tasks
from jaxsft.check.findings import Findings
from jaxsft.check.load import load
from jaxsft.config import validate
from jaxsft.config.schema import Columns
from jaxsft.data import encoded_split
from jaxsft.data.ledger import Aside
from jaxsft.data.splits import read_splits
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.training import loop
from tests import tiny
from tests.conftest import make_config, make_records

GOOD = [json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in range(40)]


@pytest.fixture
def spoilt(tmp_path):
    """40 good rows; line 3 is unreadable, line 5 has no label, line 7 no majority."""
    lines = [
        *GOOD[:2],
        '{"text": ',
        GOOD[2],
        '{"text": "x", "label": null}',
        GOOD[3],
        '{"text": "x", "label": "-"}',
        *GOOD[4:],
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "labels_held.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def config(folder, **data):
    files = {"train": str(folder / "labels.jsonl"), "validation": str(folder / "labels_held.jsonl")}
    return tiny.config(
        folder,
        folder / "run",
        task="classify",
        data=files | data,
        train={"duration": "2steps", "batch_size": 4},
    )


def with_mark(folder, **data):
    return config(folder, columns=Columns(no_label="-"), **data)


def test_by_default_the_first_bad_row_ends_the_run(spoilt):
    with pytest.raises(DataError, match=r"labels.jsonl:3: .*data.on_bad_row=quarantine"):
        loop.train(with_mark(spoilt))


def test_bad_rows_are_put_aside_counted_and_told(spoilt):  # guards D9
    loop.train(with_mark(spoilt, on_bad_row="quarantine"))
    for split in ("train", "validation"):
        rows = rundir.read_json(spoilt / "run" / "ledger.json")[split]["rows"]
        assert rows == {
            "read": 43,
            "kept": 40,
            "dropped": {"unreadable": 1, "no_record": 1, "no_label": 1},
            "truncated": 0,
        }
    told = rundir.read_jsonl(spoilt / "run" / "quarantine.jsonl")
    assert [(t["split"], t["line"], t["reason"]) for t in told] == [
        (split, line, reason)
        for split in ("train", "validation")
        for line, reason in ((3, "unreadable"), (5, "no_record"), (7, "no_label"))
    ]
    assert all(
        t["file"].endswith(".jsonl") and t["message"].startswith(f"{t['file']}:{t['line']}: ")
        for t in told
    )
    model = api.load(spoilt / "run")
    split, _, numbers = model.scored(str(spoilt / "labels_held.jsonl"), "held", aside := [])
    assert (
        numbers["rows_read"] == 43
        and numbers["rows"] == 40
        and len(aside) == 3
        and split.ledger["rows"]["read"] == 43
    )
    assert len(model.read(spoilt / "labels.jsonl", aside := [])) == 42 and [
        a.line for a in aside
    ] == [3]


def test_more_than_max_dropped_is_an_error_and_still_told(spoilt):  # guards D1
    with pytest.raises(
        DataError,
        match=(
            r"labels.jsonl:3: 3 of 43 rows of train would be dropped \(unreadable: 1, .*broken JSON"
        ),
    ):
        loop.train(with_mark(spoilt, on_bad_row="quarantine", max_dropped=2 / 43))
    assert len(rundir.read_jsonl(spoilt / "run" / "quarantine.jsonl")) == 6
    loop.train(with_mark(spoilt, on_bad_row="quarantine", max_dropped=3 / 43))


def test_a_declared_mark_is_dropped_without_quarantine(tmp_path):
    lines = [*GOOD, '{"text": "x", "label": "-"}']
    for name in ("labels.jsonl", "labels_held.jsonl"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    train = read_splits(with_mark(tmp_path), tasks.get("classify"))["train"]
    assert len(train.records) == 40 and [bad.reason for bad in train.aside] == ["no_label"]


def test_a_file_without_any_record_is_an_error(tmp_path):
    for name in ("labels.jsonl", "labels_held.jsonl"):
        (tmp_path / name).write_text('{"text": "x", "label": null}\n{"text": 3, "label": "a"}\n')
    with pytest.raises(DataError, match=r"labels.jsonl:1: .*holds null.*none of the 2 rows"):
        read_splits(with_mark(tmp_path, on_bad_row="quarantine"), tasks.get("classify"))


def test_of_a_file_that_is_split_bad_rows_count_as_training_rows(spoilt):
    made = with_mark(
        spoilt,
        train=None,
        validation=None,
        path=str(spoilt / "labels.jsonl"),
        on_bad_row="quarantine",
    )
    splits = read_splits(made, tasks.get("classify"))
    assert [len(part.aside) for part in splits.values()] == [3, 0, 0] and sum(
        len(part.records) for part in splits.values()
    ) == 40


def test_patterns_and_options_of_a_format_reach_the_reader(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(GOOD[:4]) + "\n")
    made = config(tmp_path, train=f"{tmp_path}/*.jsonl", validation=None)
    assert len(read_splits(made, tasks.get("classify"))["train"].records) == 8
    with pytest.raises(ConfigError, match=r"data.options.speed: format jsonl has no such option"):
        read_splits(
            config(tmp_path, train=f"{tmp_path}/a.jsonl", validation=None, options={"speed": 3}),
            tasks.get("classify"),
        )


def test_what_was_put_aside_is_part_of_the_cached_ledger(tmp_path, monkeypatch):  # guards D7
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made, (records, where) = make_config("classify"), make_records("classify", 12)
    kind, tokenizer = tasks.get("classify"), Tokenizer.bytes()
    task = kind(made, tokenizer, kind.fit(made, tokenizer, records, where))
    load = lambda *aside: encoded_split.load_split(
        "train", records, where, task, made.data, 64, aside=aside
    ).ledger["rows"]
    bad = Aside("rows.jsonl", 13, "unreadable", "rows.jsonl:13: broken")
    assert [load()["read"], load(bad)["read"], load()["read"], load(bad)["dropped"]] == [
        12,
        13,
        12,
        {"unreadable": 1},
    ]


def test_the_options_of_a_split_are_read_with_its_file(tmp_path):
    """Two splits in one file, as in an archive of PASCAL VOC; training and the check of the data
    read the same rows.
    """
    rows = [json.loads(line) for line in GOOD]
    (tmp_path / "all.json").write_text(json.dumps({"a": rows[:30], "b": rows[30:]}))
    files = {"train": str(tmp_path / "all.json"), "validation": str(tmp_path / "all.json")}
    made = config(tmp_path, **files, options={"records": "a", "validation": {"records": "b"}})
    splits, parts = read_splits(made, tasks.get("classify")), load(made, Findings(1))
    assert {name: len(part.records) for name, part in splits.items()} == {
        "train": 30,
        "validation": 10,
    }
    assert {name: part.records for name, part in parts.items()} == {
        name: part.records for name, part in splits.items()
    }
    with pytest.raises(
        ConfigError, match=r"data.options.validation=x: expected options of that split"
    ):
        read_splits(
            config(tmp_path, **files, options={"records": "a", "validation": "x"}),
            tasks.get("classify"),
        )
    with pytest.raises(ConfigError, match=r"data.options.test: is read with data.test=FILE only"):
        validate.options_of_splits(
            dataclasses.replace(made.data, options={"test": {"records": "b"}})
        )


def test_a_file_to_be_split_without_any_record_says_why(tmp_path):
    (tmp_path / "labels.jsonl").write_text(
        '{"text": "x", "label": null}\n{"text": 3, "label": "a"}\n'
    )
    made = config(
        tmp_path,
        train=None,
        validation=None,
        path=str(tmp_path / "labels.jsonl"),
        on_bad_row="quarantine",
    )
    with pytest.raises(DataError, match=r"labels.jsonl:1: .*holds null.*none of the 2 rows"):
        read_splits(made, tasks.get("classify"))
