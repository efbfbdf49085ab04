"""A machine that is simulated: time, processes of trials and parents that are killed at random,
over a real ledger. What a process does is what `jaxsft/sweeps/worker.py` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections import Counter
from pathlib import Path

from jaxsft.sweeps.processes import UNKNOWN
from jaxsft.sweeps.scheduler import Grid, Scheduler, SweepLimits, unfinished
from jaxsft.sweeps.sweep_plan import PlannedTrial, run_dir
from jaxsft.sweeps.trial_ledger import BUSY, TrialLedger

STEPS = 4  # of a trial; after each it has a checkpoint


class ParentKilledError(Exception):
    """The parent was killed with -9: nothing of it runs any more."""


def trials(folder: Path, count: int) -> list[PlannedTrial]:
    """Trials whose options say how they behave: fine, error, hang."""
    out = []
    for number in range(count):
        name = f"{number:08x}" + "0" * 56
        out.append(PlannedTrial(number, name, (), {}, run_dir(folder, number, name)))
    return out


@dataclasses.dataclass
class FakeProcess:
    """A worker. `due` is when it acts next; it acts until `code` is set."""

    world: World
    trial: PlannedTrial
    attempt: int
    slot: int
    key: str
    due: float
    stage: str = "starting"
    code: int | None = None
    stopped: bool = False
    child: bool = True  # of the parent that lives now, which is told its code

    def poll(self) -> int | None:
        return self.code if self.child or self.code is None else UNKNOWN

    def stop(self) -> None:
        if self.world.behaviour(self.trial) != "deaf":
            self.stopped = True

    def kill(self) -> None:
        if self.code is None:
            self.code = -9

    def act(self) -> None:
        """Does the next thing that a worker does."""
        world, ledger, trial = self.world, self.world.workers_ledger, self.trial
        tell = lambda event, **about: ledger.append(
            event, trial.id, trial.number, self.attempt, **about
        )
        self.due = world.now + world.rng.uniform(0.1, 5)
        if self.stopped and self.stage == "starting":
            self.code = -15
        elif self.stage == "starting":
            if not ledger.claim(trial.id, self.attempt, self.key):
                self.code = 0
                return
            # the lock of the run directory
            others = [p for p in world.alive() if p is not self and p.trial is trial]
            assert all(p.stage == "starting" for p in others), "two processes train one trial"
            self.stage = "training"
            world.attempts[trial.number] += 1
        elif self.stage == "training":
            self._train(tell)
        else:
            told = {"metric": world.metric, "value": world.value(trial, STEPS), "seconds": 1.0}
            tell("done", run_dir=f"jobs/{trial.run_dir.name}", **told)
            self.code = 0

    def _train(self, tell) -> None:
        world, number = self.world, self.trial.number
        behaviour = world.behaviour(self.trial)
        if self.stopped:
            tell("interrupted", message="was stopped by signal 15")
            self.code = 128 + 15
        elif world.steps[number] == STEPS:
            self.stage = "done"
        elif behaviour == "error" and world.steps[number] == 1:
            tell("failed", kind="error", code=1, message="a mistake")
            world.errors[number] += 1
            self.code = 1
        elif behaviour in ("hang", "deaf") and world.steps[number] == 1:
            return
        else:
            world.steps[number] += 1
            step = world.steps[number]
            tell("metric", name=world.metric, value=world.value(self.trial, step), step=step)
            world.finished[number] += world.steps[number] == STEPS


class World:
    """A machine with a sweep on it.

    Attributes:
      kills: the chance that something is killed at an event.
    """

    metric = "m"

    def __init__(self, folder: Path, seed: int, count: int, kills: float):
        self.folder, self.rng, self.kills = folder, random.Random(seed), kills
        self.now = 1.8e9
        self.trials = trials(folder, count)
        self.kinds = [
            self.rng.choice(["fine"] * 6 + ["error", "hang", "deaf"]) for _ in range(count)
        ]
        self.processes: list[FakeProcess] = []
        self.workers_ledger = TrialLedger(folder, lambda: self.now, durable=False)
        self.steps: Counter[int] = Counter()
        self.attempts: Counter[int] = Counter()
        self.errors: Counter[int] = Counter()
        self.finished: Counter[int] = Counter()
        self.parents = 0
        self.most = 0  # processes at a time
        for one in self.trials:
            self.workers_ledger.append("planned", one.id, one.number, 0)

    def value(self, trial: PlannedTrial, step: int) -> float:
        """The number of a trial at a step."""
        return 1.0

    def behaviour(self, trial: PlannedTrial) -> str:
        return self.kinds[trial.number]

    def alive(self) -> list[FakeProcess]:
        return [p for p in self.processes if p.code is None]

    # --- what the scheduler is given
    # ----------------------------------------------------------------------------------------------
    def clock(self) -> float:
        return self.now

    def start(self, trials, slot, attempts) -> FakeProcess:
        self._danger()
        (trial,) = trials
        taken = [p for p in self.alive() if p.slot == slot and p.stage != "starting"]
        assert not any(p.child for p in taken), "two processes on one slot"
        key = f"process-{len(self.processes)}"
        due = self.now + self.rng.uniform(0, 3)
        made = FakeProcess(self, trial, attempts[trial.id], slot, key, due)
        self.processes.append(made)
        self._danger()
        return made

    def find(self, state, trial) -> FakeProcess | None:
        return next((p for p in self.alive() if p.key == state.start), None)

    def wait(self, seconds: float) -> None:
        """Lets time pass: processes act, and may be killed before any of it."""
        self.act_until(self.now + seconds)
        self._danger()

    def act_until(self, end: float) -> None:
        while True:
            due = [p for p in self.alive() if p.due <= end]
            self.most = max(self.most, len(self.alive()))
            if not due:
                break
            process = min(due, key=lambda p: p.due)
            self.now = max(self.now, process.due)
            if self.rng.random() < self.kills:
                process.kill()
            else:
                process.act()
        self.now = end

    def _danger(self) -> None:
        """Kills the parent, or cuts the power, or nothing."""
        if self.rng.random() >= self.kills:
            return
        if self.rng.random() < 0.3:
            for process in self.alive():
                process.kill()
            if self.rng.random() < 0.5:
                with open(self.workers_ledger.path, "ab") as file:
                    file.write(b'{"time": "2026-0')  # a torn line
        raise ParentKilledError

    # --- parents
    # ----------------------------------------------------------------------------------------------
    def ledger(self) -> TrialLedger:
        """A ledger whose writer may die before and after each line."""
        world = self

        class Deadly(TrialLedger):
            @contextlib.contextmanager
            def locked(self):
                if world.rng.random() < 0.3:
                    world.act_until(world.now + 1)  # others are faster
                with super().locked() as states:
                    yield states

            def write(self, *args, **about) -> None:
                world._danger()
                super().write(*args, **about)
                world._danger()

        return Deadly(self.folder, self.clock, durable=False)

    def parent(self, slots: int, retries: int = 10**6) -> bool:
        """Runs one parent until it ends; returns whether it was not killed."""
        self.parents += 1
        for process in self.processes:
            process.child = False
        try:
            ledger = self.ledger()
            limits = SweepLimits(timeout=80.0, retries=retries)
            made = Scheduler(
                ledger,
                Grid(()),
                slots,
                self.start,
                self.find,
                limits,
                clock=self.clock,
                wait=self.wait,
                watch=self.interrupt,
            )
            made.adopt(self.trials)
            made.source = Grid(unfinished(ledger.states(), self.trials, retries))
            made.run()
            return True
        except ParentKilledError:
            return False

    def interrupt(self, scheduler: Scheduler) -> None:
        """Presses Ctrl-C at times."""
        if self.rng.random() < self.kills / 5:
            scheduler.stop()

    def to_the_end(self, slots: int) -> None:
        """Starts parents until nothing is left to do."""
        for _ in range(5000):
            states = self.workers_ledger.states()
            if not unfinished(states, self.trials, 10**6) and not any(
                states[t.id].status in BUSY for t in self.trials
            ):
                return
            self.parent(slots)
            self.now += self.rng.uniform(0, 2)
        raise AssertionError("the sweep never ends")
