"""What the trials of one process share: batches, the clock, frozen weights, the mesh and the
compiled programs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsft import progress as stages
from jaxsft.config import compose, durations
from jaxsft.config.schema import Config
from jaxsft.data import pipeline, split_notes
from jaxsft.data.file_records import Records
from jaxsft.data.split_ledger import ledger_entry
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.evaluation import answered, slices
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.evaluation.generated import answer_limit
from jaxsft.models.model_base import Params
from jaxsft.sharding import hosts
from jaxsft.sharding import mesh as meshes
from jaxsft.sharding.weights import flatten
from jaxsft.training import (
    backbone,
    components,
    device,
    frozen_weights,
    manifest,
    partition,
    runs,
    teacher,
)
from jaxsft.training.checksums import digest
from jaxsft.training.hyper import free, make_hyper, program_key
from jaxsft.training.step import State, StepMetrics
from jaxsft.training.trial import Trial


class Apart(ConfigError):
    """A trial has frozen weights of its own."""


class Session:
    """The data, the programs and the clock of a config; its trials differ in what is traced.

    Attributes:
      apart: options in which its trials may differ, beside those of `check_shared`.
    """

    apart: Collection[str] = ()

    def __init__(
        self, config: Config, on_records: Callable[[Mapping[str, Records]], None] = lambda _: None
    ):
        """Reads and encodes the data.

        Args:
          on_records: is given the records of all splits before any of them is encoded: too many
            rows that were put aside may end the run there.

        Raises:
          JaxsftError: what is wrong with the config or the data.
        """
        doing("reading the data")
        self.components, records = components.prepare(config)
        self.config = self.components.config  # the metric of tags hangs on what they are
        self.task, self.program = self.components.task, self.components.program
        rows = sum(len(split.records) for split in records.values())
        doing(f"turning {rows:,} rows into tokens")
        self.digests = {name: split_notes.data_digest(split) for name, split in records.items()}
        on_records(records)
        self.batches, self.ledger = _encode(self.components, records)
        for name, batches in self.batches.items():  # what is wrong with slices is told now
            if name != "train" or self.config.evaluation.on_train:
                slices.groups(batches.split, self.config)
        self.clock = _clock(self.config, self.batches["train"])
        every, hyper = self.config.train.unfreeze_every, make_hyper(self.config, self.clock)
        self.program.movable.check(hyper, self.total, every)
        self.program.pruning.check(hyper, self.total)
        self.every = {
            name: durations.steps(text, self.clock, f"{name}.every")
            for name, text in (
                ("checkpoint", self.config.checkpoint.every),
                ("evaluation", self.config.evaluation.every),
            )
        }
        log_every = self.config.train.log_every
        self.every["log"] = durations.steps(log_every, self.clock, "train.log_every")
        self.answers = self._answers()
        self.frozen: Params | None = None
        self._digest: tuple[Params, dict[str, list[int]]] | None = None
        self._starting: Params | None = None  # all weights, for a cached backbone
        self.together = 1  # trials that began in one program: they share its time
        self.spread: list[str] = []  # what is told of arrays that the mesh does not divide
        self.cached: list[str] = []  # what is told of a cached backbone
        self.meter = device.Meter(self.mesh.devices)
        self.agreement = hosts.Agreement(self.mesh)

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Returns the mesh of devices that all trials use."""
        return self.components.mesh

    @property
    def total(self) -> int:
        """Returns the number of steps of the whole training; 0 where it is not known."""
        return self.clock.total or 0

    def is_due(self, what: str, step: int) -> bool:
        """Tells whether a step is one after which `log`, `checkpoint` or `evaluation` is due."""
        return step % self.every[what] == 0

    def check_same(self) -> None:
        """Compares what all processes must have alike. Raises ConfigError.

        Otherwise their batches would differ, or one would wait for a step that another does not
        have.
        """
        hosts.check_same(
            {
                **{f"split {name}": digest for name, digest in self.digests.items()},
                "config": manifest.config_hash(self.config),
                "tokenizer": self.components.tokenizer.digest,
                "number of steps": self.total,
                "task state": self.task.state,
            }
        )

    def _answers(self) -> dict[str, tuple[int, int]]:
        """Returns (tokens an answer may have, references that need more) of each split.

        It has the splits for which answers are generated. Raises ConfigError.
        """
        if not self.task.generates or self.config.evaluation.generate == "never":
            return {}
        return {
            name: answer_limit(self.task, self.batches[name].split, self.config)
            for name in self.batches
            if name != "train" or self.config.evaluation.on_train
        }

    # --- trials
    # ----------------------------------------------------------------------------------------------
    def trial(self, config: Config | None = None) -> Trial:
        """Makes a trial with fresh weights; the frozen ones are those of the first.

        Args:
          config: that of the session, but for what `check_shared` lets differ; None: the same.

        Raises:
          ConfigError: the config differs in more, or its frozen weights are others.
        """
        config = config or self.config
        check_shared(self.config, config, self.apart)
        doing("making the weights")
        parts = self.parts(config)
        if not (config.model.pretrained or config.train.init_from):
            device.check_weights(parts.specs, self.mesh.devices.flat)
        trainable, frozen = self._starting_params(parts)
        if self.frozen is None:
            self.frozen = frozen
        elif frozen is not self.frozen and self._differs(frozen):
            raise Apart(
                f"seeds.init={config.seeds.init}: trials of one session share their frozen weights,"
                " and these are others; start from model.pretrained or train.init_from"
            )
        self._shardings = parts.state_shardings(jax.eval_shape(parts.program.init_state, trainable))
        place = parts.compiled(
            "state", lambda: jax.jit(parts.program.init_state, out_shardings=self._shardings)
        )
        clock = self.clock_of(config)
        hyper = make_hyper(config, clock)
        parts.program.movable.check(hyper, clock.total, config.train.unfreeze_every)
        parts.program.pruning.check(hyper, clock.total)
        trial = Trial(config, hyper, place(trainable), total=clock.total)
        arrays = {"state": trial.state, "frozen": self.frozen}
        self.spread = meshes.check_spread(arrays, self.mesh, config.mesh.allow_replicated)
        return trial

    def parts(self, config: Config) -> components.Components:
        """Returns the components with the config of a trial."""
        if config is self.config:
            return self.components
        return self.components.with_config(config)

    def clock_of(self, config: Config) -> durations.Clock:
        """Returns the clock of a trial: that of the session."""
        return self.clock

    def _starting_params(self, parts: components.Components) -> tuple[Params, Params]:
        """Returns the (trainable, frozen) weights that a trial starts from."""
        trainable, frozen = frozen_weights.split(parts, runs.starting_params(parts))
        if parts.config.train.backbone == "cached":
            self._starting = partition.merge(trainable, frozen)
        return trainable, frozen

    def _differs(self, frozen: Params) -> bool:
        """Returns whether frozen weights are not those of the session."""
        return digest(flatten(frozen)) != self.frozen_digest

    @property
    def frozen_digest(self) -> dict[str, list[int]]:
        """Returns the checksums of the frozen weights."""
        if self._digest is None or self._digest[0] is not self.frozen:
            self._digest = self.frozen, digest(flatten(self.frozen))
        return self._digest[1]

    def cache_backbone(self) -> None:
        """Replaces the texts of all batches by outputs of a cached backbone (`train.backbone`), and
        gives those of training what a teacher makes of them (`distil.teacher`).
        """
        splits = list(self.batches.values())
        self.cached = backbone.attach(self.components, self._starting, splits)
        self.cached += teacher.attach(self.components, self.batches["train"])
        self._starting = None

    def state_shapes(self, trial: Trial) -> State:
        """Returns shape, dtype and sharding of each array of a trial's state."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            jax.eval_shape(lambda: trial.state),
            self._shardings,
        )

    def empty_window(self, trial: Trial) -> Any:
        """Returns zeros in the structure of a trial's window."""
        args = (trial.state, self.frozen, self._first_batch(), trial.hyper)
        metrics = jax.eval_shape(self.parts(trial.config).program.step, *args)[1]
        return jax.tree.map(
            lambda s: np.zeros(s.shape, s.dtype), (metrics.terms, metrics.totals, metrics.states)
        )

    # --- programs
    # ----------------------------------------------------------------------------------------------
    def compile(self, trial: Trial) -> None:
        """Compiles the step before the first batch.

        So a batch of another shape is an error and not a second compilation.
        """
        doing("compiling the training step")
        step = jax.jit(
            self.program.step,
            donate_argnums=0,
            out_shardings=(self._shardings, meshes.replicated(self.mesh)),
        )
        args = (trial.state, self.frozen, self._first_batch(), trial.hyper)
        self.compiled = step.lower(*args).compile()
        device.check_memory(self.compiled, self.mesh.local_devices)
        self.evaluate_batch = jax.jit(
            self.program.evaluate, out_shardings=meshes.replicated(self.mesh)
        )
        stages.done()

    def _first_batch(self) -> pipeline.Batch:
        train = self.batches["train"]
        return self.components.put(train[0], train)

    def stream(self, start: int) -> Iterator[pipeline.Batch]:
        """Yields the batches of the steps from `start` to the end, on the devices."""
        train = self.batches["train"]
        for batch in pipeline.stream(train, start, self.total):
            yield self.components.put(batch, train)

    # --- the trials that train, one after another in each step
    # ----------------------------------------------------------------------------------------------
    @property
    def width(self) -> int:
        """Returns how many trials a program holds; 0 where it is one for each."""
        return 0

    def begin(self, trials: Sequence[Trial]) -> None:
        """Begins, or goes on, with these trials."""

    go_on = begin

    def settle(self, trial: Trial) -> None:
        """Gives a trial its own state, to be saved or evaluated by itself."""

    release = settle

    def advance(self, trials: Sequence[Trial], batch: pipeline.Batch) -> Any:
        """Starts one step of each trial; nothing waits for it. Returns what it reports."""
        return tuple(self._advanced(trial, batch) for trial in trials)

    def _advanced(self, trial: Trial, batch: pipeline.Batch) -> StepMetrics:
        trial.state, metrics = self.compiled(trial.state, self.frozen, batch, trial.hyper)
        return metrics

    def split(self, trials: Sequence[Trial], metrics: Any) -> Sequence[StepMetrics]:
        """Returns what a step reports of each trial, from what `advance` gave, on the host."""
        return metrics

    def lengths(self, trial: Trial, step: int) -> np.ndarray:
        """Returns the token counts of the texts of a trial's step, counted from 0."""
        return self.batches["train"].sizes(step)

    def evaluate_all(
        self, name: str, trials: Sequence[Trial], *, generate: bool
    ) -> list[evaluation.Evaluation | JaxsftError]:
        """Evaluates trials on a split; of one that fails, its error."""
        return [self.evaluate(name, trial, generate=generate) for trial in trials]

    def evaluate(self, name: str, trial: Trial, *, generate: bool) -> evaluation.Evaluation:
        """Evaluates a trial on a split: its moving average where there is one, without dropout."""
        weights, frozen, hyper = self.program.weights(trial.state), self.frozen, trial.hyper
        batches = self.batches[name]
        if name == "train":  # without the order of an epoch
            batches = self.components.batches(batches.split)
        run = lambda batch: self.evaluate_batch(
            weights, frozen, self.components.put(batch, batches), hyper
        )
        tuned = None if name == "validation" else trial.tuned
        result = evaluation.evaluate(run, self.task, batches, hyper["terms"], tuned)
        trial.tuned = result.tuned
        if not (generate and self.task.generates):
            return result
        params, model = partition.merge(weights, frozen), self.components.model
        return answered.with_answers(
            result, self.task, model, params, batches.split, self.config, self.mesh
        )

    def model_flops(self, lengths: np.ndarray) -> float:
        """Counts the FLOPs of the model in a step on texts of these lengths."""
        specs = (self.components.specs, self.program.specs)
        return device.model_flops(self.config, self.task, *specs, lengths)


