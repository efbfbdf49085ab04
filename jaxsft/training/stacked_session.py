"""A session whose trials are one compiled program: their states lie on a leading axis, and
`Program.step` runs over it by `jax.vmap`.

    states [N, ...]   frozen (of all)   batches [S, ...], S orders of the rows   hyper [N]

A trial's own state is taken out where it is saved or finished. Trials that have ended stay in the
program, and nothing of them is read any more, until half have ended: then the others are compiled
anew. Adapters of a smaller rank are filled up with zeros, to which every element-wise optimizer
adds exactly zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft import progress as stages
from jaxsft.config import durations
from jaxsft.config.schema import Config
from jaxsft.data import pipeline
from jaxsft.data.pipeline import Batches
from jaxsft.errors import JaxsftError
from jaxsft.evaluation import answered, passes
from jaxsft.evaluation import evaluate as evaluation
from jaxsft.models.model_base import Params
from jaxsft.training import components, partition
from jaxsft.training.session import Session, doing
from jaxsft.training.step import Program, State, StepMetrics
from jaxsft.training.trial import Trial

# what trials of one program may differ in, beside what trials of any session may
APART = ("seeds.data", "train.duration", "adapter.rank")


class StackedSession(Session):
    """Data, programs and clock of trials that train as one program.

    Attributes:
      trials: those that lie in the stack, by their place.
      states: their states, `[N, ...]`; what the step donates.
    """

    apart = APART

    def __init__(self, config: Config, *rest: Any):
        """Reads and encodes the data, as `Session`."""
        super().__init__(config, *rest)
        self.trials: list[Trial] = []
        self.states: State | None = None
        self._places: dict[int, int] = {}  # of trials, by their id
        self._hyper: Any = None
        self._orders: list[Batches] = []
        self._order_of: np.ndarray = np.zeros(0, np.int32)
        self._of_rank: dict[Any, components.Components] = {}
        self._starts: dict[Any, tuple[Params, Params]] = {}
        self._programs: dict[Any, Any] = {}
        self._widest: Program = self.program

    # --- trials
    # ----------------------------------------------------------------------------------------------
    def parts(self, config: Config) -> components.Components:
        """Returns the components with the config of a trial; those of another rank are others."""
        rank = getattr(config.adapter, "rank", None)
        if rank == getattr(self.config.adapter, "rank", None):
            return super().parts(config)
        if rank not in self._of_rank:
            own = self.components
            self._of_rank[rank] = components.build_components(
                config, own.tokenizer, self.task.state, self.mesh
            )
        return self._of_rank[rank].with_config(config)

    def clock_of(self, config: Config) -> durations.Clock:
        """Returns the clock of a trial, with its own number of steps."""
        total = durations.steps(config.train.duration, self.clock, "train.duration")
        return dataclasses.replace(self.clock, total=total)

    def _starting_params(self, parts: components.Components) -> tuple[Params, Params]:
        """Returns the weights that a trial starts from; those of a seed are made, or read, once."""
        key = (parts.config.seeds.init, repr(parts.config.adapter))
        if key not in self._starts:
            trainable, frozen = super()._starting_params(parts)
            if self.frozen is not None:  # the base is held once
                frozen = frozen if self._differs(frozen) else self.frozen
            self._starts[key] = trainable, frozen
        return self._starts[key]

    def forget_starts(self) -> None:
        """Drops the weights that trials start from, as all of them have been made."""
        self._starts = {}

    # --- programs
    # ----------------------------------------------------------------------------------------------
    def compile_stack(self, trials: Sequence[Trial]) -> Any:
        """Compiles the step of these trials, and returns it; of so many trials only once."""
        orders, order_of = self._orders_of(trials)
        key = ("step", len(trials), len(orders), max(_rank(t.config) for t in trials))
        if key not in self._programs:
            doing(f"compiling the training step of {len(trials)} trials")
            self._widest = self.parts(max((t.config for t in trials), key=_rank)).program
            step = jax.jit(self._stepping(len(orders)), donate_argnums=0)
            states = jax.eval_shape(lambda: stacked([t.state for t in trials], jnp))
            batch = self.components.put(_stack_batches(orders, 0), orders[0])
            hyper = _stack_hyper(trials)
            arguments = (states, self.frozen, batch, hyper, order_of)
            self._programs[key] = step.lower(*arguments).compile()
            stages.done()
        return self._programs[key]

    def _stepping(self, orders: int) -> Callable[..., Any]:
        """Returns the step of a stack, of (states, frozen, batches, hyper, order of each)."""
        program, shared = self._widest, orders == 1
        mapped = jax.vmap(program.step, in_axes=(0, None, None if shared else 0, 0))

        def step(
            states: State, frozen: Params, batches: Any, hyper: Any, order_of: jax.Array
        ) -> Any:
            if not shared:
                batches = jax.tree.map(lambda x: x[order_of], batches)
            return mapped(states, frozen, batches, hyper)

        return step

    def _orders_of(self, trials: Sequence[Trial]) -> tuple[list[Batches], np.ndarray]:
        """Returns the training batches in each order of the rows, and which of them each trial has.

        The order of a trial is that of its `seeds.data`.
        """
        train = self.batches["train"]
        seeds = sorted({trial.config.seeds.data for trial in trials})
        orders = [train if seed == train.seed else train.with_seed(seed) for seed in seeds]
        places = [seeds.index(trial.config.seeds.data) for trial in trials]
        return orders, np.array(places, np.int32)

    def memory(self, trials: Sequence[Trial]) -> int:
        """Returns the bytes that the compiled step of these trials needs, as XLA counts them."""
        found = self.compile_stack(trials).memory_analysis()
        sizes = ("argument_size", "output_size", "temp_size")
        return sum(getattr(found, f"{name}_in_bytes") for name in sizes) - found.alias_size_in_bytes

    # --- the stack
    # ----------------------------------------------------------------------------------------------
    @property
    def width(self) -> int:
        """Returns how many trials the program holds."""
        return len(self.trials)

    def begin(self, trials: Sequence[Trial]) -> None:
        """Stacks the states of these trials, which have their own until now."""
        self.compiled, self.together = self.compile_stack(trials), len(trials)
        self.states = jax.device_put(stacked([fetched(t.state) for t in trials], np))
        self._lay(trials)

    def go_on(self, trials: Sequence[Trial]) -> None:
        """Goes on with these trials of the stack: alone, where half of the others have ended."""
        if 2 * len(trials) > len(self.trials):
            return
        for trial in trials:
            self.settle(trial)
        self.states = None
        self.begin(trials)

    def _lay(self, trials: Sequence[Trial]) -> None:
        self.trials = list(trials)
        self._places = {id(trial): i for i, trial in enumerate(trials)}
        self._hyper = _stack_hyper(trials)
        self._orders, self._order_of = self._orders_of(trials)
        for trial in trials:
            trial.state = None

    def park(self, trial: Trial) -> None:
        """Moves the own state of a trial to the host, until it is stacked."""
        trial.state = fetched(trial.state)

    def drop(self) -> None:
        """Drops the stack, as all of its trials have ended."""
        self.states, self.trials, self._places = None, [], {}

    def settle(self, trial: Trial) -> None:
        """Gives a trial that lies in the stack its own state, in its own shapes."""
        if trial.state is not None:
            return
        shapes = self._shapes(trial)
        key = ("take", len(self.trials), _rank(trial.config))
        if key not in self._programs:
            cut = lambda x, s: x[tuple(slice(n) for n in s.shape)]
            take = lambda states, i: jax.tree.map(lambda x, s: cut(x[i], s), states, shapes)
            self._programs[key] = jax.jit(take, out_shardings=self._shardings)
        trial.state = self._programs[key](self.states, np.int32(self._places[id(trial)]))

    def release(self, trial: Trial) -> None:
        """Takes the own state from a trial that goes on in the stack."""
        if id(trial) in self._places:
            trial.state = None

    def _shapes(self, trial: Trial) -> State:
        program = self.parts(trial.config).program
        like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), program.specs)
        return jax.eval_shape(program.init_state, like)

    def stream(self, start: int) -> Iterator[pipeline.Batch]:
        """Yields the batches of the steps from `start` to the last end of a trial, `[S, ...]`."""
        stop = max(trial.total for trial in self.trials)
        step = start
        while step < stop:
            orders = self._orders  # those of fewer trials, as soon as some have ended
            for batch in pipeline.stream(StackedBatches(orders), step, stop):
                step += 1
                yield self.components.put(batch, orders[0])
                if orders is not self._orders:
                    break

    def advance(self, trials: Sequence[Trial], batch: pipeline.Batch) -> Any:
        """Starts one step of all trials; nothing waits for it. Returns what it reports, `[N]`."""
        given = (self.frozen, batch, self._hyper, self._order_of)
        self.states, metrics = self.compiled(self.states, *given)
        return metrics

    def split(self, trials: Sequence[Trial], metrics: Any) -> Sequence[StepMetrics]:
        """Returns what a step reports of each trial."""
        places = [self._places[id(trial)] for trial in trials]
        return [jax.tree.map(lambda x, i=i: x[i], metrics) for i in places]

    def lengths(self, trial: Trial, step: int) -> np.ndarray:
        """Returns the token counts of the texts of a trial's step, counted from 0."""
        return self._orders[self._order_of[self._places[id(trial)]]].sizes(step)

    # --- evaluation
    # ----------------------------------------------------------------------------------------------
    def evaluate_all(
        self, name: str, trials: Sequence[Trial], *, generate: bool
    ) -> list[evaluation.Evaluation | JaxsftError]:
        """Evaluates trials on a split in one pass; of one that fails, its error."""
        if not trials:
            return []
        run, places = self._evaluating(trials)
        batches = self.batches[name]
        if name == "train":  # without the order of an epoch
            batches = self.components.batches(batches.split)
        passed = passes.run_passes(
            lambda batch: run(self.components.put(batch, batches)),
            batches,
            places,
            self.task.decoded,
        )
        out: list[evaluation.Evaluation | JaxsftError] = []
        for trial, found in zip(trials, passed, strict=True):
            try:
                out.append(self._evaluated(name, trial, batches, found, generate))
            except JaxsftError as error:
                out.append(error)
        return out

    def _evaluating(self, trials: Sequence[Trial]) -> tuple[Callable[..., Any], list[int]]:
        """Returns the evaluation of a batch by a stack, and the places of the trials in it.

        It is the stack that trains, or one of the own states of trials, filled up to a power of two
        so that few programs are compiled.
        """
        if all(trial.state is None for trial in trials):
            weights, hyper = self.program.weights(self.states), self._hyper
            places = [self._places[id(trial)] for trial in trials]
        else:
            for trial in trials:
                self.settle(trial)
            full = 1 << (len(trials) - 1).bit_length()
            if len(trials) <= len(self.trials) < full:
                full = len(self.trials)
            filled = [*trials, *[trials[-1]] * (full - len(trials))]
            own = [fetched(self.program.weights(trial.state)) for trial in filled]
            weights = jax.device_put(stacked(own, np))
            hyper, places = _stack_hyper(filled), list(range(len(trials)))
        if "evaluate" not in self._programs:
            mapped = jax.vmap(self._widest.evaluate, in_axes=(0, None, None, 0))
            self._programs["evaluate"] = jax.jit(mapped)
        evaluate = self._programs["evaluate"]
        return lambda batch: evaluate(weights, self.frozen, batch, hyper), places

    def _evaluated(
        self, name: str, trial: Trial, batches: Batches, found: Any, generate: bool
    ) -> evaluation.Evaluation:
        """Returns the numbers of a trial from its sums and columns of a split."""
        tuned = None if name == "validation" else trial.tuned
        result = evaluation.of_pass(found, self.task, batches, trial.hyper["terms"], tuned)
        trial.tuned = result.tuned
        if not (generate and self.task.generates):
            return result
        self.settle(trial)
        parts = self.parts(trial.config)
        params = partition.merge(parts.program.weights(trial.state), self.frozen)
        given = (params, batches.split, parts.config, self.mesh)
        return answered.with_answers(result, self.task, parts.model, *given)


