"""What the trainings of a cross-validation share: one encoded set, one compiled step and one
compiled evaluation.

A fold selects its training rows and packs them anew; its batches have the shapes of those of all
rows, so that no step is spent on rows that are held out, and nothing is compiled again. How many
steps it takes is traced.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsft import rundir, tasks
from jaxsft.config import durations
from jaxsft.config.schema import Config
from jaxsft.data import pipeline, split_notes
from jaxsft.data.chosen_tokenizer import make_tokenizer
from jaxsft.data.encoded_split import Split
from jaxsft.data.fold_rows import FoldRows
from jaxsft.data.pipeline import Batches
from jaxsft.evaluation import passes
from jaxsft.evaluation.crossval import outputs_of_rows
from jaxsft.sharding import mesh as meshes
from jaxsft.tasks.loss_terms import objective_value
from jaxsft.tasks.task import Task
from jaxsft.training import components, frozen_weights, runs
from jaxsft.training.hyper import Hyper, make_hyper
from jaxsft.training.step import Program, State
from jaxsft.training.trial import Trial


class Stopped(Exception):
    """A signal came between two steps."""


class FoldModel(NamedTuple):
    """A trained model of a fold, with what its task learnt of the training rows."""

    task: Task
    split: Split
    program: Program
    state: State
    frozen: Any
    hyper: Hyper
    steps: int


class FoldSession:
    """The set, the programs and the shapes; each training has its rows and its traced options.

    Attributes:
      compiled: by name, how many programs were compiled.
    """

    def __init__(self, config: Config, given: FoldRows):
        """Learns labels and tokenizer from all rows, and encodes them once."""
        kind, records = tasks.get(config.task.name), given.records
        tokenizer = make_tokenizer(config.tokenizer, kind, records.records)
        state = components.fitted(config, kind, tokenizer, {"train": records, **given.others})
        self.records, self.others = records, given.others
        self.components = components.build_components(config, tokenizer, state)
        self.config, self.task = self.components.config, self.components.task
        self.split = self.components.split("train", records)
        self.digests = {
            name: split_notes.data_digest(one)
            for name, one in {"train": records, **given.others}.items()
        }
        self.compiled = {"step": 0, "evaluation": 0}
        self._shapes: dict[bool, list[Batches]] = {True: [], False: []}
        self._steps: dict[str, Any] = {}
        self._evaluations: dict[str, Any] = {}
        self._start: tuple[Any, Any] | None = None  # a seed, and the weights that it gives
        self._place: Any = None
        self._shardings: Any = None

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """Returns the numbers of the rows that gave an example."""
        return np.unique(self.split.arrays["row"])

    def make_room(self, sets: Sequence[np.ndarray], evaluated: Sequence[np.ndarray]) -> None:
        """Gives batches the room that any of these sets of rows needs: the shapes of all of them.

        Args:
          sets: those that are trained on. evaluated: those that are evaluated.
        """
        for training, each in ((True, sets), (False, evaluated)):
            plans = [self._batches(self.split, rows, training, ()) for rows in each]
            texts = max(plans, key=lambda one: one.plan.texts)
            words = max(plans, key=lambda one: one.words)
            self._shapes[training] = [texts, words]

    def _batches(
        self, split: Split, rows: np.ndarray, training: bool, like: Sequence[Batches]
    ) -> Batches:
        chosen = np.flatnonzero(np.isin(split.arrays["row"], rows))
        return self.components.batches(split, training, chosen, like)

    # --- what is learnt of the training rows
    # ----------------------------------------------------------------------------------------------
    def learnt(self, rows: np.ndarray) -> Task:
        """Returns the task with the numbers that these rows give, such as the mean of a target.

        What names what there is (labels, classes of a column) stays that of all rows, as it decides
        about the shapes.
        """
        whole = self.task
        own = {name for name in whole.learnt_numbers if name in whole.state}
        if not own and not whole.state.get("features"):
            return whole
        config = self.config
        if own and "labels" in whole.state and hasattr(config.task, "labels"):
            task = dataclasses.replace(config.task, labels=list(whole.state["labels"]))
            config = dataclasses.replace(config, task=task)
        records = [self.records.records[row] for row in rows]
        where = [self.records.where[row] for row in rows]
        found = type(whole).fit(config, whole.tokenizer, records, where)
        state = {**whole.state, **{name: found[name] for name in own}}
        if "features" in whole.state:
            state["features"] = [
                of_all if "values" in of_all else mine
                for of_all, mine in zip(whole.state["features"], found["features"], strict=True)
            ]
        return type(whole)(whole.config, whole.tokenizer, state)

    def encoded(self, task: Task, name: str = "train") -> Split:
        """Returns the set, or another one by name, as a task encodes it: what differs is what
        `learnt` found.
        """
        if name == "train" and (task is self.task or task.digest == self.task.digest):
            return self.split
        parts = dataclasses.replace(self.components, task=task)
        records = self.records if name == "train" else self.others[name]
        return parts.split(name, records, like=self.split)

    # --- training
    # ----------------------------------------------------------------------------------------------
    def train(
        self, config: Config, rows: np.ndarray, stopped: Callable[[], bool] = lambda: False
    ) -> FoldModel:
        """Trains from the start on these rows, to the end of `train.duration`.

        Args:
          config: that of the session, but for traced options and seeds.
          stopped: asked after each step.

        Raises:
          Stopped: `stopped` says so. Diverged: as in `loop.train`.
        """
        task = self.learnt(rows)
        split = self.encoded(task)
        parts = dataclasses.replace(self.components, config=config, task=task)
        chosen = np.flatnonzero(np.isin(split.arrays["row"], rows))
        batches = parts.batches(split, True, chosen, self._shapes[True])
        clock = durations.Clock(len(batches), batches.examples)
        total = durations.steps(config.train.duration, clock, "train.duration")
        hyper = make_hyper(config, dataclasses.replace(clock, total=total))
        program = parts.program if task.numbers_in_program else self.components.program
        program.movable.check(hyper, total, config.train.unfreeze_every)
        program.pruning.check(hyper, total)
        trainable, frozen = self._starting(parts)
        trial = Trial(config, hyper, self._placed(program, trainable))
        step, late = None, None
        for batch in pipeline.stream(batches, 0, total):
            placed = parts.put(batch, batches)
            if step is None:
                step = self._step(task, program, (trial.state, frozen, placed, hyper))
            trial.state, metrics = step(trial.state, frozen, placed, hyper)
            if late is not None:
                trial.observe(jax.device_get(late))
            late = metrics
            if stopped():
                raise Stopped
        if late is not None:
            trial.observe(jax.device_get(late))
        return FoldModel(task, split, program, trial.state, frozen, hyper, total)

    def _starting(self, parts: components.Components) -> tuple[Any, Any]:
        """Returns (trainable, frozen) weights; those of a seed are made, or read, once."""
        seed = parts.config.seeds.init
        if self._start is None or self._start[0] != seed:
            self._start = seed, runs.starting_params(parts)
        return frozen_weights.split(parts, self._start[1])

    def _placed(self, program: Program, trainable: Any) -> State:
        """Returns the state of a training before its first step; the weights stay as they are."""
        if self._place is None:
            shapes = jax.eval_shape(program.init_state, trainable)
            self._shardings = self.components.state_shardings(shapes)
            self._place = jax.jit(program.init_state, out_shardings=self._shardings)
        return self._place(trainable)

    def _step(self, task: Task, program: Program, arguments: tuple[Any, ...]) -> Any:
        """Returns the compiled step: one for all, unless numbers of the rows are compiled in."""
        key = self._key(task)
        if key not in self._steps:
            everywhere = meshes.replicated(self.components.mesh)
            out = (self._shardings, everywhere)
            step = jax.jit(program.step, donate_argnums=0, out_shardings=out)
            self._steps[key] = step.lower(*arguments).compile()
            self.compiled["step"] += 1
        return self._steps[key]

    def _key(self, task: Task) -> str:
        return rundir.sha256_json(task.state) if task.numbers_in_program else ""

    # --- evaluation
    # ----------------------------------------------------------------------------------------------
    def columns(
        self, model: FoldModel, split: Split, rows: np.ndarray | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Returns the loss on rows of a set (None: all) and what the pass gave: `[examples, ...]`
        by name, 0 for other rows.
        """
        parts = self.components
        if rows is None:
            batches = parts.batches(split, like=self._shapes[False])
        else:
            batches = self._batches(split, rows, False, self._shapes[False])
        weights = model.program.weights(model.state)

        def run(batch: pipeline.Batch) -> Any:
            arguments = (weights, model.frozen, parts.put(batch, batches), model.hyper)
            return self._evaluation(model, arguments)(*arguments)

        (terms, totals, _), columns = passes.run_pass(run, batches, model.task.decoded)
        return objective_value(terms, totals, model.hyper["terms"]), columns

    def _evaluation(self, model: FoldModel, arguments: tuple[Any, ...]) -> Any:
        """Returns the compiled evaluation of batches of one shape."""
        shape = jax.tree.map(lambda x: (x.shape, str(x.dtype)), arguments[2])
        key = f"{self._key(model.task)} {shape}"
        if key not in self._evaluations:
            everywhere = meshes.replicated(self.components.mesh)
            run = jax.jit(model.program.evaluate, out_shardings=everywhere)
            self._evaluations[key] = run.lower(*arguments).compile()
            self.compiled["evaluation"] += 1
        return self._evaluations[key]

    def tuned(
        self, model: FoldModel, columns: Mapping[str, np.ndarray], rows: np.ndarray
    ) -> Mapping[str, Any]:
        """Returns what the task learns of these rows without a gradient, such as thresholds."""
        outputs = model.task.row_outputs(model.split, columns)
        return model.task.tune(outputs_of_rows(outputs, rows))
