"""The trials of a session that still train: what is done with each of them, an evaluation, and the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxsft.errors import JaxsftError
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.training.recorder import Recorder, Result
from jaxsft.training.session import Session
from jaxsft.training.trial import Trial

Pair = tuple[Trial, Recorder]
Outcome = Result | JaxsftError


class Started(NamedTuple):
    """A step that was started: its number, whose it is, what it gives, and the lengths of the texts
    of each trial.
    """

    step: int
    pairs: Sequence[Pair]
    metrics: Any
    lengths: Sequence[np.ndarray]


class Going:
    """The trials of a session that still train.

    Attributes:
      pairs: the trials with their recorders.
      outcomes: of those that ended, by the id of the trial.
    """

    def __init__(self, session: Session, pairs: list[Pair]):
        self.session, self.pairs = session, pairs
        self.outcomes: dict[int, Outcome] = {}

    def each(self, pairs: Sequence[Pair], do: Callable[[Trial, Recorder], Any]) -> list[Pair]:
        """Calls `do` with each trial; returns those that it did not fail for.

        A result, or an error, is the outcome of a trial.
        """
        good = []
        for pair in pairs:
            try:
                value = do(*pair)
            except JaxsftError as error:
                value = error
            if isinstance(value, Result | JaxsftError):
                self.outcomes[id(pair[0])] = value
                pair[1].on_end(value)
            if not isinstance(value, JaxsftError):
                good.append(pair)
        self.pairs = [pair for pair in self.pairs if id(pair[0]) not in self.outcomes]
        return good

    def still(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Returns those of the pairs that have no outcome yet."""
        return [pair for pair in pairs if id(pair[0]) not in self.outcomes]

    def leave(self, step: int) -> list[Pair]:
        """Takes out the trials that end after a step, or stop early, and returns them.

        Of those that stop early this is told.
        """
        leaving = []
        for trial, records in self.pairs:
            if trial.stops_early and step > 0:
                records.gave_up()
            if trial.stops_early or trial.total == step:
                leaving.append((trial, records))
        gone = {id(trial) for trial, _ in leaving}
        self.pairs = [pair for pair in self.pairs if id(pair[0]) not in gone]
        return leaving


def save(trial: Trial, records: Recorder) -> None:
    """Writes a checkpoint of a trial."""
    records.session.settle(trial)
    records.save()
    records.session.release(trial)


def validate(going: Going, pairs: Sequence[Pair], step: int) -> None:
    """Evaluates trials on the validation split, where there is one; with `evaluation.dynamics` on
    the training split too.
    """
    session = going.session
    options = session.config.evaluation
    if options.dynamics:
        pairs = _evaluated(
            going,
            "train",
            pairs,
            False,
            lambda trial, records, result: records.learnt(step, result),
        )
    if "validation" not in session.batches:
        return
    always, metric = options.generate == "always", options.metric.partition("/")[2]

    def judged(trial: Trial, records: Recorder, result: Evaluation) -> None:
        trial.validated = step
        records.validated(step, result.numbers, metric)
        trial.judge(step, result.numbers, metric, session.task.sign(metric))

    _evaluated(going, "validation", pairs, always, judged)


def _evaluated(
    going: Going,
    name: str,
    pairs: Sequence[Pair],
    generate: bool,
    use: Callable[[Trial, Recorder, Evaluation], Any],
) -> list[Pair]:
    """Evaluates trials on a split, and does something with what each came to.

    Returns those that nothing failed for.
    """
    found = going.session.evaluate_all(name, [trial for trial, _ in pairs], generate=generate)
    of_trial = {id(pair[0]): one for pair, one in zip(pairs, found, strict=True)}

    def used(trial: Trial, records: Recorder) -> Any:
        one = of_trial[id(trial)]
        return one if isinstance(one, JaxsftError) else use(trial, records, one)

    return going.each(pairs, used)


def finish(going: Going, pairs: Sequence[Pair]) -> None:
    """Evaluates the best weights on every split and writes the results."""
    session = going.session
    numbers: dict[int, dict[str, float]] = {}
    found: dict[int, dict[str, Evaluation]] = {}

    def restored(trial: Trial, records: Recorder) -> None:
        session.settle(trial)
        last, skipped = trial.step, int(trial.state.skipped)
        records.restore_best()
        numbers[id(trial)] = {
            "train/steps": last,
            "train/skipped_steps": skipped,
            "train/best_step": trial.step,
        }
        found[id(trial)] = {}

    pairs = going.each(pairs, restored)
    options = session.config.evaluation
    names = [name for name in session.batches if name != "train"]
    for name in [*names, *(["train"] if options.on_train else [])]:

        def written(trial: Trial, records: Recorder, result: Evaluation, name: str = name) -> None:
            own = {f"{name}/{metric}": value for metric, value in result.numbers.items()}
            numbers[id(trial)] |= own
            records.write_results(name, result)
            found[id(trial)][name] = result

        pairs = _evaluated(going, name, pairs, options.generate != "never", written)

    def finished(trial: Trial, records: Recorder) -> Result:
        if options.on_train:
            records.write_gaps(found[id(trial)])
        own = numbers[id(trial)]
        return records.finish(int(own["train/steps"]), own)

    going.each(pairs, finished)
