"""Runs the trials of a sweep on slots until all have ended: starts, watches, retries, stops.

What is true stands in the ledger; the scheduler holds nothing that it could not read there again.
It may therefore be killed at any moment: the next one takes over what still runs (`adopt`) and
starts what does not. Clock, processes and waiting are arguments, so that a test can simulate all
three.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from jaxsft.sweeps.processes import LEASE, UNKNOWN, Handle
from jaxsft.sweeps.sweep_plan import PlannedTrial
from jaxsft.sweeps.trial_ledger import BUSY, ENDED, TrialLedger, TrialState

POLL = 0.5  # seconds between two looks at the processes
GRACE = 60.0  # seconds that a trial has to write a checkpoint when its time is up
FULL = 74  # the exit code of a worker whose disk is full
KILLED = 128  # exit codes above it are signals, as shells tell them
Grouping = Callable[[Sequence[PlannedTrial]], Sequence[Sequence[PlannedTrial]]]
Starter = Callable[[Sequence[PlannedTrial], int, Mapping[str, int]], Handle]
Finder = Callable[[TrialState, PlannedTrial], Handle | None]


class TrialSource(Protocol):
    """A source of trials: a grid, or a search that decides from what it was told."""

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        """Returns trials to run now; none where it waits for results, or has no more."""
        ...

    def tell(self, trial: PlannedTrial, state: TrialState) -> None:
        """Takes note of a trial that has ended: done, failed, cancelled or interrupted."""
        ...

    def look(self) -> None:
        """Looks at what runs, at every turn; trials that are not worth it are cancelled in the
        ledger.
        """
        ...


class Grid:
    """A source of trials that are all known: each is given out once."""

    def __init__(self, trials: Iterable[PlannedTrial], whole: bool = False):
        """Takes the trials; with `whole` all are given out at once, to be grouped."""
        self._waiting, self._whole = collections.deque(trials), whole

    def ask(self, free_slots: int) -> list[PlannedTrial]:
        count = len(self._waiting) if self._whole else min(free_slots, len(self._waiting))
        return [self._waiting.popleft() for _ in range(count)]

    def tell(self, trial: PlannedTrial, state: TrialState) -> None:
        """Ignores it: nothing depends on a result."""

    def look(self) -> None:
        """Ignores it, as `tell`."""


@dataclasses.dataclass(frozen=True)
class SweepLimits:
    """Bounds of a sweep; see `config/sweep_options.py`."""

    timeout: float | None = None
    retries: int = 2
    stop_on_error: bool = False


@dataclasses.dataclass
class RunningJob:
    """A process with its trials.

    Attributes:
      ends: why it was asked to end: timeout | cancelled | stopped; None: it was not.
      asked: when.
    """

    trials: tuple[PlannedTrial, ...]
    slot: int
    attempts: Mapping[str, int]
    handle: Handle
    began: float
    ends: str | None = None
    asked: float = 0.0


def one_by_one(trials: Sequence[PlannedTrial]) -> list[tuple[PlannedTrial, ...]]:
    """Returns each trial as a job of its own."""
    return [(one,) for one in trials]


class Scheduler:
    """The loop over slots."""

    def __init__(
        self,
        ledger: TrialLedger,
        source: TrialSource,
        slots: int,
        start: Starter,
        find: Finder,
        limits: SweepLimits = SweepLimits(),
        *,
        group: Grouping = one_by_one,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
        watch: Callable[[Scheduler], None] = lambda scheduler: None,
    ):
        """Takes what a sweep is made of.

        Args:
          slots: jobs at a time, numbered from 0.
          start: starts a process for trials on a slot, with the attempts that it may claim.
          find: the living process of a state that an earlier parent left.
          group: which of several waiting trials share a process.
          watch: is shown the scheduler at every turn.
        """
        self.ledger, self.source, self.slots, self.limits = ledger, source, slots, limits
        self._start, self._find, self._group = start, find, group
        self._clock, self._wait, self._watch = clock, wait, watch
        self.running: list[RunningJob] = []
        self.queue: collections.deque[tuple[PlannedTrial, ...]] = collections.deque()
        self.failed = self.full = False
        self.stops = 0  # how often somebody asked for the end; the second time is at once
        self._again: collections.Counter[str] = collections.Counter()

    # --- the loop
    # ----------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Runs until nothing runs and nothing comes, or until it was asked to stop.

        Raises JaxsftError where the ledger cannot be written; processes go on then (`close`).
        """
        while True:
            self._obey()
            self._reap()
            self.source.look()
            self._expire()
            self._fill()
            self._watch(self)
            if not self.running and (self._ending or not self.queue):
                return
            self._wait(POLL)

    @property
    def _ending(self) -> bool:
        """Returns whether nothing more is started."""
        return bool(self.stops or self.full or (self.failed and self.limits.stop_on_error))

    def stop(self) -> None:
        """Asks for the end: trials write checkpoints and are interrupted; again: at once."""
        self.stops += 1

    def close(self, grace: float = GRACE) -> None:
        """Ends all processes, gently at first, whatever the ledger says."""
        for job in self.running:
            job.handle.stop()
        end = self._clock() + grace
        while any(job.handle.poll() is None for job in self.running) and self._clock() < end:
            self._wait(POLL)
        for job in self.running:
            job.handle.kill()

    # --- what an earlier parent left
    # ----------------------------------------------------------------------------------------------
    def adopt(self, trials: Iterable[PlannedTrial]) -> None:
        """Takes over the trials that run by the ledger; those whose process is gone are written
        down as interrupted, and can be started again.
        """
        jobs: dict[object, list[PlannedTrial]] = {}
        handles, states = {}, self.ledger.states()
        for trial in trials:
            state = states.get(trial.id)
            if state is None or state.status not in BUSY:
                continue
            handle = self._find(state, trial)
            if handle is not None:
                # of trials that nobody has claimed yet only a cluster knows which are one job
                process = (state.host, state.pid, state.start) if state.pid else (trial.id,)
                process = getattr(handle, "name", "") or process
                jobs.setdefault(process, []).append(trial)
                handles[process] = handle
                continue
            with self.ledger.locked() as now:
                # its worker may have claimed it a moment ago
                if now[trial.id] == state:
                    self._write("interrupted", trial, state.attempt, message="its process is gone")
                    continue
            self.adopt([trial])
        for process, members in jobs.items():
            state = states[members[0].id]
            attempts = {one.id: states[one.id].attempt for one in members}
            slot = state.slot if state.slot is not None else self.slots
            began = self._clock() if state.until is None else state.until - LEASE
            self.running.append(RunningJob(tuple(members), slot, attempts, handles[process], began))

    # --- starting
    # ----------------------------------------------------------------------------------------------
    def _fill(self) -> None:
        """Starts jobs on the free slots."""
        while not self._ending and (free := self._free()):
            if not self.queue:
                self.queue.extend(tuple(job) for job in self._group(self.source.ask(len(free))))
            if not self.queue:
                return
            self._begin(self.queue.popleft(), free[0])

    def _free(self) -> list[int]:
        taken = {job.slot for job in self.running}
        return [slot for slot in range(self.slots) if slot not in taken]

    def _begin(self, trials: Sequence[PlannedTrial], slot: int) -> None:
        attempts = {one.id: self._lease(one, slot) for one in trials}
        trials = tuple(one for one in trials if attempts[one.id])
        if not trials:
            return
        mine = {one.id: attempts[one.id] for one in trials}
        try:
            handle = self._start(trials, slot, mine)
        except OSError as error:
            message = f"cannot start a process ({error.strerror or error})"
            for one in trials:
                self._after(one, self._fail(one, mine[one.id], "infrastructure", message))
            return
        self.running.append(RunningJob(trials, slot, mine, handle, self._clock()))

    def _lease(self, trial: PlannedTrial, slot: int) -> int:
        """Leases a trial; returns the number of the attempt, 0 where it is not to be started."""
        with self.ledger.locked() as states:
            state = states.get(trial.id) or TrialState(trial.id, trial.number)
            again = state.status == "failed" and state.kind == "infrastructure"
            if state.status not in ("planned", "interrupted") and not again:
                return 0
            attempt = state.attempt + 1
            self._write("leased", trial, attempt, until=self._clock() + LEASE, slot=slot)
            return attempt

    def _write(self, event: str, trial: PlannedTrial, attempt: int, **about: object) -> None:
        self.ledger.write(event, trial.id, trial.number, attempt, **about)

    # --- ending
    # ----------------------------------------------------------------------------------------------
    def _obey(self) -> None:
        """Ends jobs where the end was asked for, by a signal or a full disk."""
        if not self.stops and not self.full:
            return
        for job in self.running:
            if job.ends != "stopped":
                self._end(job, "stopped")
            if self.stops > 1:
                job.handle.kill()

    def _end(self, job: RunningJob, why: str) -> None:
        job.ends, job.asked = why, self._clock()
        job.handle.stop()

    def _expire(self) -> None:
        """Ends jobs whose time is up, and those that were cancelled."""
        states = self.ledger.states()
        for job in self.running:
            if getattr(job.handle, "queues", False) and all(
                states[one.id].status == "leased" for one in job.trials
            ):
                job.began = self._clock()  # it waits in a queue
            late = self.limits.timeout is not None and (
                self._clock() - job.began > self.limits.timeout * len(job.trials)
            )
            found = {states[one.id].status for one in job.trials}
            unwanted = found <= set(ENDED) and not found.isdisjoint(("cancelled", "superseded"))
            if job.ends is None and (late or unwanted):
                self._end(job, "timeout" if late else "cancelled")
            elif job.ends in ("timeout", "cancelled") and self._clock() - job.asked > GRACE:
                job.handle.kill()

    def _reap(self) -> None:
        """Writes down what became of the jobs whose process has ended."""
        ended = [(job, code) for job in self.running if (code := job.handle.poll()) is not None]
        for job, code in ended:
            self.running.remove(job)
            self.full |= code == FULL
            for trial in job.trials:
                self._settle(job, trial, code)

    def _settle(self, job: RunningJob, trial: PlannedTrial, code: int) -> None:
        """Writes down what became of a trial, where its worker did not, and starts it again where
        it was not its own fault.
        """
        attempt = job.attempts[trial.id]
        state = self.ledger.states()[trial.id]
        if state.attempt != attempt:
            return
        if state.status == "interrupted" and job.ends == "timeout":
            state = self._told(trial, attempt, code, "timeout")
        elif state.status in BUSY:
            state = self._told(trial, attempt, code, job.ends)
        self._after(trial, state, job.ends)

    def _after(self, trial: PlannedTrial, state: TrialState, ends: str | None = None) -> None:
        """Puts a trial behind the others once more where its end was not its own fault, and tells
        its source of any other end.
        """
        lost = state.status == "interrupted" or state.kind == "infrastructure"
        if lost and state.status in ("failed", "interrupted") and ends is None:
            self._again[trial.id] += 1
            if max(state.lost, self._again[trial.id]) <= self.limits.retries and not self._ending:
                self.queue.append((trial,))
                return
        self.failed |= state.status == "failed"
        self.source.tell(trial, state)

    def _told(self, trial: PlannedTrial, attempt: int, code: int, ends: str | None) -> TrialState:
        """Writes what a worker could not say of its end, and returns the state after it."""
        if ends == "timeout":
            limit = f"{self.limits.timeout:g} s"
            return self._fail(trial, attempt, "timeout", f"was stopped after {limit}", code)
        if ends == "stopped" or code == UNKNOWN:
            message = "was stopped" if ends else "its process is gone"
            self.ledger.append(
                "interrupted", trial.id, trial.number, attempt, message=message, lost=not ends
            )
            return self.ledger.states()[trial.id]
        number = -code if code < 0 else code - KILLED
        if number > 0:
            killed = f"was killed by signal {number}"
            return self._fail(trial, attempt, "infrastructure", killed, code)
        return self._fail(trial, attempt, "error", f"ended with code {code} and no word", code)

    def _fail(
        self, trial: PlannedTrial, attempt: int, kind: str, message: str, code: int | None = None
    ) -> TrialState:
        log = f"{trial.run_dir.parent.name}/{trial.beside('.log').name}"
        about = {"kind": kind, "message": message, "code": code, "log": log}
        self.ledger.append("failed", trial.id, trial.number, attempt, **about)
        return self.ledger.states()[trial.id]


def unfinished(
    states: Mapping[str, TrialState], trials: Iterable[PlannedTrial], retries: int = 0
) -> list[PlannedTrial]:
    """Returns the trials that are still to be started, in their order: those that were never run,
    were interrupted, or were lost no more than `retries` times.
    """
    waits = lambda state: (
        state.status in ("planned", "interrupted")
        or (state.status == "failed" and state.kind == "infrastructure" and state.lost <= retries)
    )
    return [one for one in trials if one.id in states and waits(states[one.id])]
