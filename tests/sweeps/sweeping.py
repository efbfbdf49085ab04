"""Sweeps of real processes that train nothing, and parents of them that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.sweeps import command_grid, launchers, sweep_parent
from jaxsft.sweeps.command_grid import SweepCommand
from jaxsft.sweeps.scheduler import one_by_one
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger, TrialState

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
LINES = "a line\n" * 30
ROOT = Path(__file__).parents[2]


def together(trials):
    return [trials] if trials else []


def run(words: list[str], group=one_by_one, **options: object) -> int:
    """Runs a sweep of fake workers over `book.txt` in the working directory.

    With `stack`, all trials share a process.
    """
    if options.pop("stack", False):
        group = together
    Path("book.txt").write_text(LINES)
    command = ["task=lm", "data.train=book.txt", *words]
    found = command_grid.composed(SweepCommand.of_arguments(command))
    wanted = launchers.wanted(found, ["-m", *command])
    return sweep_parent.begin(wanted, SweepConfig(**options), FAKE, group)


def states(folder: str | Path) -> list[TrialState]:
    """The state of each trial, by number."""
    found = TrialLedger(folder).states().values()
    return sorted(found, key=lambda state: state.number)


def statuses(folder: str | Path) -> list[str]:
    return [state.status for state in states(folder)]


def starts(folder: str | Path) -> Counter[int]:
    """How often each trial was trained, by number."""
    plan = SweepPlan.read(folder)
    out: Counter[int] = Counter()
    for one in plan.trials:
        if (one.run_dir / "starts").exists():
            out[one.number] = len((one.run_dir / "starts").read_text().splitlines())
    return out


def parent(words: list[str], **options: object) -> subprocess.Popen:
    """A parent in a process of its own, with fake workers."""
    code = (
        "import sys; from tests.sweeps import sweeping;"
        f"sys.exit(sweeping.run({words!r}, **{options!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def until(holds, patience: float = 300.0) -> None:
    """Waits until something holds; raises where it never does."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.05)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
