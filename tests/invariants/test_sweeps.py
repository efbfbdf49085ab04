"""Sweeps: each trial has a directory, a process and a fixed config of its own, and no failure is
silent. Workers that train nothing stand for those that do (`tests/sweeps/fake_worker.py`).
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsft import rundir
from jaxsft.sweeps import sweep_plan
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger
from jaxsft.sweeps.work_order import WorkOrder
from tests.sweeps import sweeping
from tests.sweeps.sweeping import meanwhile, starts, statuses, until_started


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    return sweeping.settle(tmp_path, monkeypatch)


def test_each_trial_has_a_directory_that_no_other_trial_ever_has():  # guards I1
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2) == 0
    assert sweeping.run(["seed=1,2", "run_dir=s"], slots=2, changed="supersede") == 0
    # the first two came back, so that no name is given out again
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2, changed="supersede") == 0
    plan = SweepPlan.read("s")
    assert len({one.run_dir for one in plan.trials}) == len({one.id for one in plan.trials}) == 3
    assert sorted(p.name for p in Path("s/jobs").iterdir() if p.is_dir()) == sorted(
        f"{one.number:03d}-{one.id[:8]}" for one in plan.trials
    )
    values = [
        rundir.read_json(one.run_dir / "result.json")["validation/loss"] for one in plan.trials
    ]
    assert values == [0.0, 1.0, 2.0]
    assert starts("s") == {0: 1, 1: 1, 2: 1} and statuses("s") == ["done", "done", "superseded"]


def test_a_trial_is_known_by_config_data_and_code_and_not_by_its_place():  # guards I1
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2) == 0
    assert sweeping.run(["seed=1,0", "run_dir=t"], slots=2) == 0
    one, other = ({t.id: t.config["seed"] for t in SweepPlan.read(d).trials} for d in "st")
    assert one == other and len(one) == 2
    config = SweepPlan.read("s").by_number(0).typed()
    ids = {
        sweep_plan.trial_id(config, data, code)
        for data in ({}, {"book.txt": "x"}, {"book.txt": "y"})
        for code in ({}, {"source": "a"}, {"source": "b"})
    }
    assert len(ids) == 9
    # where a run lies and the revision that is told of it do not make it another one
    elsewhere = rundir.sha256_json([sweep_plan.trial_id(config, {}, {"git": "x"})])
    assert elsewhere == rundir.sha256_json([sweep_plan.trial_id(config, {}, {})])


def test_every_failure_is_told_and_the_code_says_so(capfd):  # guards I2 I3 I4
    assert sweeping.run(["seed=10,0,11", "run_dir=s"]) == 1
    told = capfd.readouterr().err
    assert statuses("s") == ["failed", "done", "failed"]  # the others went on
    table = [line for line in told.splitlines() if line.startswith("jaxsft: ")]
    for line, number, seed in zip(table, (0, 2), (10, 11), strict=False):
        assert f"trial {number} (seed={seed}): ValueError: seed {seed} is a mistake" in line
    assert table[-1] == "jaxsft: 2 of 3 trials failed: 0, 2"
    for number, seed in ((0, 10), (2, 11)):
        # shown when it happened, and kept
        log = SweepPlan.read("s").by_number(number).beside(".log").read_text()
        assert "Traceback" in log and f"seed {seed} is a mistake" in log
        assert f"    ValueError: seed {seed} is a mistake" in told
    first = told.index("trial 0 (seed=10) failed")
    assert first < told.index("trial 1 (seed=0): done") < told.index("trial 2 (seed=11) failed")


def test_nothing_more_starts_after_a_failure_where_that_was_asked_for():  # guards I3
    assert sweeping.run(["seed=10,0,11", "run_dir=s"], on_error="stop") == 1
    assert statuses("s") == ["failed", "planned", "planned"]


def test_each_trial_has_a_process_and_the_parent_has_no_jax():  # guards I5
    code = (
        "import os, sys; from tests.sweeps import sweeping;"
        "code = sweeping.run(['seed=0,1', 'run_dir=s'], slots=2);"
        "found = [name for name in ('jax', 'jaxlib', 'flax') if name in sys.modules];"
        "print(os.getpid(), found); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pid, found = done.stdout.splitlines()[-1].split(" ", 1)
    assert found == "[]"
    pids = [event.pid for event in TrialLedger("s").events() if event.event == "started"]
    assert len(set(pids)) == 2 and int(pid) not in pids


def test_a_preset_that_changes_during_the_sweep_changes_no_trial(place):  # guards I7
    preset = place / "mine" / "experiment" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text("# @package _global_\nmodel: {mlp: 48}\n")
    words = ["--config-dir", "mine", "experiment=mine", "seed=50,0", "run_dir=s"]

    def change():
        until_started({0: 1})
        preset.write_text("# @package _global_\nmodel: {mlp: 64}\n")
        Path("s/go").touch()

    with meanwhile(change):
        assert sweeping.run(words) == 0
    given = [WorkOrder.read(Path("s"), number).trial.typed().model.mlp for number in (0, 1)]
    assert given == [48, 48]


def test_the_directory_of_a_trial_follows_from_the_plan_on_every_machine(
    place, monkeypatch
):  # guards I8
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2) == 0
    here = [one.run_dir for one in SweepPlan.read("s").trials]
    monkeypatch.chdir("/")  # another process, elsewhere and later, is told the same folders
    there = [one.run_dir for one in SweepPlan.read(place / "s").trials]
    assert [place / one for one in here] == there and len(set(there)) == 2
    assert [event.about["run_dir"] for event in TrialLedger(place / "s").events()
            if event.event == "done"] in (
        [f"jobs/{one.name}" for one in there],
        [f"jobs/{one.name}" for one in reversed(there)],
    )  # fmt: skip


def test_two_sweeps_of_one_second_have_two_directories(monkeypatch):  # guards I9
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(rundir.datetime, "datetime", Stopped)
    assert sweeping.run(["seed=0"]) == 0 and sweeping.run(["seed=0"]) == 0
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == ["lm-sweep-20260102-030405", "lm-sweep-20260102-030405-2"]
    assert [starts(Path("runs") / name) for name in names] == [{0: 1}, {0: 1}]
