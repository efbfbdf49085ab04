"""The trainings of a cross-validation, one after another, each written when it is finished: a
cross-validation that was stopped goes on with those that it has not.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsft import rundir
from jaxsft.config import compose
from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Split
from jaxsft.errors import DataError
from jaxsft.evaluation.crossval import FoldScores, outputs_of_rows
from jaxsft.evaluation.row_metrics import metrics_of, with_loss
from jaxsft.tasks.task import Task
from jaxsft.training.fold_session import FoldModel, FoldSession


class Job(NamedTuple):
    """One training.

    Attributes:
      name: of its files.
      config: that of the session, but for traced options and seeds.
      train, held: the numbers of the rows that it trains on, and of those that it is scored on.
      whole: the training rows, and the sets beside, are scored too.
    """

    name: str
    config: Config
    train: np.ndarray
    held: np.ndarray
    whole: bool = False


class Trained(NamedTuple):
    """What is kept of a training.

    Attributes:
      losses: by part, and by the name of a set beside. tuned: of the task.
      columns: what the model gave of the rows; columns of a set beside are `NAME/COLUMN`.
    """

    steps: int
    losses: dict[str, float]
    tuned: Mapping[str, Any]
    columns: dict[str, np.ndarray]


class FoldJobs:
    """Runs trainings in a session, and keeps them in a folder."""

    def __init__(
        self, session: FoldSession, folder: Path, stopped: Callable[[], bool] = lambda: False
    ):
        self.session, self.folder, self._stopped = session, folder, stopped
        self.taken = self.kept = 0  # steps of this process; trainings that were there already

    def run(self, job: Job) -> Trained:
        """Returns what a training came to: of its files, where it is finished.

        Raises Stopped, and Diverged.
        """
        key = self._key(job)
        if (before := self._read(job, key)) is not None:
            self.kept += 1
            return before
        model = self.session.train(job.config, job.train, self._stopped)
        self.taken += model.steps
        out = self._evaluated(job, model)
        with rundir.atomic_file(self.folder / f"{job.name}.npz") as file:
            np.savez(file, **{name.replace("/", "|"): x for name, x in out.columns.items()})
        rundir.write_json(
            self.folder / f"{job.name}.json",
            {
                "key": key,
                "steps": out.steps,
                "train_rows": len(job.train),
                "held_out_rows": len(job.held),
                "losses": out.losses,
                "tuned": dict(out.tuned),
            },
        )
        return out

    def _key(self, job: Job) -> str:
        options = compose.flat(compose.to_dict(job.config)).items()
        ours = {k: v for k, v in options if not k.startswith((*compose.CHANGEABLE, "crossval."))}
        rows = [job.train.tolist(), job.held.tolist()]
        digests = [self.session.digests, self.session.components.tokenizer.digest]
        return rundir.sha256_json([ours, job.config.train.duration, rows, digests, job.whole])

    def _read(self, job: Job, key: str) -> Trained | None:
        """Returns a training that was finished before; None where there is none, or another."""
        path, arrays = self.folder / f"{job.name}.json", self.folder / f"{job.name}.npz"
        if not (path.exists() and arrays.exists()):
            return None
        try:
            facts = rundir.read_json(path)
            if facts["key"] != key:
                return None
            with np.load(arrays, allow_pickle=False) as file:
                columns = {name.replace("|", "/"): file[name] for name in file.files}
            losses = {name: rundir.number(x) for name, x in facts["losses"].items()}
            return Trained(facts["steps"], losses, facts["tuned"], columns)
        except (DataError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None  # it is trained again

    def _evaluated(self, job: Job, model: FoldModel) -> Trained:
        session, losses = self.session, {}
        losses["held_out"], columns = session.columns(model, model.split, job.held)
        tuned: Mapping[str, Any] = {}
        if job.whole or type(model.task).tune is not Task.tune:
            losses["train"], others = session.columns(model, model.split, job.train)
            columns = _merged(model.split, job.train, others, columns)
            tuned = session.tuned(model, columns, job.train)
        for name in session.others if job.whole else ():
            losses[name], found = session.columns(model, session.encoded(model.task, name))
            columns |= {f"{name}/{column}": x for column, x in found.items()}
        return Trained(model.steps, losses, tuned, columns)

    # --- scores
    # ----------------------------------------------------------------------------------------------
    def task(self, job: Job, trained: Trained) -> Task:
        """Returns the task with what it learnt in a training."""
        task = self.session.learnt(job.train).with_tuned(trained.tuned)
        if task.config is not job.config:
            task = type(task)(job.config, task.tokenizer, task.state)
        return task

    def scores(self, job: Job, trained: Trained, repeat: int = 0, fold: int = 0) -> FoldScores:
        """Returns the metrics of the rows of a training."""
        task, split = self.task(job, trained), self.session.split
        own = {name: x for name, x in trained.columns.items() if "/" not in name}
        outputs = with_loss(task, split, own, task.term_weights(job.config))
        rows = {"held_out": job.held} | ({"train": job.train} if job.whole else {})
        outputs = outputs_of_rows(outputs, np.concatenate(list(rows.values())))
        return FoldScores(repeat, fold, metrics_of(task, outputs), rows, trained.losses)

    def beside(self, job: Job, trained: Trained, name: str) -> FoldScores:
        """Returns the metrics of a set that no fold trains on, as one that is held out."""
        task = self.task(job, trained)
        split = self.session.encoded(self.session.learnt(job.train), name)
        start = f"{name}/"
        own = {k.removeprefix(start): x for k, x in trained.columns.items() if k.startswith(start)}
        outputs = with_loss(task, split, own, task.term_weights(job.config))
        rows = {"held_out": outputs.rows, "train": outputs.rows[:0]}
        losses = {"held_out": trained.losses[name]}
        return FoldScores(0, 0, metrics_of(task, outputs), rows, losses)


def _merged(
    split: Split,
    rows: np.ndarray,
    of_rows: Mapping[str, np.ndarray],
    of_others: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns columns that are those of `of_rows` for these rows, else those of `of_others`."""
    examples = np.isin(split.arrays["row"], rows)
    out = {}
    for name, values in of_others.items():
        mine = examples
        if name.startswith("word."):
            mine = np.repeat(examples, np.diff(split.arrays["word_offsets"]))
        out[name] = values.copy()
        out[name][mine] = of_rows[name][mine]
    return out


def with_seeds(config: Config, repeat: int) -> Config:
    """Returns the config with the seeds of a repeat: the first one has those that were given."""
    moved = {name: (seed + repeat) % 2**32 for name, seed in vars(config.seeds).items()}
    return dataclasses.replace(config, seeds=dataclasses.replace(config.seeds, **moved))
