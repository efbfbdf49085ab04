"""`jaxsft sweep ...` over a sweep of workers that train nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxsft.sweeps import sweep_parent
from jaxsft.sweeps.sweep_plan import SweepPlan
from tests import tiny
from tests.sweeps import sweeping
from tests.sweeps.sweeping import starts, statuses


@pytest.fixture
def sweep(place, monkeypatch):
    monkeypatch.setattr(sweep_parent, "WORKER", sweeping.FAKE)
    assert sweeping.run(["seed=0,10", "run_dir=s"], slots=2) == 1
    return place


def ok(*words: str) -> str:
    code, out, err = tiny.jaxsft("sweep", *words)
    assert code == 0, err
    return out


def test_status_says_what_each_trial_stands_at(sweep):
    lines = ok("status", "s").splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["0", "done"], ["1", "failed"]]
    assert "ValueError: seed 10 is a mistake" in lines[2] and lines[3] == "1 done, 1 failed"


def test_resume_leaves_failures_and_retry_runs_them(sweep):
    code, _, err = tiny.jaxsft("sweep", "resume", "s")
    assert code == 1 and "1 of 2 trials failed: 1" in err and starts("s") == {0: 1, 1: 1}
    code, _, _ = tiny.jaxsft("sweep", "retry", "s", "1", "sweep.slots=2")
    assert code == 1 and starts("s") == {0: 1, 1: 2}
    code, _, err = tiny.jaxsft("sweep", "retry", "s", "7")
    assert code == 1 and err == "jaxsft: s: has no trial 7; there are 2\n"


def test_a_sweep_goes_on_from_any_directory(sweep, monkeypatch):
    (sweep / "other").mkdir()
    monkeypatch.chdir(sweep / "other")
    code, _, err = tiny.jaxsft("sweep", "retry", "../s", "1")
    assert code == 1 and "1 of 2 trials failed" in err
    monkeypatch.chdir(sweep)
    assert starts("s") == {0: 1, 1: 2}


def test_add_plans_further_trials_and_runs_them(sweep):
    code, _, _ = tiny.jaxsft("sweep", "add", "s", "seed=1,2", "model.layers=3")
    assert code == 1  # the old failure is one still
    plan = SweepPlan.read("s")
    assert [one.overrides for one in plan.trials[2:]] == [
        ("seed=1", "model.layers=3"),
        ("seed=2", "model.layers=3"),
    ]
    assert plan.swept == ("seed", "model.layers") and starts("s") == {0: 1, 1: 1, 2: 1, 3: 1}
    assert plan.trials[2].config["data"]["train"] == "book.txt"
    assert statuses("s") == ["done", "failed", "done", "done"]


def test_trials_are_added_to_a_study(place, monkeypatch):
    monkeypatch.setattr(sweep_parent, "WORKER", sweeping.FAKE)
    (place / "book.txt").write_text(sweeping.LINES)
    (place / "experiments" / "rates").mkdir(parents=True)
    (place / "experiments" / "rates" / "study.yaml").write_text(
        "question: which rate?\nmetric: validation/loss\n"
        "options: {task: lm, data.train: book.txt}\n"
        "trials: {product: {optim.learning_rate: [1e-3, 1e-2]}}\n"
    )
    assert tiny.jaxsft("sweep", "run", "experiments/rates", "run_dir=s")[0] == 0
    assert tiny.jaxsft("sweep", "add", "s", "optim.learning_rate=1e-4")[0] == 0
    plan = SweepPlan.read("s")
    assert [one.config["data"]["train"] for one in plan.trials] == ["book.txt"] * 3
    assert statuses("s") == ["done"] * 3 and starts("s") == {0: 1, 1: 1, 2: 1}


def test_cancelled_trials_are_not_run_until_they_are_asked_for(sweep, monkeypatch):
    assert ok("cancel", "s", "0") == "cancelled: none\n"  # it is done
    plan = SweepPlan.read("s")
    Path(plan.trials[0].run_dir, "result.json").unlink()
    monkeypatch.setattr(sweep_parent, "run", lambda *a, **k: 0)
    ok("resume", "s")
    monkeypatch.undo()
    monkeypatch.chdir(sweep)
    monkeypatch.setattr(sweep_parent, "WORKER", sweeping.FAKE)
    monkeypatch.setenv("PYTHONPATH", str(sweeping.ROOT))
    assert statuses("s") == ["planned", "failed"]
    assert ok("cancel", "s", "all") == "cancelled: 0\n"
    tiny.jaxsft("sweep", "resume", "s")
    assert statuses("s") == ["cancelled", "failed"] and starts("s") == {0: 1, 1: 1}
    tiny.jaxsft("sweep", "retry", "s", "0")
    assert statuses("s") == ["done", "failed"] and starts("s") == {0: 2, 1: 1}


WRONG = {
    "": "expected one of run, status",
    "show s": "expected one of run, status",
    "status": "expected the directory of a sweep",
    "status none": "none: holds no sweep",
    "cancel s": "expected numbers of trials",
    "cancel s x": "x: expected the number of a trial",
    "resume s seed=3": "takes no seed=3",
    "resume s sweep.slots=0": "sweep.slots=0: expected",
    "resume s sweep.sluts=2": "sweep.sluts: unknown option",
    "resume s sweep.timeout=soon": "sweep.timeout=soon: expected a time",
    "add s": "expected options behind",
    "run none": "none/study.yaml: cannot read",
}


def test_what_is_wrong_is_one_sentence(sweep):
    for words, told in WRONG.items():
        code, out, err = tiny.jaxsft("sweep", *words.split())
        assert code == 1 and out == "" and err.count("\n") == 1 and told in err, (words, err)
