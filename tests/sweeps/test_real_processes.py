"""Sweeps of workers that train nothing: they raise, hang, are killed, lose their parent.

Only what is counted is asserted, never how long anything took.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.sweeps import sweep_parent
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger
from tests.sweeps import sweeping
from tests.sweeps.sweeping import meanwhile, starts, states, statuses, until, until_started


def test_a_trial_that_hangs_is_ended_and_told(real, capfd):  # guards I2
    assert sweeping.run(["seed=30", "run_dir=s"], timeout="2s") == 1
    (found,) = states("s")
    assert (found.status, found.kind) == ("failed", "timeout")
    assert "was stopped after 2 s" in capfd.readouterr().err


def test_the_same_command_skips_what_is_done_and_failed(place):
    words = ["seed=0,10,1", "run_dir=s"]
    assert sweeping.run(words, slots=3) == 1
    assert sweeping.run(words, slots=3) == 1  # there is a failure still
    assert starts("s") == {0: 1, 1: 1, 2: 1}
    assert sweeping.run(words, slots=3, failed="retry") == 1
    assert starts("s") == {0: 1, 1: 2, 2: 1}
    # a result that was thrown away is made again
    shutil.rmtree(SweepPlan.read("s").by_number(2).run_dir)
    assert sweeping.run(words, slots=3) == 1
    assert starts("s") == {0: 1, 1: 2, 2: 1} and statuses("s") == ["done", "failed", "done"]


def test_parents_are_killed_and_nothing_is_lost_or_run_twice(place):
    """One parent is killed with one of its two trials, then the next one."""
    words = ["seed=50,51,0", "run_dir=s"]
    first = sweeping.parent(words, slots=2)
    until_started({0: 1, 1: 1})
    sweeping.kill(first)
    os.kill(states("s")[1].pid, signal.SIGKILL)
    second = sweeping.parent(words, slots=2)
    until_started({0: 1, 1: 2})
    until(lambda: statuses("s")[1] == "started")
    sweeping.kill(second)
    assert statuses("s") == ["started", "started", "planned"]
    # the third finds both at work, and waits for them
    threading.Timer(1.0, Path("s/go").touch).start()
    assert sweeping.run(words, slots=2) == 0
    assert statuses("s") == ["done"] * 3 and starts("s") == {0: 1, 1: 2, 2: 1}
    of = lambda number: [e.event for e in TrialLedger("s").events() if e.number == number]
    assert of(0) == ["planned", "leased", "started", "done"]
    assert of(1) == [*("planned", "leased", "started", "interrupted", "leased", "started", "done")]
    pids = {e.pid for e in TrialLedger("s").events() if e.event == "leased" and e.number < 2}
    assert pids == {first.pid, second.pid}


def test_ctrl_c_interrupts_gently_and_a_second_one_at_once(real, monkeypatch, capfd):
    """One trial answers the first, the other only the last of all signals; both go on later."""
    words = ["seed=60,61,0", "run_dir=s"]

    def press():
        until_started({0: 1, 1: 1})
        until(lambda: statuses("s")[:2] == ["started"] * 2)
        os.kill(states("s")[1].pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: statuses("s")[0] == "interrupted")
        assert statuses("s")[1] == "started"
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(press):
        assert sweeping.run(words, slots=2) == 130
    err = capfd.readouterr().err
    assert "jaxsft: stopping" in err and "jaxsft sweep resume s goes on" in err
    assert statuses("s") == ["interrupted", "interrupted", "planned"]
    assert states("s")[0].message == "was stopped by signal 15"
    assert states("s")[1].message == "was stopped" and starts("s") == {0: 1, 1: 1}
    Path("s/go").touch()
    monkeypatch.setattr(sweep_parent, "Child", sweeping.WorkerHere)
    assert sweeping.run(words, slots=2) == 0 and starts("s") == {0: 2, 1: 2, 2: 1}


def test_trials_that_share_a_process_end_each_by_itself(real):
    """Two jobs of two: in the first one trial fails, the second is killed once."""
    pairs = lambda trials: [trials[i : i + 2] for i in range(0, len(trials), 2)]
    assert sweeping.run(["seed=0,10,1,20", "run_dir=s"], group=pairs, slots=2) == 1
    assert statuses("s") == ["done", "failed", "done", "done"]
    pids = [
        [e.pid for e in TrialLedger("s").events() if e.event == "started" and e.number == number]
        for number in range(4)
    ]
    assert pids[0] == pids[1] and (len(pids[2]), len(pids[3])) == (1, 2)
    assert pids[2][0] == pids[3][0] != pids[0][0]
    # of the process that was killed, the one comes back that had not ended
    assert starts("s") == {0: 1, 1: 1, 2: 1, 3: 2}


def test_a_stack_that_is_killed_half_way_keeps_what_has_ended(place):
    """Parent and worker die; done and failed members stay so, and are not trained again."""
    words = ["seed=0,10,1,50,2", "run_dir=s"]
    first = sweeping.parent(words, stack=True)
    until(lambda: Path("s/plan.yaml").exists() and starts("s").get(3) == 1)
    sweeping.kill(first)
    assert statuses("s") == ["done", "failed", "done", "started", "started"]
    assert states("s")[2].value == 1.0 and states("s")[0].seconds is not None
    os.kill(states("s")[3].pid, signal.SIGKILL)
    Path("s/go").touch()
    assert sweeping.run(words, stack=True) == 1
    assert statuses("s") == ["done", "failed", "done", "done", "done"]
    assert starts("s") == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}


def test_a_member_of_a_stack_that_is_cancelled_ends_and_has_no_result(place):
    def cancel():
        until(lambda: Path("s/plan.yaml").exists() and starts("s").get(1) == 1)
        state = states("s")[1]
        TrialLedger("s").append("cancelled", state.trial, 1, state.attempt)
        Path("s/go").touch()

    with meanwhile(cancel):
        assert sweeping.run(["seed=0,1050,1051", "run_dir=s"], stack=True) == 0
    assert statuses("s") == ["done", "cancelled", "done"]
    runs = [SweepPlan.read("s").by_number(number).run_dir for number in (1, 2)]
    assert [(run / "pruned").read_text() for run in runs] == ["True", "False"]
    assert [(run / "result.json").exists() for run in runs] == [False, True]


def test_two_parents_do_not_run_one_sweep(place):
    words = ["seed=50", "run_dir=s"]

    def second():
        until_started({0: 1})
        with pytest.raises(JaxsftError, match=r"process \d+ on .* runs this sweep"):
            sweeping.run(words)
        Path("s/go").touch()

    with meanwhile(second):
        assert sweeping.run(words) == 0
    assert starts("s") == {0: 1}


def test_a_full_disk_is_one_sentence_and_the_sweep_goes_on_later(place):
    words = ["seed=0,40,1", "run_dir=s"]
    with pytest.raises(JaxsftError, match=r"^s: the disk is full; make room"):
        sweeping.run(words)
    assert statuses("s") == ["done", "interrupted", "planned"]
    Path("s/room").touch()
    assert sweeping.run(words) == 0 and starts("s") == {0: 1, 1: 2, 2: 1}


def test_a_ledger_that_cannot_be_written_is_one_sentence(place, monkeypatch):
    words = ["seed=0,1", "run_dir=s"]
    whole = TrialLedger.write

    def full(self, event, *args, **about):
        if event == "leased" and args[1] == 1:
            raise JaxsftError("s/ledger.jsonl: cannot write (No space left on device)")
        whole(self, event, *args, **about)

    monkeypatch.setattr(TrialLedger, "write", full)
    with pytest.raises(JaxsftError, match="No space left"):
        sweeping.run(words)
    monkeypatch.setattr(TrialLedger, "write", whole)
    assert sweeping.run(words) == 0 and starts("s") == {0: 1, 1: 1}


def test_other_trials_in_the_same_directory_are_refused_or_asked_for(place):
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2) == 0
    with pytest.raises(ConfigError, match=r"other trials: 1 of the command \(seed=2\)"):
        sweeping.run(["seed=1,2", "run_dir=s"])
    assert statuses("s") == ["done", "done"]
    shutil.copytree("s", "t")
    assert sweeping.run(["seed=1,2", "run_dir=s"], changed="add") == 0
    assert sweeping.run(["seed=1,2", "run_dir=t"], changed="supersede") == 0
    assert statuses("s") == ["done"] * 3 and statuses("t") == ["superseded", "done", "done"]
    assert starts("s") == starts("t") == {0: 1, 1: 1, 2: 1}


def test_changed_data_are_noticed(place):
    assert sweeping.run(["seed=0", "run_dir=s"]) == 0
    Path("book.txt").unlink()
    before = sweeping.LINES
    try:
        sweeping.LINES = "other lines\n" * 30
        with pytest.raises(ConfigError, match=r"before book\.txt changed; sweep\.changed=keep"):
            sweeping.run(["seed=0", "run_dir=s"])
        assert sweeping.run(["seed=0", "run_dir=s"], changed="keep") == 0
        assert starts("s") == {0: 1}
        assert sweeping.run(["seed=0", "run_dir=s"], changed="supersede") == 0
    finally:
        sweeping.LINES = before
    assert statuses("s") == ["superseded", "done"] and starts("s") == {0: 1, 1: 1}
