"""The training step: one jitted function of (state, frozen, batch, hyper). What trials may differ
in is traced, in `hyper`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Batch
from jaxsft.models import adapters
from jaxsft.models.dropout import Dropout
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.optim import optimizers, schedules
from jaxsft.tasks.task import Output, Task
from jaxsft.training import extra_losses, partition
from jaxsft.training.extra_losses import nonzero
from jaxsft.training.hyper import Hyper
from jaxsft.training.pruning import Pruning
from jaxsft.training.unfreezing import Movable


class State(struct.PyTreeNode):
    """The values that a step changes, and nothing else. The learning-rate clock is `step`; a
    skipped step moves it and nothing but it.
    """

    step: Array  # int32
    skipped: Array  # int32: steps whose gradient was not finite, or that had nothing to train on
    trainable: Params
    opt: Any
    ema: Params | None


class StepMetrics(struct.PyTreeNode):
    """The numbers that a step reports: sums that add over steps, and a few numbers of the step
    itself.
    """

    terms: dict[str, Array]
    totals: dict[str, Array]
    states: dict[str, Any]
    learning_rate: Array
    grad_norm: Array
    skipped: Array  # bool
    step: Array  # int32: which step it was


@dataclasses.dataclass(frozen=True)
class Program:
    """The static half of training: what is compiled in. `specs` are those of the trainable
    parameters.
    """

    config: Config
    task: Task
    model: Transformer
    specs: Any

    @functools.cached_property
    def factors(self) -> tuple[Any, Any]:
        return optimizers.factors(self.config.optim, self.specs)

    @functools.cached_property
    def penalties(self) -> extra_losses.Penalties:
        return extra_losses.Penalties(self.config.loss.penalties, self.specs)

    @functools.cached_property
    def movable(self) -> Movable:
        """Returns which of the trainable weights move: all, but for two options (`unfreezing`)."""
        return Movable(self.config.model, self.specs, self.task)

    @functools.cached_property
    def pruning(self) -> Pruning:
        return Pruning(self.config, self.specs)

    def init_state(self, trainable: Params) -> State:
        opt = optimizers.init_state(self.config.optim, self.specs, trainable)
        ema = optimizers.ema_init(trainable) if self.config.train.ema is not None else None
        # A copy each: `step` donates its state, and two of its leaves must not be one buffer.
        fresh = lambda tree: jax.tree.map(jnp.array, tree)
        return State(jnp.int32(0), jnp.int32(0), fresh(trainable), fresh(opt), fresh(ema))

    def weights(self, state: State) -> Params:
        """Returns the weights that evaluation uses: the moving average where there is one."""
        return state.trainable if state.ema is None else state.ema

    # --- one step
    # ----------------------------------------------------------------------------------------------
    def step(
        self, state: State, frozen: Params, batch: Batch, hyper: Hyper
    ) -> tuple[State, StepMetrics]:
        """Computes the gradient of `sum_k lambda_k S_k / W_k` over the batch and updates once.

        `S_k` is the sum of loss term k over the batch, `W_k` its weights, by which it is divided
        once, however the batch is cut. A step without targets or with a gradient that is not finite
        changes nothing but its counters, and what pruning makes zero then.
        """
        totals = self.task.totals(batch)
        grads, terms, states = self._gradient(state, frozen, batch, hyper, totals)
        grads = self.penalties.added(grads, state.trainable, hyper)
        grads = self.movable.gradients(grads, state.step, hyper)
        grads, norm = optimizers.clip_by_global_norm(grads, hyper["clip_norm"])

        rate = schedules.rate(self.config.schedule, state.step, hyper)
        tx = optimizers.build(
            self.config.optim, {**hyper, "learning_rate": rate}, self.specs, *self.factors
        )
        updates, opt = tx.update(grads, state.opt, state.trainable)
        updates = self.movable.updates(updates, state.step, hyper)
        trainable = jax.tree.map(lambda w, u: w + u.astype(w.dtype), state.trainable, updates)
        ema, taken = state.ema, state.step - state.skipped
        if ema is not None:
            ema = optimizers.ema_update(ema, trainable, hyper["ema"], taken)

        has_targets = jnp.stack([w > 0 for w in totals.values()]).all()
        is_finite = jnp.isfinite(norm) & jnp.stack([jnp.isfinite(s) for s in terms.values()]).all()
        is_taken = has_targets & is_finite
        new = State(state.step, state.skipped, trainable, opt, ema)
        # a bad step changes nothing but the clock
        new = jax.tree.map(lambda n, o: jnp.where(is_taken, n, o), new, state)
        # zeros come when they are due, in such a step too
        trainable = self.pruning.weights(state.trainable, new.trainable, state.step, hyper)
        clock = {"step": state.step + 1, "skipped": state.skipped + ~is_taken}
        new = new.replace(trainable=trainable, **clock)
        return new, StepMetrics(terms, totals, states, rate, norm, ~is_taken, state.step)

    def _gradient(
        self, state: State, frozen: Params, batch: Batch, hyper: Hyper, totals: dict[str, Array]
    ):
        """Computes gradient, sums of loss terms and metric states, summed over micro-batches."""
        rows, expert_counts = batch.tokens.shape[0], None
        hyper = {**hyper, "step": state.step}
        dropout = self._dropout(state.step, rows, hyper)

        def output(trainable: Params, micro: Batch, dropout: Dropout | None) -> Output:
            params = self._merged(trainable, frozen, hyper)
            given = (self.task, self.model, params, micro, hyper, dropout)
            return extra_losses.task_output(*given, columns=False)

        def objective(trainable: Params, micro: Batch, dropout: Dropout | None):
            out = output(trainable, micro, dropout)
            value = sum(hyper["terms"][k] * s / nonzero(totals[k]) for k, s in out.terms.items())
            routers = (self.config.model.layers, out.states, expert_counts, batch, hyper)
            return value + extra_losses.router_losses(*routers), (out.terms, out.states)

        gradient = jax.grad(objective, has_aux=True)
        n = self.config.train.accumulate
        if n == 1:
            grads, (terms, states) = gradient(state.trainable, batch, dropout)
            return grads, terms, states

        def of_micro(micro, function=gradient):
            batch, keys = micro
            noise = None if keys is None else dropout._replace(keys=keys)
            return function(state.trainable, batch, noise)

        cut = lambda x: x.reshape(n, rows // n, *x.shape[1:])
        micro_batches = jax.tree.map(cut, (batch, None if dropout is None else dropout.keys))
        # how often each expert is chosen in the whole batch: a forward pass more, for the loss is
        # no sum over its parts
        if "balance" in hyper:
            count = lambda micro: of_micro(micro, output).states[extra_losses.EXPERTS].chosen
            expert_counts = lax.map(count, micro_batches).sum(0)
        first = jax.tree.map(lambda x: x[0], micro_batches)
        empty = lambda s: jnp.zeros(s.shape, s.dtype)
        zeros = jax.tree.map(empty, jax.eval_shape(of_micro, first))
        add = lambda sums, micro: (jax.tree.map(jnp.add, sums, of_micro(micro)), None)
        (grads, (terms, states)), _ = lax.scan(add, zeros, micro_batches)
        return grads, terms, states

    def _merged(self, trainable: Params, frozen: Params, hyper: Hyper) -> Params:
        """Returns all weights, those of the adapter with its traced scale."""
        params = partition.merge(trainable, frozen)
        if "adapter_scale" not in hyper:
            return params
        return adapters.scaled(params, jnp.asarray(hyper["adapter_scale"]))

    def _dropout(self, step: Array, rows: int, hyper: Hyper) -> Dropout | None:
        """Returns one dropout key for each row, from (seed, step, row); None without dropout.

        The keys are the same however the batch is cut.
        """
        if "dropout" not in hyper:
            return None
        key = jax.random.fold_in(jax.random.key(hyper["dropout_seed"], impl="threefry2x32"), step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
        return Dropout(hyper["dropout"], keys, hyper.get("adapter_dropout"), hyper.get("neftune"))

    # --- evaluation
    # ----------------------------------------------------------------------------------------------
    def evaluate(
        self, trainable: Params, frozen: Params, batch: Batch, hyper: Hyper
    ) -> tuple[Any, dict[str, Array]]:
        """Returns ((terms, totals, states), columns): the step's loss, without dropout."""
        params = self._merged(trainable, frozen, hyper)
        given = (self.task, self.model, params, batch, hyper, None)
        out = extra_losses.task_output(*given, columns=True)
        return (out.terms, self.task.totals(batch), out.states), out.columns
