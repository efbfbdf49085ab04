"""Kills a sweep of many jobs at random moments, again and again, and lets new parents finish it.

python -m tools.sweep_kill [jobs=60] [kills=40] [slots=3] [seed=0]

Killed with `kill -9` are the parent, a job, or all of them at once, as a power cut does. Jobs train
nothing (`tests/sweeps/fake_worker.py`); each holds the lock of its directory, so that two of one
trial would end in an error. In the end every trial must be done, exactly once, by a ledger that is
whole.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from jaxsft.sweeps.processes import started_at
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger, fold
from tests.sweeps import sweeping


def seeds(jobs: int) -> list[int]:
    """Returns seeds of configs whose fake jobs hold a lock for a while."""
    return [100 * (i // 10) + 70 + i % 10 for i in range(jobs)]


def kill(parent: subprocess.Popen, folder: Path, rng: random.Random) -> str:
    """Kills something, and returns what; nothing where no job runs, mostly."""
    what = rng.choice(["parent", "job", "job", "power"])
    found = TrialLedger(folder).states().values() if (folder / "ledger.jsonl").exists() else []
    jobs = [s for s in found if s.status == "started" and started_at(s.pid) == s.start]
    if not jobs and rng.random() < 0.9:
        return ""
    if what == "parent" or not jobs:
        sweeping.kill(parent)
        return "parent"
    if what == "power":
        sweeping.kill(parent)
        with open(folder / "ledger.jsonl", "ab") as file:
            file.write(b'{"time": "2026-')
    for job in jobs if what == "power" else [rng.choice(jobs)]:
        os.kill(job.pid, signal.SIGKILL)
    return what


def check(folder: Path, jobs: int) -> str:
    """Returns the account of a sweep. Raises AssertionError where it is not true."""
    ledger, plan = TrialLedger(folder), SweepPlan.read(folder)
    events, states = ledger.events(), ledger.states()
    assert fold(events) == states and len(states) == len(plan.trials) == jobs
    done = Counter(event.trial for event in events if event.event == "done")
    assert done == dict.fromkeys(states, 1), "a trial is lost or done twice"
    assert all(one.finished for one in plan.trials)
    assert all(state.status == "done" for state in states.values())
    errors = [e for e in events if e.event == "failed" and e.about["kind"] == "error"]
    assert not errors, f"{errors[0].about}"
    counts = Counter(event.event for event in events)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def main(jobs: int = 60, kills: int = 40, slots: int = 3, seed: int = 0) -> None:
    rng, told, parents = random.Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        words = [f"seed={','.join(map(str, seeds(jobs)))}", "run_dir=s"]
        while True:
            parent = sweeping.parent(words, slots=slots, retries=10**6)
            parents += 1
            while sum(told.values()) < kills:
                time.sleep(rng.uniform(0.2, 4))
                if parent.poll() is not None:
                    break
                what = kill(parent, Path("s"), rng)
                told[what] += bool(what)
                if what in ("parent", "power"):
                    break
            if sum(told.values()) >= kills or parent.poll() == 0:
                _, err = parent.communicate()
                if parent.returncode == 0:
                    break
                assert parent.returncode == -9, err
        print(f"{jobs} jobs, {parents} parents, killed: {dict(told)}: {check(Path('s'), jobs)}")


if __name__ == "__main__":
    main(**{key: int(value) for key, _, value in (word.partition("=") for word in sys.argv[1:])})
