"""Many trainings as one compiled program: which can be one, and `train_stack`, which leaves in each
run directory what the training would have left there alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import progress as stages
from jaxsft import rundir
from jaxsft.config import compose
from jaxsft.config.adapters import NoAdapter
from jaxsft.config.durations import parse
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.sharding import hosts, platforms
from jaxsft.sharding import mesh as meshes
from jaxsft.training import device, loop, recorder, setup
from jaxsft.training.hyper import free, program_key
from jaxsft.training.recorder import Recorder, Result
from jaxsft.training.session import Apart
from jaxsft.training.stacked_session import APART, StackedSession
from jaxsft.training.trial import Trial

# `(number of the config, event, facts)`; true of a metric: this trial is to end now
OnEvent = Callable[[int, str, Mapping[str, Any]], Any]
# of any session: the seeds, and what only the host of a trial reads
OF_TRIAL = ("run_dir", "seed", "evaluation.patience", "train.until")
# Newton-Schulz steps and factored moments see the shape of a matrix: one that is filled up with
# zeros would be another
SEES_SHAPES = ("muon", "adafactor")
DURATIONS = ("evaluation.every", "checkpoint.every", "train.log_every")
# places of tokens in a step that keep a device busy: about where its time begins to grow with them
FULL = {"cpu": 256, "gpu": 16384, "tpu": 16384}


def stack_key(config: Config) -> str:
    """Returns a hash that configs share which can train as one program.

    It is `program_key` and what trials read together: data, clock, places of checkpoints. A config
    that cannot be stacked has a key that no other has.

    Raises:
      JaxsftError: anything that is wrong with the config.
    """
    return _key(setup.resolve(config))


def _key(config: Config) -> str:
    """Returns the key of a resolved config."""
    values = compose.flat(compose.to_dict(config))
    if why := alone(config):
        return rundir.sha256_json({"alone": why, "options": values})
    apart = {*free(config), *OF_TRIAL, *_apart(config)}
    shared = {name: value for name, value in values.items() if name not in apart}
    program = program_key(_with_one_rank(config) if "adapter.rank" in apart else config)
    return rundir.sha256_json({"program": program, "shared": shared})


def alone(config: Config) -> str:
    """Returns why a resolved config cannot be trained in a stack; empty where it can."""
    if config.hosts.count != 1 and hosts.many():
        return "several processes share its mesh"
    if math.prod(getattr(config.mesh, axis) for axis in meshes.AXES) > 1:
        return "its mesh has several devices"
    if config.profile:
        return "profile= traces the device, of which trials have one"
    if config.trackers.use:
        return "trackers know one run of a process"
    return ""


def _apart(config: Config) -> set[str]:
    """Returns the options that may differ in a stack of this config, beside what is traced."""
    apart = set(APART)
    percent = [name for name in DURATIONS if parse(_value(config, name), name)[1] == "%"]
    if percent:  # what is due at a step would differ
        apart.discard("train.duration")
    if config.optim.name in SEES_SHAPES:
        apart.discard("adapter.rank")
    return apart if _draws_base(config) else {*apart, "seeds.init"}


def _draws_base(config: Config) -> bool:
    """Returns whether weights that are not trained are drawn from `seeds.init`."""
    frozen = config.adapter.name != NoAdapter.name or config.train.freeze
    given = config.train.init_from or (config.model.pretrained and config.model.init != "scratch")
    return not given and (bool(frozen) or config.train.backbone == "cached")


def _value(config: Config, option: str) -> Any:
    group, name = option.split(".")
    return getattr(getattr(config, group), name)


def _with_one_rank(config: Config) -> Config:
    if not hasattr(config.adapter, "rank"):
        return config
    return dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, rank=1))


# --- training
# --------------------------------------------------------------------------------------------------
@dataclasses.dataclass(eq=False)
class Entry:
    """One of the configs that are trained: as asked and resolved, its directory, its outcome.

    Attributes:
      metric: `evaluation.metric` as the data decide it; empty where it is not known.
    """

    number: int
    asked: Config
    config: Config
    closing: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    records: Recorder | None = None
    trial: Trial | None = None
    outcome: Result | JaxsftError | None = None
    metric: str = ""


def ignored(number: int, event: str, facts: Mapping[str, Any]) -> Any:
    """Ignores an event."""


def train_stack(
    configs: Sequence[Config],
    on_event: OnEvent = ignored,
    write_more: Callable[[Path], Any] = lambda run_dir: None,
) -> list[Result | JaxsftError]:
    """Runs, or continues, trainings, those of one `stack_key` as one program.

    Each has a `run_dir` of its own and leaves there what it would have left alone. What is too much
    for the device at once is cut into stacks that train one after another.

    Args:
      on_event: is given the number of a config, an event and its facts: `started` (run_dir, step),
        `metric` (name, value, step), `done` (run_dir, metric, value), `failed` (code, message),
        `interrupted` (run_dir); the last three, as soon as it has ended, with its `outcome`. What
        is true of a metric ends that trial early.
      write_more: as of `loop.train`.

    Returns:
      The result of each config, or why it has none.
    """
    entries, groups = [], {}
    for number, asked in enumerate(configs):
        entry = Entry(number, asked, asked)
        entries.append(entry)
        try:
            if asked.run_dir is None:
                raise ConfigError("run_dir: trials of a stack need one each; give run_dir=FOLDER")
            entry.config = setup.resolve(asked)
            groups.setdefault(_key(entry.config), []).append(entry)
        except JaxsftError as error:
            entry.outcome = error
            _tell(entry, on_event)
    for group in groups.values():
        if (stopped_by := _signal(entries)) is None:
            _train_group(group, on_event, write_more)
            continue
        for entry in group:
            entry.outcome = Result(Path(entry.asked.run_dir), {}, stopped_by)
            _tell(entry, on_event)
    return [entry.outcome for entry in entries]


def _train_group(entries: list[Entry], on_event: OnEvent, write_more: Callable) -> None:
    """Trains configs of one key; one that turns out to be no part of the stack by itself."""
    if len(entries) > 1:
        hosts.start(entries[0].config.hosts)
        platforms.devices()
        device.keep_programs(entries[0].config.compilation_cache)
        device.keep_memory()
        stacks = Stacks(entries, on_event, write_more)
        try:
            with stages.ended():
                stacks.train()
        except JaxsftError as error:  # of what all of them have, such as their data
            stacks.fail(stacks.left, error)
        finally:
            for entry in entries:
                entry.closing.close()
    for entry in entries:
        if entry.outcome is None and (stopped_by := _signal(entries)) is not None:
            entry.outcome = Result(Path(entry.asked.run_dir), {}, stopped_by)
            _tell(entry, on_event)
        if entry.outcome is None:
            own = lambda event, facts, entry=entry: on_event(entry.number, event, facts)
            try:
                entry.outcome = loop.train(entry.asked, write_more, own)
            except JaxsftError as error:
                entry.outcome = error
            _tell(entry, on_event)


def _signal(entries: Sequence[Entry]) -> int | None:
    """Returns the number of a signal that has stopped one of the trainings, None without one."""
    found = [one.outcome.stopped_by for one in entries if isinstance(one.outcome, Result)]
    return next((number for number in found if number is not None), None)


def _tell(entry: Entry, on_event: OnEvent) -> None:
    """Tells how a training ended."""
    outcome = entry.outcome
    if isinstance(outcome, JaxsftError):
        facts = {"code": type(outcome).__name__, "message": str(outcome), "outcome": outcome}
        on_event(entry.number, "failed", facts)
        return
    facts = {"run_dir": str(outcome.run_dir), "outcome": outcome}
    if outcome.stopped_by is not None:
        on_event(entry.number, "interrupted", facts)
        return
    metric = entry.metric or compose.read(outcome.run_dir / "config.yaml").evaluation.metric
    facts |= {"metric": metric, "value": outcome.numbers.get(metric)}
    on_event(entry.number, "done", facts)


class Stacks:
    """The trainings of one key: one session, and as few stacks as the device has room for."""

    def __init__(self, entries: list[Entry], on_event: OnEvent, write_more: Callable):
        """Stores what is trained, and who is told of it."""
        self.entries, self.on_event, self.write_more = entries, on_event, write_more
        self.alone: list[Entry] = []  # that are no part of it after all
        self.session: StackedSession | None = None
        self.ran = False  # one of its stacks

    @property
    def left(self) -> list[Entry]:
        """Returns the trainings that have no outcome yet."""
        return [e for e in self.entries if e.outcome is None and e not in self.alone]

    def fail(self, entries: Sequence[Entry], error: JaxsftError) -> None:
        """Gives trainings an error as their outcome."""
        for entry in entries:
            entry.outcome = error
            # a directory in which nothing was written goes with it, as of a training alone
            entry.closing.__exit__(type(error), error, None)
            _tell(entry, self.on_event)

    def each(self, entries: Sequence[Entry], do: Callable[[Entry], Any]) -> None:
        """Calls `do` for each training; where it fails, the error is its outcome."""
        for entry in entries:
            try:
                do(entry)
            except JaxsftError as error:
                self.fail([entry], error)

    def train(self) -> None:
        """Trains all of them. Raises JaxsftError for what is wrong with all."""
        self.each(self.left, self._open)
        if not self.left:
            return
        self.session = session = StackedSession(self.left[0].config, self._quarantine)
        self.each(self.left, self._make)
        session.forget_starts()
        if self.left:
            session.cache_backbone()
        self.each(self.left, lambda entry: entry.records.resume())
        for entry in self.left:
            session.park(entry.trial)
        stopped_by = None
        # those of a stack that was killed while it saved have not all reached the same step
        for start in sorted({entry.records.start for entry in self.left}):
            here = [entry for entry in self.left if entry.records.start == start]
            for one in self._cut(here):
                if stopped_by is None:
                    stopped_by = self._run(one)
        for entry in self.left if stopped_by is not None else ():
            self._end(entry, Result(entry.records.run_dir, {}, stopped_by))

    def _open(self, entry: Entry) -> None:
        """Takes the run directory of a training."""
        opened = recorder.opened(entry.config, entry.asked)
        entry.records, entry.config = entry.closing.enter_context(opened)
        entry.records.beside = True
        number = entry.number
        entry.records.on_event = lambda event, facts: self.on_event(number, event, facts)
        entry.records.on_end = lambda outcome: self._ended(entry, outcome)

    def _quarantine(self, records: Any) -> None:
        for entry in self.left:
            entry.records.quarantine(records)

    def _make(self, entry: Entry) -> None:
        """Makes the trial of a training, and compares it with what its directory holds."""
        session = self.session
        entry.metric = session.config.evaluation.metric
        evaluation = dataclasses.replace(entry.config.evaluation, metric=entry.metric)
        config = dataclasses.replace(entry.config, evaluation=evaluation)
        if config.run_dir == session.config.run_dir:
            config = session.config
        try:
            entry.trial = session.trial(config)
        except Apart as error:
            print(f"{entry.records.run_dir}: trains alone: {error}", file=sys.stderr)
            self.alone.append(entry)
            entry.closing.close()
            return
        session.park(entry.trial)
        if (done := entry.records.open(session, entry.trial)) is not None:
            self._end(entry, done)

    def _cut(self, entries: list[Entry]) -> list[list[Entry]]:
        """Cuts trainings into stacks of about one size that the device has room for."""
        if not entries:
            return []
        most = most_at_once(self.session, [entry.trial for entry in entries])
        count = -(-len(entries) // most)
        return [
            entries[i * len(entries) // count : (i + 1) * len(entries) // count]
            for i in range(count)
        ]

    def _run(self, entries: list[Entry]) -> int | None:
        """Trains a stack. Returns the number of a signal that ended it, None without one."""
        session, trials = self.session, [entry.trial for entry in entries]
        if self.ran:  # the time of the stack before is not theirs
            for entry in entries:
                entry.records.began = time.time()
        self.ran = True
        session.compiled = session.compile_stack(trials)
        for entry in entries:
            entry.records.announce(banner_too=entry is entries[0])
        print(gain(session, trials), flush=True)
        try:
            outcomes = loop.run(session, trials, [entry.records for entry in entries])
        finally:
            for entry in entries:
                if entry.outcome is None:
                    entry.records.close()
        session.drop()
        return (
            max((o.stopped_by or 0 for o in outcomes if isinstance(o, Result)), default=0) or None
        )

    def _ended(self, entry: Entry, outcome: Result | JaxsftError) -> None:
        """Closes what a trial of the stack wrote to, and tells its end."""
        entry.records.close()
        if isinstance(outcome, JaxsftError):
            self.fail([entry], outcome)
        else:
            self._end(entry, outcome)

    def _end(self, entry: Entry, result: Result) -> None:
        """Writes what comes with a complete run, and gives its directory back."""
        mirror = entry.records.mirror
        try:
            if result.stopped_by is None and hosts.first():
                self.write_more(result.run_dir)
                mirror.push()
        except JaxsftError as error:
            self.fail([entry], error)
            return
        entry.outcome = dataclasses.replace(result, mirror=mirror)
        entry.trial = None
        entry.closing.close()
        _tell(entry, self.on_event)


def most_at_once(session: StackedSession, trials: Sequence[Trial]) -> int:
    """Returns how many of these trials the device has room for together, and tells it where these
    are not all.
    """
    most, room = len(trials), device.room(session.mesh, session.frozen)
    if room is not None and session.memory(trials) > room:
        one = session.memory(trials[:1])
        more = max(session.memory(trials[:2]) - one, 1)
        most = min(max(1 + (room - one) // more, 1), most - 1)
        print(
            f"{len(trials)} trials do not fit into {room / 2**30:,.1f} GiB: {one / 2**20:,.0f}"
            f" MiB for one, {more / 2**20:,.0f} for each more; {most} at a time",
            file=sys.stderr,
        )
    return most


def gain(session: StackedSession, trials: Sequence[Trial]) -> str:
    """Returns a sentence about what a stack is expected to bring."""
    batch = session.batches["train"][0]
    places = int(np.size(batch.tokens)) + (
        batch.source is not None and np.size(batch.source.tokens)
    )
    kind = session.mesh.devices.flat[0].platform
    full = FULL.get(kind, FULL["gpu"])
    times = min(len(trials), max(1.0, full / places))
    return (
        f"{len(trials)} trials are one program: a step of each has {places:,} places, and about"
        f" {full:,} keep a {kind} busy: expect up to {times:,.1f} times the steps a second of one"
        " trial after another, beside one start and one compilation for all"
    )