def check_shared(shared: Config, own: Config, more: Collection[str] = ()) -> None:
    """Raises ConfigError where a trial differs from its session in what trials must share.

    It may differ in traced values, the initial weights and what only its host reads; and in the
    options `more`.
    """
    theirs, ours = (compose.flat(compose.to_dict(config)) for config in (shared, own))
    options = {name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)}
    apart = {*free(own), "seed", "seeds.init", "run_dir", "evaluation.patience", "train.until"}
    if others := sorted(options - apart - set(more) | options & {"train.duration"} - set(more)):
        raise ConfigError(
            f"{others[0]}: trials of one session share it; only traced options, seeds.init,"
            " seeds.dropout, evaluation.patience and train.until may differ"
        )
    if program_key(shared) != program_key(like_shared(shared, own, more)):
        raise ConfigError(
            f"{min(options)}: turns a part of the step on or off, so that this trial is another"
            " program than its session"
        )


def like_shared(shared: Config, own: Config, more: Collection[str]) -> Config:
    """Returns the config of a trial with the options `more` as its session has them."""
    for option in more:
        group, _, name = option.rpartition(".")
        if group and hasattr(getattr(shared, group), name):
            value = getattr(getattr(shared, group), name)
            changed = dataclasses.replace(getattr(own, group), **{name: value})
            own = dataclasses.replace(own, **{group: changed})
    return own


