"""`train(config)`: from a config to a run directory with weights, numbers and a report; and `run`,
the loop over the steps of all trials of a session.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsft import progress as stages
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Batch
from jaxsft.errors import JaxsftError
from jaxsft.sharding import hosts, platforms
from jaxsft.training import device, recorder, setup
from jaxsft.training.callbacks import StopSignal
from jaxsft.training.going import Going, Outcome, Started
from jaxsft.training.going import finish as _finish
from jaxsft.training.going import save as _save
from jaxsft.training.going import validate as _validate
from jaxsft.training.recorder import Recorder, Result
from jaxsft.training.session import Session
from jaxsft.training.trial import Trial, common_step


def train(
    config: Config,
    write_more: Callable[[Path], Any] = lambda run_dir: None,
    on_event: Callable[[str, Mapping[str, Any]], Any] = recorder.ignored,
) -> Result:
    """Runs, or continues, one training.

    Args:
      write_more: what the first process writes into the directory of a complete run, before another
        may write there.
      on_event: is told when steps begin (`started`) and of each evaluation (`metric`), with facts;
        what is true of a metric ends the training early.

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
            records.on_event = on_event
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
        (outcome,) = run(session, [trial], [records])
        if isinstance(outcome, JaxsftError):
            raise outcome
        return outcome


# --- the loop
# --------------------------------------------------------------------------------------------------
def run(session: Session, trials: Sequence[Trial], recorders: Sequence[Recorder]) -> list[Outcome]:
    """Trains the trials to their end and evaluates the best weights of each on every split.

    A signal ends all of them after a step, with a checkpoint. What fails in one of them ends that
    one, and its error is its outcome.
    """
    going = Going(session, list(zip(trials, recorders, strict=True)))
    with StopSignal() as signal:
        # a run that stopped early, and then was killed before its results, has no step left
        leaving = going.leave(0)
        stopped_by = None
        if going.pairs:
            if leaving:
                _finish(going, leaving)
            stopped_by, leaving = _take_steps(going, signal)
    if stopped_by is not None:

        def stop(trial: Trial, records: Recorder) -> Result:
            session.settle(trial)
            return records.stop(stopped_by)

        going.each(going.pairs, stop)
    elif leaving:
        _finish(going, leaving)
    return [going.outcomes[id(trial)] for trial in trials]


def _take_steps(going: Going, signal: StopSignal) -> tuple[int | None, list[Pair]]:
    """Takes steps until no trial goes on, or until a signal; the trials that leave before the last
    ones have their results when they leave.

    Returns the number of the signal, None without one, and the trials that have still to be
    finished. Nothing waits for the device but evaluation, checkpoints and the read of the step
    before.
    """
    session = going.session
    step = common_step([trial for trial, _ in going.pairs])
    # a signal came at this step, and waited for no evaluation
    missed = [pair for pair in going.pairs if pair[0].validated != step < pair[0].total]
    if step > 0 and missed and session.is_due("evaluation", step):
        _validate(going, missed, step)
    if leaving := going.leave(step):
        if not going.pairs:
            return None, leaving
        _finish(going, leaving)
    session.begin([trial for trial, _ in going.pairs])
    unread: list[Started] = []
    session.meter.resume()
    for batch in session.stream(step) if going.pairs else ():
        step += 1
        started = [_advance(going, batch, step)]
        _read(going, unread)
        unread, stopped_by = started, session.agreement(signal.received or 0)
        ending = [pair for pair in going.pairs if pair[0].total == step]
        validates = bool(ending) or session.is_due("evaluation", step)
        if not (stopped_by or validates or session.is_due("checkpoint", step)):
            if not going.pairs:
                break
            continue
        _read(going, unread)
        unread = []
        session.meter.pause()
        ending = going.still(ending)
        stops = bool(stopped_by) and len(ending) < len(going.pairs)
        due = going.pairs if session.is_due("evaluation", step) and not stops else ending
        if due:
            _validate(going, due, step)
        all_save = stopped_by or session.is_due("checkpoint", step) or due is not ending
        going.each(going.pairs if all_save else going.still(ending), _save)
        leaving = going.leave(step)
        if not going.pairs:
            return None, leaving
        if leaving:
            _finish(going, leaving)
        if stops:
            return stopped_by, []
        if leaving or session.width > len(going.pairs):
            session.go_on([trial for trial, _ in going.pairs])
        session.meter.resume()
    return None, []


def _advance(going: Going, batch: Batch, step: int) -> Started:
    """Starts a step, counted from 1."""
    session, pairs = going.session, tuple(going.pairs)
    for _, records in pairs:
        records.trace.before(step)
    trials = [trial for trial, _ in pairs]
    metrics = session.advance(trials, batch)
    for _, records in pairs:
        records.trace.after(step, metrics)
    return Started(step, pairs, metrics, [session.lengths(trial, step - 1) for trial in trials])


def _read(going: Going, unread: Sequence[Started]) -> None:
    """Reads the numbers of one step from the device, after the next one was started."""
    session = going.session
    for step, pairs, metrics, lengths in unread:
        apart = session.split([trial for trial, _ in pairs], fetch(metrics))
        of_trial = {id(pair[0]): one for pair, one in zip(pairs, apart, strict=True)}
        for texts in lengths:
            session.meter.add(int(texts.sum()), session.model_flops(texts))

        def observe(trial: Trial, records: Recorder, found: Any = of_trial) -> None:
            numbers = found[id(trial)]
            if numbers.skipped:
                records.skipped(numbers)
            trial.observe(numbers)

        good = going.each(going.still(pairs), observe)
        due = [p for p in good if session.is_due("log", step) or p[0].total == step]
        if due:
            rates = session.meter.read()  # of all trials together

            def log(trial: Trial, records: Recorder, found: Any = of_trial, at: int = step) -> None:
                records.log(at, trial.summary(found[id(trial)]) | rates)

            going.each(due, log)


def fetch(tree: Any) -> Any:
    """Returns the arrays on the host: the one place where the loop reads from the device."""
    return jax.device_get(tree)