class StackedBatches:
    """The batches of a step in several orders of the rows, `[S, ...]`; of one order as they are."""

    def __init__(self, orders: Sequence[Batches]):
        """Stores the batches in each order."""
        self.orders = orders

    def __getitem__(self, step: int) -> pipeline.Batch:
        return _stack_batches(self.orders, step)


def _stack_batches(orders: Sequence[Batches], step: int) -> pipeline.Batch:
    if len(orders) == 1:
        return orders[0][step]
    return jax.tree.map(lambda *x: np.stack(x), *[order[step] for order in orders])


def _stack_hyper(trials: Sequence[Trial]) -> Any:
    return jax.tree.map(lambda *x: np.stack(x), *[trial.hyper for trial in trials])


def _rank(config: Config) -> int:
    return getattr(config.adapter, "rank", 0)


def fetched(tree: Any) -> Any:
    """Returns the arrays on the host: stacked there, they need no second place on the device."""
    return jax.device_get(tree)


def stacked(trees: Sequence[Any], of: Any) -> Any:
    """Stacks the leaves of trees, `[N, ...]`; smaller ones are filled up with zeros.

    `of` is numpy or jax.numpy.
    """

    def stack(*leaves: Any) -> Any:
        most = tuple(max(sizes) for sizes in zip(*[x.shape for x in leaves], strict=True))
        fill = lambda x: [(0, n - m) for n, m in zip(most, x.shape, strict=True)]
        return of.stack([x if x.shape == most else of.pad(x, fill(x)) for x in leaves])

    return jax.tree.map(stack, *trees)
