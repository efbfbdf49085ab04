"""Processes that another parent started are recognised, and never mistaken for others."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import time

from jaxsft.sweeps import processes
from jaxsft.sweeps.processes import UNKNOWN, Elsewhere, Orphan, find, own_start, started_at
from jaxsft.sweeps.trial_ledger import TrialState


def test_a_process_is_known_by_number_and_start(tmp_path):
    here = {"host": platform.node(), "pid": os.getpid(), "start": own_start()}
    state = TrialState("a", 0, "started", 1, **here)
    assert find(state, tmp_path / "x") == Orphan(os.getpid(), own_start())
    # the number was given to another process since
    assert find(dataclasses.replace(state, start="other"), tmp_path / "x") is None
    assert find(dataclasses.replace(state, status="done"), tmp_path / "x") is None
    # it was leased, and nobody has claimed it
    assert find(dataclasses.replace(state, pid=None, start=None), tmp_path / "x") is None


def test_a_process_that_has_ended_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    orphan = Orphan(child.pid, str(started_at(child.pid)))
    assert orphan.poll() is None
    orphan.kill()
    child.kill()  # it leads no group of its own
    while orphan.poll() is None:  # before its parent takes note of it too
        time.sleep(0.01)
    assert orphan.poll() == UNKNOWN and child.wait() == -9
    assert started_at(child.pid) is None


def test_a_process_on_another_machine_lives_by_its_signs(tmp_path):
    beat = tmp_path / "beat"
    leased = TrialState("a", 0, "leased", 1, until=time.time() + 600, host="elsewhere")
    assert find(leased, beat) == Elsewhere(beat, leased.until)
    late = dataclasses.replace(leased, until=time.time() - 1)
    assert find(late, beat) is None
    beat.touch()
    assert find(late, beat) is not None
    old = time.time() - processes.LEASE - 1
    os.utime(beat, (old, old))
    assert find(late, beat) is None
