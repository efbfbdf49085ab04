"""From a raw file through a prepared set to a trained model, and new rows through the same
stages."""

import random

import pytest

from jaxsft import api
from jaxsft.config import overrides
from jaxsft.data import formats, prepared
from jaxsft.errors import DataError
from jaxsft.prepare import run, stages
from tests import tiny
from tests.prepare.test_run import STAGES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = random.Random(0)
    rows = [
        {
            "sentence": rng.choice(["good", "fine"] if i % 3 else ["bad", "poor"]) + f" {i}",
            "mood": "+" if i % 3 else "-",
        }
        for i in range(60)
    ]
    formats.write(rows, folder / "raw.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "get", lambda name: STAGES[name])
        given = {
            "data": {
                "path": str(folder / "raw.csv"),
                "columns": {"text": "sentence", "label": "mood"},
            },
            "stages": [{"upper": {"fields": ["sentence"]}}, "halves"],
            "output": {"dir": str(folder / "set"), "shards": 2},
        }
        run.prepare(overrides.composed(overrides.from_values(given), "prepare"))
        options = [
            "task=classify",
            "tokenizer=bytes",
            *tiny.MODEL,
            "precision=fp32",
            "train.duration=4steps",
            f"data.path={folder / 'set'}",
            f"run_dir={folder / 'run'}",
            "mesh.data=1",
        ]
        yield folder, api.train(*options)


def test_the_folder_stands_for_its_splits_and_columns(trained):
    folder, result = trained
    config = api.load(result).config
    assert (
        config.data.path is None
        and config.data.train == f"{folder}/set/train-*-of-*.jsonl"
        and config.data.validation is None
    )
    assert (config.data.columns.text, config.data.columns.label) == ("sentence", "mood")
    assert result.numbers["test/rows"] == 30


def test_new_rows_go_through_the_stages_and_prepared_ones_do_not_again(trained):
    folder, result = trained
    model = api.load(result)
    (raw,) = model.predict([{"sentence": "good 1", "mood": "+"}])
    (ready,) = model.predict([{"sentence": "GOOD 1", "mood": "+"}])
    assert raw == ready and raw["sentence"] == "GOOD 1"
    assert model.predict(model.read(folder / "raw.csv"))[0]["sentence"].isupper()
    seen = formats.read(folder / "set" / "test-*-of-*.jsonl")
    assert [row["sentence"] for row in model.predict(seen)] == [
        row.fields["sentence"] for row in seen
    ]
    numbers = model.evaluate(folder / "set" / "test-00000-of-00002.jsonl")
    assert numbers["rows"] == 15


def test_rows_that_were_prepared_otherwise_are_refused(trained):
    folder, result = trained
    found = prepared.manifest(folder / "set")
    found["stages"][1]["options"] = {"fields": ["mood"]}
    formats.write([{"sentence": "x", "mood": "+"}], folder / "other" / "test-00000-of-00002.jsonl")
    from jaxsft import rundir

    rundir.write_json(folder / "other" / "manifest.json", found)
    with pytest.raises(DataError, match="was prepared otherwise than the training data"):
        api.load(result).evaluate(folder / "other" / "test-00000-of-00002.jsonl")
