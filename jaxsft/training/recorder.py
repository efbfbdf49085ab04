"""Writes one run directory, and reads it where a run goes on: what the run is, its checkpoints, its
numbers and its results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxsft import remote, rundir, seal
from jaxsft.config import compose, metric_names
from jaxsft.config.schema import Config
from jaxsft.data import file_records, hub, prepared, split_notes
from jaxsft.data.records import label_names
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.evaluation import dynamics, gaps, results
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.models import structure
from jaxsft.runlock import RunLock
from jaxsft.sharding import hosts
from jaxsft.sharding import mesh as meshes
from jaxsft.training import banner, device, manifest, pretrained, runs
from jaxsft.training.callbacks import Metrics, Progress
from jaxsft.training.checkpoint import Checkpoints, Damaged
from jaxsft.training.components import Components
from jaxsft.training.session import Session
from jaxsft.training.step import StepMetrics
from jaxsft.training.trial import Trial, terms_text


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run: its directory, the numbers of `result.json`, and how it ended."""

    run_dir: Path  # on this machine
    numbers: dict[str, float]
    stopped_by: int | None = None  # a signal, if it is unfinished
    # to the directory at a store, if it lies there: what is written into `run_dir` later must be
    # pushed
    mirror: remote.Mirror | None = None


def exit_code(result: Result) -> int:
    """Returns 0, or what a shell expects of a program that a signal stopped."""
    return 0 if result.stopped_by is None else 128 + int(result.stopped_by or signal.SIGINT)


def ignored(event: str, facts: Mapping[str, Any]) -> Any:
    """Ignores an event of a run."""


@contextlib.contextmanager
def opened(config: Config, asked: Config) -> Iterator[tuple[Recorder, Config]]:
    """Makes or takes the run directory of a config, and holds its lock.

    Yields its recorder, and the config with the precision that the run began with where `asked`
    leaves it open. What is refused before anything was written leaves no directory.

    Raises:
      ConfigError: another process does not see the directory, or it is of another config.
    """
    home = hosts.from_first_process(lambda: _home(config))
    run_dir = remote.working_copy(home, jax.process_index())
    if remote.is_remote(home):
        rundir.create(run_dir, stem="")
    if not run_dir.is_dir():
        raise ConfigError(
            f"run_dir={run_dir}: process {jax.process_index()} does not see it; it must lie where"
            " all processes do"
        )
    # a working copy of its own, or the one that all see
    mine = hosts.first() or remote.is_remote(home)
    with RunLock(run_dir) if mine else contextlib.nullcontext():
        try:
            remote.pull(home, run_dir)
            if hosts.first():
                rundir.sweep(run_dir)
            mirror = remote.Mirror(home, run_dir)
            config = manifest.kept(run_dir, asked, config)
            manifest.check_config(run_dir, config)
            yield Recorder(run_dir, mirror), config
        except JaxsftError:
            # refused before anything was written
            if mine and [p.name for p in run_dir.iterdir()] == [RunLock.NAME]:
                shutil.rmtree(run_dir)
            raise


def _home(config: Config) -> str:
    """Returns where the run directory lies; a local one is made.

    Raises ConfigError where the store cannot be reached from here.
    """
    if config.run_dir is not None and remote.is_remote(config.run_dir):
        remote.path(config.run_dir)
        return config.run_dir
    return str(rundir.create(config.run_dir, stem=config.task.name))


