"""What a run directory holds is enough to use it, and what it lacks is told in a sentence."""

from __future__ import annotations

import json
import shutil

import pytest

import jaxsft
from jaxsft.config.schema import Columns
from jaxsft.reports import facts
from jaxsft.rundir import read_json
from jaxsft.training import loop
from tests import tiny

ROWS = [{"text": f"{'good' if i % 2 else 'bad'} {i}", "y": i % 2, "w": 0.5 + i % 3} for i in range(12)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    names = folder / "names.txt"
    names.write_text("negative\npositive\n")
    data = {
        "train": str(tiny.write_lines(folder / "a.jsonl", ROWS)),
        "validation": str(tiny.write_lines(folder / "b.jsonl", ROWS[:4])),
        "columns": Columns(label="y", label_names=str(names), weight="w"),
    }
    config = tiny.config(folder, folder / "run", "classify", data=data, train={"duration": "2steps", "batch_size": 4})
    return config, loop.train(config).run_dir


def test_the_names_of_the_classes_are_kept(made, tmp_path):
    config, run = made
    names, gone = config.data.columns.label_names, tmp_path / "gone.txt"
    assert read_json(run / "label_names.json") == ["negative", "positive"]
    shutil.move(names, gone)
    try:
        model = jaxsft.load(run)
        assert {line["prediction"] for line in model.predict(["good", "bad"])} <= {"negative", "positive"}
        assert model.evaluate([{"text": "good", "y": 1}, {"text": "bad", "y": "negative"}])["rows_read"] == 2
    finally:
        shutil.move(gone, names)
    other = tmp_path / "other.txt"
    other.write_text("positive\nnegative\n")
    assert jaxsft.load(run, f"data.columns.label_names={other}").config.data.columns.label_names == str(other)


def test_weights_of_rows_are_told(made, tmp_path, capfd):
    config, run = made
    ledger = read_json(run / "ledger.json")
    assert ledger["train"]["weights"] == {"min": 0.5, "mean": pytest.approx(1.5), "max": 2.5} and "weights" not in ledger["validation"]
    assert facts.accounts(run)[1]["weights of rows"] == {"train": "0.5 to 2.5, mean 1.5"}
    said = {"ledger": {"train": {**ledger["train"]}}, **dict.fromkeys(("parameters", "trainable", "steps", "steps_per_epoch", "flops"), 1)}
    told = loop.banner(config, run, said | {"devices": "1 cpu", "memory": "", "peak": None, "notes": []})
    assert "weights    the loss of a row of train counts 0.5 to 2.5, on average 1.5 times (w)" in told


@pytest.mark.parametrize("lost", ["labels", None])
def test_a_task_file_without_a_key_is_told(made, tmp_path, lost):
    run = shutil.copytree(made[1], tmp_path / "run")
    state = read_json(run / "task.json")
    (run / "task.json").write_text(json.dumps({k: v for k, v in state.items() if k != lost} if lost else [state]))
    with pytest.raises(jaxsft.CheckpointError, match=rf"task\.json{' has no .labels.' if lost else ': holds a list'}"):
        jaxsft.load(run).predict(["good"])


def test_a_checkpoint_without_a_key_is_told(made, tmp_path):
    config, run = made
    run = shutil.copytree(run, tmp_path / "run")
    meta = run / "checkpoints" / "2" / "meta" / "metadata"
    stored = json.loads(meta.read_text())
    del stored["impatience"]
    meta.write_text(json.dumps(stored))
    longer = tiny.config(tmp_path, run, "classify", data=vars(config.data), train={"duration": "4steps", "batch_size": 4})
    with pytest.raises(jaxsft.CheckpointError, match=r"the meta of step 2 has no 'impatience'"):
        loop.train(longer)
