"""A report of trials that were really trained."""

import dataclasses
import itertools
import math

import pytest
import yaml

from jaxsft import api
from jaxsft.config import compose
from jaxsft.rundir import JsonLines, read_json, read_jsonl, write_text
from jaxsft.sweeps import analysis
from jaxsft.sweeps.sweep_findings import analyse
from tests import tiny


@pytest.mark.slow
def test_a_sweep_of_four_trainings_has_a_report(tmp_path):
    """Two learning rates and two seeds: numbers, costs and curves are those of the runs."""
    data, folder, trials = tiny.data(tmp_path), tmp_path / "sweep", []
    with JsonLines(folder / "ledger.jsonl") as ledger:
        for number, (rate, seed) in enumerate(itertools.product((1e-3, 3e-2), (0, 1))):
            trial = f"{number}" * 64
            run = folder / "jobs" / f"{number:03d}-{trial[:8]}"
            config = tiny.config(data, run, "classify")
            optim = dataclasses.replace(config.optim, learning_rate=rate)
            config = dataclasses.replace(config, optim=optim, seed=seed)
            api.train(config)
            words = [f"optim.learning_rate={rate}", f"seed={seed}"]
            plain = compose.to_dict(config)
            trials.append({"number": number, "id": trial, "overrides": words, "config": plain})
            of = {
                "time": "t",
                "trial": trial,
                "number": number,
                "attempt": 1,
                "host": "h",
                "pid": 1,
            }
            ledger.append({**of, "event": "leased", "until": 1.0})
            done = {"run_dir": str(run.relative_to(folder)), "seconds": 1.0}
            ledger.append({**of, "event": "done", **done})
    swept = ["optim.learning_rate", "seed"]
    plan = {"contract": 1, "given": [], "swept": swept, "study": None, "trials": trials}
    write_text(folder / "plan.yaml", yaml.safe_dump(plan))
    text = analysis.write_report(folder).read_text("utf-8")
    found = analyse(analysis.read_sweep(folder), replicates=200)
    assert found.results.metric == "validation/accuracy" and not found.results.notes
    for trial in found.results.trials:
        result = read_json(trial.run_dir / "result.json")
        assert trial.value == result["validation/accuracy"] and trial.steps == 12
        assert trial.seconds > 0 and trial.tokens > 0 and trial.flops > trial.tokens
        assert trial.parameters > 0 and trial.peak_bytes > 0 and len(trial.stream) == 64
    assert [len(group.trials) for group in found.groups] == [2, 2]
    assert not [line for line in found.warnings if "same numbers" in line]
    (pair,) = found.family.pairs
    assert pair.test == "t of rows and seeds" and math.isfinite(pair.difference)
    assert found.family.split == "validation" and "Validation: accuracy" in text


@pytest.mark.slow
def test_trials_that_can_be_one_program_train_in_one_process(tmp_path, monkeypatch):
    """Two rates are one program, another width is not; each leaves its own run directory."""
    data = tiny.data(tmp_path)
    monkeypatch.chdir(tmp_path)
    swept = ["optim.learning_rate=1e-3,3e-2", "model.embed=16,8"]
    given = [f"data.train={data}/labels.jsonl", f"data.validation={data}/labels_held.jsonl"]
    size = ["model.layers=1", "model.heads=2", "model.kv_heads=2", "model.head_dim=8"]
    how = ["train.duration=4steps", "train.batch_size=4", "mesh.data=1"]
    kind = ["hydra/launcher=stacked", "run_dir=s"]
    words = ["train", "-m", "task=classify", *given, *size, *swept, *how, *kind]
    code, _, err = tiny.jaxsft(*words)
    assert code == 0 and "4 trials are 2 compiled programs" in err
    runs = sorted((tmp_path / "s" / "jobs").glob("*-????????"))
    assert len(runs) == 4 and len({one.read_text() for one in runs[0].glob("config.yaml")}) == 1
    for run, rate in zip(runs, ("0.001", "0.001", "0.03", "0.03"), strict=True):
        command = read_json(run / "manifest.json")["command"]
        assert f"optim.learning_rate={rate}" in command, command
        assert read_json(run / "result.json") and (run / "report.html").is_file()
        assert not list((run / "figures").glob("*.png"))  # drawn on request
        (time,) = read_jsonl(run / "times.jsonl")
        assert time["trials"] == 2
    known = {
        trial.run_dir.name: trial.seconds for trial in analysis.read_sweep(tmp_path / "s").trials
    }
    for run in runs:  # half of the time that both took
        assert known[run.name] == read_jsonl(run / "times.jsonl")[0]["seconds"] / 2
    logs = sorted(one.name for one in (tmp_path / "s" / "jobs").glob("*.log"))
    assert len(logs) == 2  # of the processes, by their first trial
    code, _, err = tiny.jaxsft(*words)  # nothing is left
    assert code == 0 and "4 done" in err