class Recorder:
    """The writer of one run directory, for one trial of a session.

    Attributes:
      on_event: as of `loop.train`.
      on_end: is told the result of the trial, or the error that ended it, while others go on.
      beside: whether other trials train beside it, so that what it tells begins with its name.
    """

    def __init__(self, run_dir: Path, mirror: remote.Mirror):
        self.run_dir, self.mirror, self.began = run_dir, mirror, time.time()
        self.session: Session | None = None
        self.trial: Trial | None = None
        self.start = 0  # the step from which this process goes on
        self.checkpoints: Checkpoints | None = None
        self.metrics: Metrics | None = None
        self.progress: Progress | None = None
        self.trace: device.ProfileTrace | None = None
        self.on_event: Callable[[str, Mapping[str, Any]], Any] = ignored
        self.on_end: Callable[[Result | JaxsftError], Any] = lambda outcome: None
        self.beside = False
        self.intervals: dict[str, Any] = {}  # the bounds of the results so far

    def quarantine(self, records: Mapping[str, file_records.Records]) -> None:
        """Writes the rows that were put aside, before too many of them may end the run."""
        if hosts.first():
            aside = {name: split.aside for name, split in records.items()}
            split_notes.write_quarantine(self.run_dir / "quarantine.jsonl", aside)

    # --- start
    # ----------------------------------------------------------------------------------------------
    @property
    def config(self) -> Config:
        """Returns the config of the trial."""
        return self.trial.config

    @functools.cached_property
    def components(self) -> Components:
        """Returns the components of the session, with the config of the trial."""
        return self.session.parts(self.config)

    def open(self, session: Session, trial: Trial) -> Result | None:
        """Compares the directory with a trial of a session.

        Returns the result of a run that has reached this very duration already, else None.

        Raises:
          ConfigError: data, tokenizer or template changed since the run was started.
        """
        self.session, self.trial = session, trial
        self.trace = device.ProfileTrace(self.config.profile, self.run_dir / "profile", trial.total)
        self._facts = manifest.manifest(self.components, session.digests)
        manifest.check_unchanged(self.run_dir, self.mirror.place, self._facts)
        healed = hosts.from_first_process(lambda: "\n".join(seal.heal(self.run_dir)))
        if healed:
            print(healed, file=sys.stderr)
        result = self._complete()
        if result is not None and healed:
            self._write_start(None)
        return result

    def _complete(self) -> Result | None:
        path = self.run_dir / "result.json"
        if (
            not path.exists()
            or compose.read(self.run_dir / "config.yaml").train.duration
            != self.config.train.duration
        ):
            return None
        if hosts.first():
            print(
                f"{self.mirror.place}: this run is complete; these are its numbers", file=sys.stderr
            )
        return Result(self.run_dir, rundir.read_json(path))

    def resume(self) -> None:
        """Writes what the run is, and gives the trial the state of the newest good checkpoint."""
        facts = manifest.named(self.run_dir, self._facts)
        self.checkpoints = Checkpoints(self.mirror.place, run=facts.get("run"))
        self.start = self._restore_newest()
        self._write_start(facts)

    def _restore_newest(self) -> int:
        """Returns the step that the trial goes on from. Raises ConfigError."""
        session, trial = self.session, self.trial
        found = self.checkpoints.restore_newest(session.state_shapes(trial))
        if found is None:
            return 0
        state, start = found[0], int(found[0].step)
        meta = rundir.Stored(found[1], f"{self.checkpoints.folder}: the meta of step {start}")
        trial.restore(state, meta, session.empty_window(trial))
        session.frozen = runs.with_fixed(session.frozen, meta, self.checkpoints, start)
        if meta["frozen"] != session.frozen_digest:
            raise ConfigError(
                f"run_dir={self.mirror.place}: the frozen weights are not those that this run was"
                " started with"
            )
        if start > trial.total:
            raise ConfigError(
                f"run_dir={self.mirror.place}: has trained {start} steps already, more than"
                f" train.duration={self.config.train.duration} ({trial.total} steps); give a"
                " longer one, or another run_dir="
            )
        return start

    def _write_start(self, facts: dict[str, Any] | None) -> None:
        """Writes what the run is, before it starts, so that a crash leaves a readable directory.

        Without facts the run is complete.
        """
        hosts.sync("the run directory was read")
        if not hosts.first():
            return
        with seal.rewriting(self.run_dir, facts):
            self._write_files()
            if facts is not None:
                # of a shorter duration: the run is unfinished again
                (self.run_dir / "result.json").unlink(missing_ok=True)
        self.mirror.push()

    def _write_files(self) -> None:
        session, config, parts = self.session, self.config, self.components
        parts.tokenizer.save(self.run_dir / "tokenizer")
        rundir.write_json(self.run_dir / "task.json", session.task.state)
        rundir.write_json(self.run_dir / "ledger.json", session.ledger)
        if names := config.data.columns.label_names:
            rundir.write_json(self.run_dir / runs.LABEL_NAMES, list(label_names(names)))
        if manifest_of_data := prepared.around(config.data.train or ""):
            # what new rows must go through before they are predicted
            rundir.write_json(self.run_dir / "prepared.json", manifest_of_data)
        source = runs.source_parts(parts) if structure.asked(config.model) else parts
        if facts := pretrained.facts(source, lambda place: remote.opened(str(hub.run_dir(place)))):
            rundir.write_json(self.run_dir / pretrained.NAME, facts)
            print(pretrained.told(facts), flush=True)
        rundir.write_text(self.run_dir / seal.CONFIG, compose.to_yaml(config))

    def announce(self, banner_too: bool = True) -> None:
        """Prints the banner, and opens the files that are written during training."""
        session = self.session
        if hosts.first() and banner_too:
            told = banner.facts(session, self.start)
            print(banner.banner(self.config, self.mirror.place, told), flush=True)
            if self.config.mesh.show:
                arrays = {"state": self.trial.state, "frozen": session.frozen}
                print(meshes.table(arrays), flush=True)
        self.metrics = Metrics(self.run_dir, self.start, self.trial.validated, self.config)
        name = self.run_dir.name if self.beside else ""
        self.progress = Progress(self.trial.total, self.start, name)
        self.on_event("started", {"run_dir": str(self.run_dir), "step": self.start})

    # --- steps
    # ----------------------------------------------------------------------------------------------
    def skipped(self, metrics: StepMetrics) -> None:
        """Tells that a step changed nothing, and why."""
        self.progress.say(
            f"step {int(metrics.step) + 1}: skipped (gradient norm {float(metrics.grad_norm)},"
            f" {terms_text(metrics)})"
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Writes the numbers of a log line."""
        self.metrics.write(step, "train", values)
        self.progress.update(step, values)

    def validated(self, step: int, numbers: Mapping[str, float], metric: str) -> None:
        """Writes the numbers of an evaluation; `metric` is told first."""
        self.metrics.write(step, "validation", dict(numbers))
        told = metric_names.brief(numbers, metric)
        self.progress.say(f"step {step:,}: validation {told}")
        facts = {"name": f"validation/{metric}", "value": numbers[metric], "step": step}
        if self.on_event("metric", facts):
            self.trial.pruned = True

    def learnt(self, step: int, result: Evaluation) -> None:
        """Writes what the model thinks of each training row at this step."""
        if hosts.first():
            path = self.run_dir / "figures" / "dynamics.json"
            before = rundir.read_json(path) if path.is_file() else None
            split = self.session.batches["train"].split
            outputs = self.session.task.row_outputs(split, result.columns)
            rundir.write_json(path, dynamics.added(before, step, outputs))

    def gave_up(self) -> None:
        """Tells why the trial ends early."""
        if self.trial.pruned:
            self.progress.say("the search ends this trial: stopped early")
            return
        if self.trial.reached:
            self.progress.say(f"train.until={self.config.train.until} holds: stopped early")
            return
        self.progress.say(
            f"no improvement of {self.config.evaluation.metric} for {self.trial.impatience}"
            " evaluations: stopped early"
        )

    def save(self) -> None:
        """Writes a checkpoint, while the next steps are taken."""
        self.metrics.sync()  # a checkpoint must not know of lines that a power cut could lose
        if hosts.first():
            self.mirror.push()
        trial, frozen = self.trial, self.session.frozen
        meta = trial.meta() | {"frozen": self.session.frozen_digest, "jaxsft": manifest.VERSION}
        base = frozen if self.config.checkpoint.include_base else runs.fixed(frozen)
        self.checkpoints.save(trial.step, trial.state, meta, trial.best["step"], base)

    def stop(self, stopped_by: int) -> Result:
        """Closes the checkpoints of a trial that a signal ended, and tells how it goes on."""
        self.checkpoints.close()
        step = self.trial.step
        self._add_session(step)
        self.progress.say(
            f"stopped at step {step}; the same command with run_dir={self.mirror.place} continues"
        )
        return Result(self.run_dir, {}, stopped_by)

    def _add_session(self, step: int) -> None:
        session = self.session
        steps = (self.start, step)
        manifest.add_session(self.run_dir, self.began, *steps, session.mesh, session.together)

    # --- results
    # ----------------------------------------------------------------------------------------------
    def restore_best(self) -> None:
        """Gives the trial the state of its best step, or tells why the last one is the result."""
        trial = self.trial
        last, best = trial.step, trial.best["step"]
        self.checkpoints.wait()
        if best is None and "validation" in self.session.batches:
            self.progress.say(
                f"evaluation.metric={self.config.evaluation.metric} was no finite number in any"
                " evaluation: the last weights are the result; choose another one"
            )
        if best is None or best == last:
            return
        try:
            trial.state = self.checkpoints.restore(best, self.session.state_shapes(trial))[0]
        except Damaged as error:
            moved = self.checkpoints.set_aside(best)
            self.checkpoints.forget_best(last)
            self.progress.say(
                f"{error}{f'; moved to {moved}' if moved else ''}: the last weights are the"
                " result, not the best ones"
            )

    def write_results(self, name: str, result: Evaluation) -> None:
        """Writes predictions and tables of a split, and keeps its bounds for `intervals.json`."""
        if hosts.first():
            split = self.session.batches[name].split
            found = results.write_results(self.run_dir, self.session.task, split, result)
            self.intervals |= {f"{name}/{metric}": entry for metric, entry in found.items()}

    def write_gaps(self, found: Mapping[str, Evaluation]) -> None:
        """Writes how far the numbers of the other splits are from those of the training rows."""
        if hosts.first():
            names = ["train", *(name for name in found if name != "train")]
            table = gaps.gap_table(
                {name: found[name].measured for name in names},
                {name: found[name].numbers["loss"] for name in names},
            )
            rundir.write_json(self.run_dir / "figures" / "gaps.json", table)

    def finish(self, last: int, numbers: dict[str, float]) -> Result:
        """Writes the numbers; `result.json` comes last: it says that the run is complete."""
        self._add_session(last)
        if hosts.first():
            with seal.rewriting(self.run_dir):
                # with what was tuned on the validation split
                state = self.session.task.with_tuned(self.trial.tuned).state
                rundir.write_json(self.run_dir / "task.json", state)
            if self.intervals:
                rundir.write_json(self.run_dir / "intervals.json", self.intervals)
            rundir.write_json(self.run_dir / "result.json", numbers)
            self.mirror.push()
        hosts.sync("results are written")
        self.metrics.finish(numbers)
        return Result(self.run_dir, numbers)

    def close(self) -> None:
        """Closes all that is open; trackers are told that a run without results failed."""
        for part in (self.trace, self.progress, self.metrics, self.checkpoints):
            if part is not None:
                part.close()
