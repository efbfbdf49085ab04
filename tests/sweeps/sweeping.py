"""Sweeps that train nothing, of real processes or of this one, and parents that can be killed.

A process costs a second of a processor before it does anything. Where a test is not about
processes, workers therefore run in this one (`WorkerHere`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.sweeps import command_grid, device_slots, launchers, scheduler, sweep_parent, worker
from jaxsft.sweeps.command_grid import ComposedGrid, SweepCommand
from jaxsft.sweeps.scheduler import one_by_one
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger, TrialState

if TYPE_CHECKING:  # a parent in a process of its own does without
    import pytest

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))
LINES = "a line\n" * 30
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds that a test waits for what should come at once


class WorkerHere:
    """A worker that has ended when it was started: it ran in this process.

    What it prints is added to its log; cores and environment of its slot are not given to it.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]):
        program, *arguments = command[1:]
        if program == "-m":
            fakes, arguments = {}, arguments[1:]
        else:
            fakes = importlib.import_module(f"tests.sweeps.{Path(program).stem}").FAKES
        with (
            open(log, "a") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
            mock.patch.object(device_slots, "use"),
            mock.patch.multiple(worker, **fakes) if fakes else contextlib.nullcontext(),
        ):
            self._code = worker.main(arguments)

    def poll(self) -> int:
        return self._code

    def stop(self) -> None:
        """Ignores the call: it has ended."""

    def kill(self) -> None:
        """Ignores the call: it has ended."""


def settle(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Goes to an empty folder, where sweeps run their workers in this process."""
    patch.chdir(folder)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    patch.setattr(sweep_parent, "Child", WorkerHere)
    patch.setattr(scheduler, "POLL", 0.02)
    return folder


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
    wanted = launchers.wanted(_composed(tuple(command)), ["-m", *command])
    return sweep_parent.begin(wanted, SweepConfig(**options), FAKE, group)


@functools.cache
def _composed(command: tuple[str, ...]) -> ComposedGrid:
    """What a command stands for, which takes most of the time of a sweep that trains nothing."""
    return command_grid.composed(SweepCommand.of_arguments(list(command)))


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


def until(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Waits until something holds; raises where it never does."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.05)


def until_started(expected: Mapping[int, int], folder: str = "s") -> None:
    """Waits until trials were trained so often, by number."""
    until(lambda: Path(folder, "plan.yaml").exists() and starts(folder) == expected)


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Does something in a thread while the block runs a sweep; raises what it raised.

    Where it raises, fakes that wait are let go, so that the block ends.
    """
    raised: list[BaseException] = []
    here = Path.cwd()

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)
            for folder in here.glob("*/jobs"):
                (folder.parent / "go").touch()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE)
    if raised:
        raise raised[0]


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
