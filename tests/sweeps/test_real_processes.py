"""Sweeps of real processes, which train nothing: they raise, hang, are killed, lose their parent.

Only what is counted is asserted, never how long anything took.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jaxsft import rundir
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger
from tests.sweeps import sweeping
from tests.sweeps.sweeping import starts, states, statuses, until


def test_failures_are_told_and_the_others_go_on(place, capfd):
    """One raises, one is killed and comes back, one hangs."""  # guards I2 I3 I4
    code = sweeping.run(["seed=0,10,20,30,1", "run_dir=s"], slots=3, timeout="30s", retries=2)
    told = capfd.readouterr().err
    assert code == 1
    assert statuses("s") == ["done", "failed", "done", "failed", "done"]
    found = states("s")
    assert (found[1].kind, found[3].kind) == ("error", "timeout")
    assert starts("s") == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}
    # the traceback stands in the log, and its end on the screen
    plan = SweepPlan.read("s")
    log = plan.by_number(1).beside(".log").read_text()
    assert "Traceback" in log and "seed 10 is a mistake of the program" in log
    assert "trial 1 (seed=10) failed: ValueError: seed 10 is a mistake of the program" in told
    assert "    ValueError: seed 10 is a mistake of the program" in told
    assert "was stopped after 30 s" in told
    assert "2 of 5 trials failed: 1, 3" in told.splitlines()[-2]
    assert (found[0].metric, found[4].value) == ("validation/loss", 1.0)


def test_the_same_command_skips_what_is_done_and_failed(place, capfd):
    words = ["seed=0,10,1", "run_dir=s"]
    assert sweeping.run(words, slots=3) == 1
    assert sweeping.run(words, slots=3) == 1  # there is a failure still
    assert starts("s") == {0: 1, 1: 1, 2: 1}
    assert sweeping.run(words, slots=3, failed="retry") == 1
    assert starts("s") == {0: 1, 1: 2, 2: 1}
    # a result that was thrown away is made again
    rundir.shutil.rmtree(SweepPlan.read("s").by_number(2).run_dir)
    assert sweeping.run(words, slots=3) == 1
    assert starts("s") == {0: 1, 1: 2, 2: 1} and statuses("s") == ["done", "failed", "done"]


def test_a_parent_is_killed_twice_and_nothing_is_run_twice(place):
    words = ["seed=50,51,0,52", "run_dir=s"]
    first = sweeping.parent(words, slots=2)
    until(lambda: starts("s") == {0: 1, 1: 1} if Path("s/plan.yaml").exists() else False)
    sweeping.kill(first)
    second = sweeping.parent(words, slots=2)
    until(lambda: (Path("s") / "run.lock").read_text().startswith(f"process {second.pid} "))
    until(lambda: second.poll() is None and starts("s") == {0: 1, 1: 1})
    sweeping.kill(second)
    # its children go on without it, and write down what they came to
    Path("s/go").touch()
    until(lambda: statuses("s")[:2] == ["done", "done"])
    assert sweeping.run(words, slots=2) == 0
    assert statuses("s") == ["done"] * 4 and starts("s") == dict.fromkeys(range(4), 1)


def test_orphans_are_waited_for_and_dead_ones_go_on(place):
    words = ["seed=50,51", "run_dir=s"]
    first = sweeping.parent(words, slots=2)
    until(lambda: starts("s") == {0: 1, 1: 1} if Path("s/plan.yaml").exists() else False)
    sweeping.kill(first)
    found = states("s")
    rundir.os.kill(found[1].pid, signal.SIGKILL)
    second = sweeping.parent(words, slots=2)
    until(lambda: starts("s") == {0: 1, 1: 2})
    Path("s/go").touch()
    assert second.wait(300) == 0
    events = TrialLedger("s").events()
    first_trial = [e.event for e in events if e.number == 0]
    assert first_trial == ["planned", "leased", "started", "done"]
    assert [e.event for e in events if e.number == 1] == [
        *("planned", "leased", "started", "interrupted", "leased", "started", "done")
    ]


def test_ctrl_c_interrupts_gently_and_the_same_command_goes_on(place):
    words = ["seed=60,61,0", "run_dir=s"]
    parent = sweeping.parent(words, slots=2)
    until(lambda: starts("s") == {0: 1, 1: 1} if Path("s/plan.yaml").exists() else False)
    until(lambda: statuses("s")[:2] == ["started"] * 2)
    parent.send_signal(signal.SIGINT)
    _, err = parent.communicate(timeout=300)
    assert parent.returncode == 130, err
    assert "jaxsft sweep resume s goes on" in err
    assert statuses("s") == ["interrupted", "interrupted", "planned"]
    assert states("s")[0].message == "was stopped by signal 15"
    Path("s/go").touch()
    assert sweeping.run(words, slots=2) == 0
    assert starts("s") == {0: 2, 1: 2, 2: 1}


def test_a_second_ctrl_c_ends_at_once(place):
    parent = sweeping.parent(["seed=60", "run_dir=s"], slots=1)
    until(lambda: starts("s") == {0: 1} if Path("s/plan.yaml").exists() else False)
    until(lambda: statuses("s") == ["started"])
    pid = states("s")[0].pid
    rundir.os.kill(pid, signal.SIGSTOP)  # it answers no signal but the last
    parent.send_signal(signal.SIGINT)
    assert parent.stderr is not None
    until(lambda: "stopping" in parent.stderr.readline())
    parent.send_signal(signal.SIGINT)
    assert parent.wait(300) == 130 and statuses("s") == ["interrupted"]


def test_trials_that_share_a_process_end_each_by_itself(place):
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
    until(lambda: starts("s").get(3) == 1 if Path("s/plan.yaml").exists() else False)
    sweeping.kill(first)
    assert statuses("s") == ["done", "failed", "done", "started", "started"]
    assert states("s")[2].value == 1.0 and states("s")[0].seconds is not None
    os.kill(states("s")[3].pid, signal.SIGKILL)
    Path("s/go").touch()
    assert sweeping.run(words, stack=True) == 1
    assert statuses("s") == ["done", "failed", "done", "done", "done"]
    assert starts("s") == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}


def test_a_member_of_a_stack_that_is_cancelled_ends_and_has_no_result(place):
    words = ["seed=0,1050,1051", "run_dir=s"]
    first = sweeping.parent(words, stack=True)
    until(lambda: starts("s").get(1) == 1 if Path("s/plan.yaml").exists() else False)
    state = states("s")[1]
    TrialLedger("s").append("cancelled", state.trial, 1, state.attempt)
    Path("s/go").touch()
    assert first.wait(300) == 0
    assert statuses("s") == ["done", "cancelled", "done"]
    runs = [SweepPlan.read("s").by_number(number).run_dir for number in (1, 2)]
    assert [(run / "pruned").read_text() for run in runs] == ["True", "False"]
    assert [(run / "result.json").exists() for run in runs] == [False, True]


def test_two_parents_do_not_run_one_sweep(place):
    words = ["seed=50", "run_dir=s"]
    first = sweeping.parent(words)
    until(lambda: starts("s") == {0: 1} if Path("s/plan.yaml").exists() else False)
    with pytest.raises(JaxsftError, match=r"process \d+ on .* runs this sweep"):
        sweeping.run(words)
    Path("s/go").touch()
    assert first.wait(300) == 0 and starts("s") == {0: 1}


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
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PYTHONPATH", str(sweeping.ROOT))
    assert sweeping.run(words) == 0 and starts("s") == {0: 1, 1: 1}


@pytest.mark.parametrize("changed", ["refuse", "add", "supersede"])
def test_other_trials_in_the_same_directory_are_refused_or_asked_for(changed, place):
    assert sweeping.run(["seed=0,1", "run_dir=s"], slots=2) == 0
    if changed == "refuse":
        with pytest.raises(ConfigError, match=r"other trials: 1 of the command \(seed=2\)"):
            sweeping.run(["seed=1,2", "run_dir=s"])
        assert statuses("s") == ["done", "done"]
        return
    assert sweeping.run(["seed=1,2", "run_dir=s"], changed=changed) == 0
    first = "superseded" if changed == "supersede" else "done"
    assert statuses("s") == [first, "done", "done"]
    assert starts("s") == {0: 1, 1: 1, 2: 1}


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
