"""`train(config)`: from a config to a run directory with weights, numbers and a report; and `run`,
the loop over the steps of all trials of a session.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsft import progress as stages
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Batch
from jaxsft.sharding import hosts, platforms
from jaxsft.training import device, recorder, setup
from jaxsft.training.callbacks import StopSignal
from jaxsft.training.recorder import Recorder, Result
from jaxsft.training.session import Session
from jaxsft.training.step import StepMetrics
from jaxsft.training.trial import Trial, common_step

Pair = tuple[Trial, Recorder]
Unread = tuple[Trial, Recorder, StepMetrics, np.ndarray]  # a started step, the lengths of its texts


def train(config: Config, write_more: Callable[[Path], Any] = lambda run_dir: None) -> Result:
    """Runs, or continues, one training.

    Args:
      write_more: what the first process writes into the directory of a complete run, before another
        may write there.

    Raises:
      JaxsftError: anything that the user can mend; the run directory then holds what was finished
        before.
    """
    hosts.start(config.hosts)
    platforms.devices()
    device.keep_programs(config.compilation_cache)
    device.keep_memory()
    asked, config = config, setup.resolve(config)
    with hosts.collective_errors(), stages.ended():
        options = compose.flat(compose.to_dict(config)).items()
        own = ("hosts.", "run_dir")
        # before arrays are placed: another mesh would hang
        hosts.check_same({f"option {k}": v for k, v in options if not k.startswith(own)})
        with recorder.opened(config, asked) as (records, config):
            result = _train_one(config, records)
            if result.stopped_by is None and hosts.first():
                write_more(result.run_dir)
                records.mirror.push()
            return dataclasses.replace(result, mirror=records.mirror)


def _train_one(config: Config, records: Recorder) -> Result:
    """Trains a session of one trial, from where its run directory stands."""
    session = Session(config, records.quarantine)
    session.check_same()
    trial = session.trial()
    if (done := records.open(session, trial)) is not None:
        return done
    session.cache_backbone()
    with contextlib.closing(records):
        records.resume()
        session.compile(trial)
        records.announce()
        return run(session, [trial], [records])[0]


# --- the loop
# --------------------------------------------------------------------------------------------------
def run(session: Session, trials: Sequence[Trial], recorders: Sequence[Recorder]) -> list[Result]:
    """Trains the trials to their end and evaluates the best weights of each on every split.

    A signal ends all of them after a step, with a checkpoint.
    """
    pairs = list(zip(trials, recorders, strict=True))
    with StopSignal() as signal:
        # a run that stopped early, and then was killed before its results, has no step left
        waiting = [(trial, records) for trial, records in pairs if not trial.out_of_patience]
        stopped_by = _take_steps(session, waiting, signal) if waiting else None
        if stopped_by is not None:
            return [records.stop(stopped_by) for _, records in pairs]
    return [_finish(session, trial, records) for trial, records in pairs]


def _take_steps(session: Session, pairs: list[Pair], signal: StopSignal) -> int | None:
    """Takes steps until the end, until no trial has patience left, or until a signal.

    Returns the number of the signal, None without one. Nothing waits for the device but evaluation,
    checkpoints and the read of the step before.
    """
    step = common_step([trial for trial, _ in pairs])
    if 0 < step < session.total and session.is_due("evaluation", step):
        # a signal came at this step, and waited for no evaluation
        for trial, records in pairs:
            if trial.validated != step:
                _validate(session, trial, records, step)
        pairs = _with_patience(pairs)
    unread: list[Unread] = []
    session.meter.resume()
    for batch in session.stream(step) if pairs else ():
        step += 1
        started = [_advance(session, *pair, batch, step) for pair in pairs]
        _read(session, unread)
        unread, stopped_by = started, session.agreement(signal.received or 0)
        validates = session.ends_at(step) or session.is_due("evaluation", step)
        if not (stopped_by or validates or session.is_due("checkpoint", step)):
            continue
        _read(session, unread)
        unread = []
        session.meter.pause()
        stops = bool(stopped_by) and not session.ends_at(step)
        for trial, records in pairs:
            if validates and not stops:
                _validate(session, trial, records, step)
            records.save()
        if stops:
            return stopped_by
        session.meter.resume()
        if not (pairs := _with_patience(pairs)):
            break
    return None


def _advance(session: Session, trial: Trial, records: Recorder, batch: Batch, step: int) -> Unread:
    """Starts a step, counted from 1."""
    records.trace.before(step)
    metrics = session.advance(trial, batch)
    records.trace.after(step, metrics)
    return trial, records, metrics, session.batches["train"].sizes(step - 1)


def _read(session: Session, unread: Sequence[Unread]) -> None:
    """Reads the numbers of one step from the device, after the next one was started."""
    step, read = 0, []
    for trial, records, metrics, lengths in unread:
        metrics = fetch(metrics)
        step = int(metrics.step) + 1
        if metrics.skipped:
            records.skipped(metrics)
        trial.observe(metrics)
        session.meter.add(int(lengths.sum()), session.model_flops(lengths))
        read.append((trial, records, metrics))
    if read and (session.is_due("log", step) or session.ends_at(step)):
        rates = session.meter.read()  # of all trials together
        for trial, records, metrics in read:
            records.log(step, trial.summary(metrics) | rates)


def fetch(tree: Any) -> Any:
    """Returns the arrays on the host: the one place where the loop reads from the device."""
    return jax.device_get(tree)


def _validate(session: Session, trial: Trial, records: Recorder, step: int) -> None:
    """Evaluates a trial on the validation split, where there is one; with `evaluation.dynamics` on
    the training split too.
    """
    options = trial.config.evaluation
    if options.dynamics:
        records.learnt(step, session.evaluate("train", trial, generate=False))
    if "validation" not in session.batches:
        return
    trial.validated = step
    always, metric = options.generate == "always", options.metric.partition("/")[2]
    numbers = session.evaluate("validation", trial, generate=always).numbers
    records.validated(step, numbers, metric)
    trial.judge(step, numbers[metric], session.task.sign(metric))


def _with_patience(pairs: list[Pair]) -> list[Pair]:
    """Returns the trials that go on; of the others is told that they stop early."""
    for trial, records in pairs:
        if trial.out_of_patience:
            records.gave_up()
    return [(trial, records) for trial, records in pairs if not trial.out_of_patience]


def _finish(session: Session, trial: Trial, records: Recorder) -> Result:
    """Evaluates the best weights on every split and writes the results."""
    last, skipped = trial.step, int(trial.state.skipped)
    records.restore_best()
    numbers = {
        "train/steps": last,
        "train/skipped_steps": skipped,
        "train/best_step": trial.step,
    }
    options = trial.config.evaluation
    names, found = [name for name in session.batches if name != "train"], {}
    for name in [*names, *(["train"] if options.on_train else [])]:
        result = session.evaluate(name, trial, generate=options.generate != "never")
        numbers |= {f"{name}/{metric}": value for metric, value in result.numbers.items()}
        records.write_results(name, result)
        found[name] = result
    if options.on_train:
        records.write_gaps(found)
    return records.finish(last, numbers)
