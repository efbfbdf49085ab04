"""A sweep whose trials were really trained, as stacks, and its report."""

import math

import pytest

from jaxsft.rundir import read_json, read_jsonl
from jaxsft.sweeps import analysis
from jaxsft.sweeps.sweep_findings import analyse
from tests import tiny


@pytest.mark.slow
def test_a_sweep_of_two_stacks_has_runs_and_a_report(place):
    """Two widths are two programs of two seeds; each trial leaves its own run directory, and
    numbers, costs and curves of the report are those of the runs."""
    data = tiny.data(place)
    swept = ["model.embed=16,8", "seed=0,1"]
    given = [f"data.train={data}/labels.jsonl", f"data.validation={data}/labels_held.jsonl"]
    size = ["model.layers=1", "model.heads=2", "model.kv_heads=2", "model.head_dim=8"]
    how = ["train.duration=4steps", "train.batch_size=4", "train.log_every=1steps", "mesh.data=1"]
    kind = ["hydra/launcher=stacked", "run_dir=s"]
    words = ["train", "-m", "task=classify", *given, *size, *swept, *how, *kind]
    code, _, err = tiny.jaxsft(*words)
    assert code == 0 and "4 trials are 2 compiled programs" in err
    runs = sorted((place / "s" / "jobs").glob("*-????????"))
    assert len(runs) == 4
    for run, seed in zip(runs, (0, 1, 0, 1), strict=True):
        command = read_json(run / "manifest.json")["command"]
        assert f"seed={seed}" in command, command
        assert (run / "report.html").is_file()
        assert not list((run / "figures").glob("*.png"))  # drawn on request
    logs = sorted(one.name for one in (place / "s" / "jobs").glob("*.log"))
    assert len(logs) == 2  # of the processes, by their first trial
    code, _, err = tiny.jaxsft(*words)  # nothing is left
    assert code == 0 and "4 done" in err

    text = (place / "s" / "report.html").read_text("utf-8")
    found = analyse(analysis.read_sweep(place / "s"), replicates=200)
    assert found.results.metric == "validation/accuracy" and not found.results.notes
    for trial in found.results.trials:
        result = read_json(trial.run_dir / "result.json")
        (time,) = read_jsonl(trial.run_dir / "times.jsonl")
        assert time["trials"] == 2 and trial.seconds == time["seconds"] / 2
        assert trial.value == result["validation/accuracy"] and trial.steps == 4
        assert trial.seconds > 0 and trial.tokens > 0 and trial.flops > trial.tokens
        assert trial.parameters > 0 and trial.peak_bytes > 0 and len(trial.stream) == 64
    assert [len(group.trials) for group in found.groups] == [2, 2]
    assert not [line for line in found.warnings if "same numbers" in line]
    (pair,) = found.family.pairs
    assert pair.test == "t of rows and seeds" and math.isfinite(pair.difference)
    assert found.family.split == "validation" and "Validation: accuracy" in text
