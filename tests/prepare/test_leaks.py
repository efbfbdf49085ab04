"""What training rows say never reaches the rows that it is measured on: the order of stages, equal
texts, and which new rows are treated.
"""

import json

import pytest

from jaxsft.config import overrides
from jaxsft.data import formats
from jaxsft.errors import ConfigError, DataError
from jaxsft.prepare import run


def prepare(folder, listed, data=None, **output):
    given = {
        "data": data or {"path": str(folder / "in.jsonl")},
        "stages": listed,
        "output": {"dir": str(folder / "out"), **output},
    }
    return run.prepare(overrides.composed(overrides.from_values(given), "prepare"))


def by_split(folder, name="text"):
    return {
        s: {json.dumps(row.fields[name]) for row in formats.read(folder / "out" / f"{s}.jsonl")}
        for s in ("train", "validation", "test")
    }


@pytest.mark.parametrize(
    "stage, does",
    [
        ({"augment": {"methods": ["swap"]}}, "changes"),
        ({"scale": {"fields": ["n"]}}, "learns from"),
        ({"balance": {}}, "changes"),
    ],
)
def test_rows_are_not_split_again_behind_a_stage_that_saw_the_training_rows(tmp_path, stage, does):
    for name, begin in (("train", 0), ("test", 60)):
        rows = [
            {"text": f"a sentence about {i} things", "label": "ab"[i % 3 == 0], "n": i}
            for i in range(begin, begin + 40)
        ]
        formats.write(rows, tmp_path / f"{name}.jsonl")
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    again = {"split": {"merge": True}}
    with pytest.raises(
        ConfigError,
        match=(
            f"split stands behind {next(iter(stage))}, which {does} the training rows; put split"
            " before it"
        ),
    ):
        prepare(tmp_path, [stage, again], data)
    assert prepare(tmp_path, [again, stage], data)[1]


@pytest.mark.parametrize(
    "rows, name",
    [
        (
            [{"text": f"said {i // 3} times" if i != 5 else None, "id": i} for i in range(90)],
            "text",
        ),
        (
            [
                {
                    "messages": [
                        {"role": "user", "content": f"say {i // 3}"},
                        {"role": "assistant", "content": "yes"},
                    ],
                    "id": i,
                }
                for i in range(90)
            ],
            "messages",
        ),
    ],
)
def test_equal_texts_share_a_split_whatever_other_rows_and_columns_hold(tmp_path, rows, name):
    formats.write(rows, tmp_path / "in.jsonl")
    prepare(tmp_path, ["split"])
    parts = by_split(tmp_path, name)
    assert (
        all(parts.values())
        and not parts["train"] & (parts["validation"] | parts["test"])
        and not parts["validation"] & parts["test"]
    )


def test_series_are_smoothed_within_a_split_only(tmp_path):
    rows = [
        {"text": f"a sentence about {i} things", "n": i % 7, "who": f"w{i // 10}", "day": i // 10}
        for i in range(90)
    ]
    formats.write(rows, tmp_path / "in.jsonl")
    smooth = {"smooth": {"fields": ["n"], "group": "who"}}
    for split in ({}, {"group": "day"}):
        with pytest.raises(
            ConfigError,
            match=(
                r"split stands behind smooth, which makes rows out of other rows.*put split before"
                r" it, or give both"
            ),
        ):
            prepare(tmp_path, [smooth, {"split": split}])
    with pytest.raises(ConfigError, match="split stands behind smooth"):
        prepare(tmp_path, [{"smooth": {"fields": ["n"]}}, "split"])
    assert prepare(tmp_path, [smooth, {"split": {"group": "who", "fractions": [0.6, 0.2, 0.2]}}])[1]


@pytest.mark.parametrize(
    "stage", [{"augment": {"methods": ["swap"]}}, {"scale": {"fields": ["n"]}}]
)
@pytest.mark.parametrize("form", ["pairs", "column"])
def test_folds_have_no_training_split_to_learn_from(tmp_path, stage, form):
    formats.write(
        [{"text": f"a sentence about {i} things", "n": i} for i in range(40)], tmp_path / "in.jsonl"
    )
    with pytest.raises(
        ConfigError, match=r"training rows.*, and folds have no training split; take it out"
    ):
        prepare(tmp_path, [{"split": {"folds": 4, "folds_as": form}}, stage])


def test_a_text_of_two_groups_that_their_hashes_tear_apart_is_an_error(tmp_path):
    formats.write(
        [{"text": f"said {i // 6} times", "author": f"a{i}"} for i in range(60)],
        tmp_path / "in.jsonl",
    )
    with pytest.raises(
        DataError,
        match=r"in.jsonl:\d+: it has the text of .*in.jsonl:\d+, which is of another group",
    ):
        prepare(tmp_path, [{"split": {"by": "hash", "group": "author"}}])
    prepare(
        tmp_path,
        ["dedup", {"split": {"by": "hash", "group": "author", "fractions": [0.6, 0.2, 0.2]}}],
    )


def test_folds_are_not_emptied_as_duplicates_of_each_other(tmp_path):
    formats.write([{"text": f"said {i} times"} for i in range(30)], tmp_path / "in.jsonl")
    folds = {"split": {"folds": 3, "folds_as": "pairs"}}
    with pytest.raises(ConfigError, match=r"stand in other folds too.*put dedup before split"):
        prepare(tmp_path, [folds, "dedup"])
    manifest, _ = prepare(tmp_path, ["dedup", folds])
    assert {s["rows"] for s in manifest["splits"].values()} == {10, 20}


@pytest.mark.parametrize("when", [10**400, "0001-01-01T00:00:00+14:00"])
def test_a_time_out_of_range_is_named(tmp_path, when):
    formats.write([{"text": f"said {i} times", "d": when} for i in range(9)], tmp_path / "in.jsonl")
    with pytest.raises(
        DataError, match=r"in.jsonl:1: column 'd' holds .*, expected a number or a date"
    ):
        prepare(tmp_path, [{"split": {"by": "time", "time": "d"}}])
