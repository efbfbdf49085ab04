"""What training rows say never reaches the rows that it is measured on: the order of stages, equal texts, and which new rows are treated."""

import json

import pytest

from jaxsft.config import overrides
from jaxsft.data import formats
from jaxsft.errors import ConfigError
from jaxsft.prepare import run


def prepare(folder, listed, data=None, **output):
    given = {"data": data or {"path": str(folder / "in.jsonl")}, "stages": listed, "output": {"dir": str(folder / "out"), **output}}
    return run.prepare(overrides.composed(overrides.from_values(given), "prepare"))


def by_split(folder, name="text"):
    return {s: {json.dumps(row.fields[name]) for row in formats.read(folder / "out" / f"{s}.jsonl")} for s in ("train", "validation", "test")}


@pytest.mark.parametrize(
    "stage, does", [({"augment": {"methods": ["swap"]}}, "changes"), ({"scale": {"fields": ["n"]}}, "learns from"), ({"balance": {}}, "changes")]
)
def test_rows_are_not_split_again_behind_a_stage_that_saw_the_training_rows(tmp_path, stage, does):
    for name, begin in (("train", 0), ("test", 60)):
        rows = [{"text": f"a sentence about {i} things", "label": "ab"[i % 3 == 0], "n": i} for i in range(begin, begin + 40)]
        formats.write(rows, tmp_path / f"{name}.jsonl")
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    again = {"split": {"merge": True}}
    with pytest.raises(ConfigError, match=f"split stands behind {next(iter(stage))}, which {does} the training rows; put split before it"):
        prepare(tmp_path, [stage, again], data)
    assert prepare(tmp_path, [again, stage], data)[1]
