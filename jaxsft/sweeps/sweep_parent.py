"""The parent of a sweep: makes or takes its folder, plans all trials, runs them on the slots of
this machine, and says in the end what became of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.runlock import RunLock
from jaxsft.sweeps import (
    cluster_jobs,
    device_slots,
    grouping,
    processes,
    sweep_end,
    sweep_plan,
    work_order,
)
from jaxsft.sweeps.live_table import LiveTable, caption
from jaxsft.sweeps.processes import Child, Handle
from jaxsft.sweeps.scheduler import (
    Finder,
    Grid,
    Grouping,
    Scheduler,
    Starter,
    SweepLimits,
    TrialSource,
    one_by_one,
    unfinished,
)
from jaxsft.sweeps.sweep_plan import PlannedTrial, SweepPlan
from jaxsft.sweeps.trial_ledger import ENDED, TrialLedger, TrialState

WORKER = (sys.executable, "-m", "jaxsft.sweeps.worker")
# words of a command whose trials train together, also when it goes on
STACKED = frozenset({"hydra/launcher=stacked", "sweep.stack=true"})
BUSY_TEXT = "runs this sweep; wait for it, or choose another directory"


@dataclasses.dataclass(frozen=True)
class WantedTrial:
    """A trial that a command asks for, before it has a number: what differs, and its config."""

    overrides: tuple[str, ...]
    config: Config


@dataclasses.dataclass(frozen=True)
class WantedSweep:
    """The sweep that a command asks for.

    Attributes:
      place: the folder; None: a new one in `runs/`.
      given: the words of the command, as it can be typed again.
      fixed: the overrides that all trials have.
      swept: the options that differ.
      study: of an experiment; None: none.
      stem: of the name of a new folder; None: by the task.
    """

    place: str | None
    given: tuple[str, ...]
    fixed: tuple[str, ...]
    swept: tuple[str, ...]
    trials: tuple[WantedTrial, ...]
    study: Mapping[str, Any] | None = None
    stem: str | None = None


# --- planning
# --------------------------------------------------------------------------------------------------
def begin(
    wanted: WantedSweep,
    options: SweepConfig,
    worker: Sequence[str] = (),
    group: Grouping = one_by_one,
) -> int:
    """Plans a sweep, or takes one that was begun, and runs it; returns the exit code.

    Args:
      worker: the program of a job, behind which stand the folder and the numbers of its trials;
        empty: `WORKER`.
      group: which trials share a process.

    Raises:
      ConfigError: the folder holds other trials, and `sweep.changed` does not say what to do.
      JaxsftError: another process runs this sweep, or the disk is full.
    """
    code = sweep_plan.code_now()
    data = fingerprints([one.config for one in wanted.trials])
    stem = wanted.stem or f"{wanted.trials[0].config.task.name}-sweep"
    folder = rundir.create(wanted.place, stem=stem)
    with RunLock(folder, BUSY_TEXT):
        if (folder / "config.yaml").exists():
            raise ConfigError(f"{folder}: holds a run, not a sweep; choose another directory")
        fresh = not (folder / sweep_plan.NAME).exists()
        plan = (
            SweepPlan(
                folder,
                wanted.given,
                wanted.swept,
                wanted.study,
                (),
                code,
                data,
                str(Path.cwd()),
                sweep_plan.moment(),
                wanted.fixed,
            )
            if fresh
            else SweepPlan.read(folder)
        )
        changed = "add" if fresh else options.changed
        plan = settled(plan, wanted, changed, code, data)
        return run(plan, options, worker=worker, group=group)


def resume(place: Path, options: SweepConfig, again: Sequence[int] | None = None) -> int:
    """Runs what is left of a sweep as it was planned, and returns the exit code.

    Args:
      again: failed trials that are run once more: these numbers, empty for all; None: as the
        options say.

    Raises:
      ConfigError: data or code are not those that it was planned with.
      JaxsftError: another process runs this sweep, or the disk is full.
    """
    with at_home(SweepPlan.read(place)) as plan, RunLock(plan.folder, BUSY_TEXT):
        check_unchanged(plan, options)
        ledger = TrialLedger(plan.folder)
        write_missing(plan, ledger)
        if again is not None:
            for number in again:
                plan.by_number(number)
            retry(plan, ledger, again)
        return run(plan, options)


def check_unchanged(plan: SweepPlan, options: SweepConfig) -> None:
    """Raises ConfigError where data or code are not those that a sweep was planned with."""
    now = {name: sweep_plan.fingerprint(name) for name in plan.data}
    changed = [name for name, found in now.items() if found != plan.data[name]]
    if plan.code.get("source") != sweep_plan.code_now()["source"]:
        changed.append("the code of jaxsft")
    if changed and options.changed != "keep":
        raise ConfigError(
            f"{plan.folder}: {', '.join(changed[:3])} changed since it was planned;"
            " sweep.changed=keep goes on all the same"
        )


@contextlib.contextmanager
def at_home(plan: SweepPlan) -> Iterator[SweepPlan]:
    """Yields a plan in the directory that it was made in, where its relative paths start.

    Raises ConfigError where that is not on this machine.
    """
    home = Path(plan.cwd or os.curdir)
    if not home.is_dir():
        raise ConfigError(f"{plan.folder}: was planned in {home}, which is not here")
    if home.resolve() == Path.cwd().resolve():
        yield plan
        return
    folder = plan.folder.resolve()
    with contextlib.chdir(home):
        yield SweepPlan.read(folder)


def cancel(place: Path, numbers: Sequence[int] | None) -> list[int]:
    """Writes down that trials are not to be run, and returns their numbers; a parent that runs
    them now ends them.

    Args:
      numbers: of trials; None: all that have not ended.

    Raises ConfigError where there is no such trial.
    """
    plan, out = SweepPlan.read(place), []
    chosen = plan.trials if numbers is None else [plan.by_number(n) for n in numbers]
    ledger = TrialLedger(plan.folder)
    for one in chosen:
        with ledger.locked() as states:
            state = states.get(one.id) or TrialState(one.id, one.number)
            if state.status not in ENDED:
                ledger.write("cancelled", one.id, one.number, state.attempt)
                out.append(one.number)
    return out


def adding(options: SweepConfig) -> SweepConfig:
    """Returns the options of a sweep to whose trials others are added."""
    return dataclasses.replace(options, changed="add")


def fingerprints(
    configs: Sequence[Config], known: Mapping[str, str] = types.MappingProxyType({})
) -> dict[str, str]:
    """Returns the fingerprint of every file that the configs name; those that are `known` are not
    read again. Raises DataError.
    """
    named = dict.fromkeys(place for config in configs for place in sweep_plan.places(config))
    of = lambda place: known[place] if place in known else sweep_plan.fingerprint(place)
    return {place: found for place in named if (found := of(place))}


def id_of(plan: SweepPlan, wanted: WantedTrial) -> str:
    """Returns the id that a trial would have in a plan. Raises DataError."""
    data = fingerprints([wanted.config], plan.data)
    return sweep_plan.trial_id(wanted.config, data, plan.code)


def settled(
    plan: SweepPlan,
    wanted: WantedSweep,
    changed: str,
    code: Mapping[str, Any],
    data: Mapping[str, str],
) -> SweepPlan:
    """Returns the plan with what a command asks for, written; trials that it no longer asks for are
    superseded where that was asked for.

    Raises ConfigError where the trials are others and nobody said what to do.
    """
    ledger = TrialLedger(plan.folder)
    old = {one.id: one for one in plan.trials}
    ids = [sweep_plan.trial_id(one.config, data, code) for one in wanted.trials]
    active = {i for i in old if _status(ledger, i) not in ("superseded", "cancelled")}
    cancelled = {i for i in old if _status(ledger, i) == "cancelled"}
    if not plan.trials or set(ids) - cancelled != active:
        as_planned = {sweep_plan.trial_id(t.config, plan.data, plan.code) for t in wanted.trials}
        same = as_planned - cancelled == active
        if changed == "keep" and same:
            write_missing(plan, ledger)
            return plan
        if changed not in ("add", "supersede"):
            raise ConfigError(_difference(plan, wanted, ids, active, same, code, data))
    swept = tuple(dict.fromkeys([*plan.swept, *wanted.swept]))
    plan = grown(dataclasses.replace(plan, swept=swept), wanted.trials, code, data)
    if changed == "supersede":
        _supersede(plan, ledger, set(ids))
    write_missing(plan, ledger, set(ids))
    return plan


def grown(
    plan: SweepPlan,
    wanted: Sequence[WantedTrial],
    code: Mapping[str, Any],
    data: Mapping[str, str],
) -> SweepPlan:
    """Returns the plan with further trials, written; those that it has already are not added.

    Numbers go on behind those of the plan, so that no directory is used twice.
    """
    trials = {one.id: one for one in plan.trials}
    for one in wanted:
        name = sweep_plan.trial_id(one.config, data, code)
        number = max((t.number for t in trials.values()), default=-1) + 1
        if name not in trials:
            trials[name] = sweep_plan.planned(plan.folder, number, name, one.overrides, one.config)
    more = len(trials) > len(plan.trials)
    merged = {"data": {**plan.data, **data}, "code": dict(code)} if more else {}
    plan = dataclasses.replace(plan, trials=tuple(trials.values()), **merged)
    plan.write()
    return plan


def _status(ledger: TrialLedger, name: str) -> str | None:
    state = ledger.states().get(name)
    return None if state is None else state.status


def _supersede(plan: SweepPlan, ledger: TrialLedger, wanted: set[str]) -> None:
    """Writes down which trials count no more, and which one took the place of each."""
    by = {one.overrides: one.id for one in plan.trials if one.id in wanted}
    for one in plan.trials:
        if one.id not in wanted and _status(ledger, one.id) != "superseded":
            state = ledger.states().get(one.id) or TrialState(one.id, one.number)
            ledger.append("superseded", one.id, one.number, state.attempt, by=by.get(one.overrides))


def write_missing(plan: SweepPlan, ledger: TrialLedger, wanted: set[str] = frozenset()) -> None:
    """Writes down trials of the plan that the ledger does not have, or that are wanted again, and
    finished ones whose results are gone.
    """
    states = ledger.states()
    for one in plan.trials:
        state = states.get(one.id)
        gone = state is not None and state.status == "done" and not one.finished
        again = state is not None and state.status == "superseded" and one.id in wanted
        if state is None or gone or again:
            attempt = 0 if state is None else state.attempt
            why = "its results are gone" if gone else None
            ledger.append("planned", one.id, one.number, attempt, message=why)
            if again and state.run_dir is not None and one.finished:
                about = {
                    key: getattr(state, key) for key in ("run_dir", "metric", "value", "seconds")
                }
                ledger.append("done", one.id, one.number, attempt, **about)


def _difference(
    plan: SweepPlan,
    wanted: WantedSweep,
    ids: Sequence[str],
    active: set[str],
    same: bool,
    code: Mapping[str, Any],
    data: Mapping[str, str],
) -> str:
    """Says in one sentence how the trials of a command differ from those of its folder."""
    if same:
        what = "the code is another one" if plan.code.get("source") != code["source"] else ""
        changed = [place for place in data if plan.data.get(place) != data[place]]
        what = f"{', '.join(changed[:3])} changed" if changed else what
        return (
            f"{plan.folder}: holds this sweep as it was planned before {what or 'a change'};"
            " sweep.changed=keep goes on with the planned trials all the same,"
            " sweep.changed=supersede runs all of them anew, or choose another directory"
        )
    new = [
        ",".join(one.overrides) or "one trial"
        for name, one in zip(ids, wanted.trials, strict=True)
        if name not in active
    ]
    gone = [one for one in plan.trials if one.id in active and one.id not in ids]
    told = [
        f"{len(new)} of the command ({new[0]}{' ...' if len(new) > 1 else ''}) are not in it"
        if new
        else "",
        f"{len(gone)} of it ({gone[0].name}{' ...' if len(gone) > 1 else ''}) are not in the"
        " command"
        if gone
        else "",
    ]
    return (
        f"{plan.folder}: holds a sweep of other trials: {' and '.join(filter(None, told))};"
        " sweep.changed=add runs those that are missing too, sweep.changed=supersede also takes"
        " those out that are not in the command, or choose another directory"
    )


# --- running
# --------------------------------------------------------------------------------------------------
def run(
    plan: SweepPlan,
    options: SweepConfig,
    source: TrialSource | None = None,
    worker: Sequence[str] = (),
    group: Grouping = one_by_one,
) -> int:
    """Runs what is left of a planned sweep, and returns the exit code; the caller holds its lock.

    Args:
      source: where trials come from; None: those of the plan. It plans a trial (`grown`, and
        `planned` in the ledger) before it gives it out.

    Raises JaxsftError where the disk is full or the ledger cannot be written.
    """
    ledger, options = TrialLedger(plan.folder), cluster_jobs.planned_options(plan, options)
    if options.failed == "retry":
        retry(plan, ledger)
    limits = SweepLimits(options.seconds, options.retries, options.on_error == "stop")
    starter, find, slots, where = _starter(plan, options, worker)
    with LiveTable(plan.trials, ledger.states()) as table:
        if options.stack or not STACKED.isdisjoint(plan.given):
            group = grouping.as_stacks
        scheduler = Scheduler(
            ledger, Grid(()), slots, starter, find, limits, group=group, watch=table
        )
        scheduler.adopt(plan.trials)
        left = unfinished(ledger.states(), plan.trials, options.retries)
        scheduler.source = source or Grid(left, whole=group is not one_by_one)
        print(
            f"sweep: {plan.folder} ({caption(plan.trials, ledger.states(), slots)};"
            f" {slots} at a time{where})",
            file=sys.stderr,
            flush=True,
        )
        with _signals(scheduler) as received:
            try:
                scheduler.run()
            except BaseException:
                scheduler.close()
                raise
    if scheduler.full:
        raise JaxsftError(
            f"{plan.folder}: the disk is full; make room, and the same command goes on"
        )
    if source is not None:
        plan = SweepPlan.read(plan.folder)
    return sweep_end.ended(plan, ledger, received[0] if received else None)


def retry(plan: SweepPlan, ledger: TrialLedger, numbers: Sequence[int] = ()) -> list[int]:
    """Plans failed trials, of these numbers or all, once more; returns their numbers."""
    out, states = [], ledger.states()
    for one in plan.trials:
        state = states.get(one.id)
        asked = one.number in numbers or not numbers
        if state is not None and asked and state.status in ("failed", "cancelled"):
            if state.status == "cancelled" and not numbers:
                continue
            ledger.append("planned", one.id, one.number, state.attempt)
            out.append(one.number)
    return out


def _starter(
    plan: SweepPlan, options: SweepConfig, worker: Sequence[str]
) -> tuple[Starter, Finder, int, str]:
    """Returns what starts jobs, what finds those of an earlier parent, how many run at a time, and
    words about where. Raises ConfigError where a cluster cannot be used.
    """
    cluster = cluster_jobs.opened(plan, options)
    if cluster is not None:
        made = cluster_jobs.ClusterStarter(plan, cluster)
        return made, made.find, cluster_jobs.slots(options), f", on {cluster.about}"
    slots = _slots(options)
    find = lambda state, trial: processes.find(state, trial.beside(".alive"))
    return WorkerStarter(plan, slots, worker or WORKER), find, len(slots), ""


def _slots(options: SweepConfig) -> list[device_slots.DeviceSlot]:
    return device_slots.shared(
        options.slots,
        options.gpus,
        os.environ,
        device_slots.cores(),
        device_slots.gpus(os.environ),
        device_slots.tpu_chips(os.environ),
    )


@dataclasses.dataclass(frozen=True)
class WorkerStarter:
    """Starts workers for trials of a plan on the slots of this machine.

    Attributes:
      command: the program, behind which stand the folder and the numbers of the trials.
    """

    plan: SweepPlan
    slots: Sequence[device_slots.DeviceSlot]
    command: Sequence[str]

    def __call__(
        self, trials: Sequence[PlannedTrial], slot: int, attempts: Mapping[str, int]
    ) -> Handle:
        """Returns the process. Raises OSError where the system starts none."""
        device = self.slots[slot]
        log = work_order.write_all(self.plan, trials, attempts, device.cores)
        words = [str(self.plan.folder), *(str(one.number) for one in trials)]
        return Child([*self.command, *words], log, {**os.environ, **device.env})


@contextlib.contextmanager
def _signals(scheduler: Scheduler) -> Iterator[list[int]]:
    """Stops the scheduler at Ctrl-C and SIGTERM; yields the signals that came."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        scheduler.stop()
        if len(received) == 1 and scheduler.running:
            print(
                "jaxsft: stopping; trials write a checkpoint first, once more ends them at once",
                file=sys.stderr,
                flush=True,
            )

    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us handles them
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