def doing(what: str) -> None:
    """Tells what the run does before its first step, on the first process."""
    if hosts.first():
        stages.doing(what)


def _clock(config: Config, train: pipeline.Batches) -> durations.Clock:
    """Returns the clock of a training, with its number of steps.

    Raises ConfigError where a source of a mixture is used up before the end.
    """
    clock = durations.Clock(len(train), train.examples)
    total = durations.steps(config.train.duration, clock, "train.duration")
    if train.mix is not None and config.data.mixture.exhausted == "error" and total > len(train):
        raise ConfigError(
            f"train.duration={config.train.duration}: {total} steps, but a source of"
            f" data.mixture is used up after {len(train)}; train less, or set"
            " data.mixture.exhausted=stop|repeat"
        )
    return dataclasses.replace(clock, total=total)


def _encode(
    parts: components.Components, records: Mapping[str, Records]
) -> tuple[dict[str, pipeline.Batches], dict[str, Any]]:
    """Encodes the records of each split: (its batches, its entry of the ledger), each by name.

    Evaluation shares the shape of training, unless its rows are longer.
    """
    kind = type(parts.task)
    leaks, lacks = split_notes.in_training_too(records, kind), split_notes.lacking(records, kind)
    batches: dict[str, pipeline.Batches] = {}
    ledger: dict[str, Any] = {}
    for name, split in records.items():
        like = batches["train"].split if name != "train" else None
        encoded = parts.split(name, split, like=like)
        batches[name] = parts.batches(encoded, training=name == "train")
        ledger[name] = {
            **ledger_entry(batches[name]),
            **({"also_in_train": leaks[name]} if name in leaks else {}),
            **({"lacks": lacks[name]} if name in lacks else {}),
            **({"notes": list(split.notes)} if split.notes else {}),
            # several references of a source
            **({} if split.rows is None else {"rows_of_the_file": split.rows}),
        }
    return batches, ledger
