"""The training step: one jitted function of (state, frozen, batch, hyper). What trials may differ
in is traced, in `hyper`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jaxtyping import Array

from jaxsft import patterns
from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Batch
from jaxsft.errors import ConfigError
from jaxsft.losses.terms import expert_balance, penalties
from jaxsft.models.layers import Dropout
from jaxsft.models.transformer import Params, Transformer
from jaxsft.optim import optimizers, schedules
from jaxsft.sharding.weights import LAYERS, WeightSpec
from jaxsft.tasks.base import Output, Task
from jaxsft.training import partition, vocab_rows
from jaxsft.training.hyper import Hyper

EXPERTS = "experts"  # the name of the state of what routers did


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
    def penalty_masks(self) -> list[Any]:
        return penalties.masks(self.config.loss.penalties, self.specs)

    @functools.cached_property
    def unfreeze_order(self) -> Any:
        """Returns when each trainable parameter is unfrozen, in units of `train.unfreeze_every`.

        Heads are at 0, the top layer at 1, the embedding last; a stack has one for each layer,
        `[n]`.
        """
        layers = self.config.model.layers

        def of_leaf(path: tuple, spec: WeightSpec) -> Any:
            at = [_layer_of(p) for p in patterns.paths_of(patterns.path_string(path), spec)]
            low = layers + 1 if "embed" in (getattr(k, "key", None) for k in path) else 0
            return (
                np.array([low if layer is None else layers - layer for layer in at])
                if spec.stacked
                else low
            )

        return jax.tree_util.tree_map_with_path(of_leaf, self.specs)

    def _unfrozen_mask(self, step: Array, hyper: Hyper) -> Any:
        """Returns flags of the parameters that are trained in this step; None for all of them.

        A flag broadcasts against its weight along the first axis (Howard and Ruder 2018,
        arXiv:1801.06146, section 3.3).
        """
        if "unfreeze_every" not in hyper:
            return None

        def of_leaf(spec: WeightSpec, place: Any) -> Array:
            on = step >= jnp.asarray(place) * hyper["unfreeze_every"]
            return on.reshape(on.shape + (1,) * (len(spec.shape) - 1)) if on.ndim else on

        return jax.tree.map(of_leaf, self.specs, self.unfreeze_order)

    @functools.cached_property
    def row_masks(self) -> Any:
        """Returns which rows are trained under `model.train_rows=added`, as masks; else None."""
        return (
            vocab_rows.trained(self.specs, self.task.tokenizer)
            if self.config.model.train_rows == "added"
            else None
        )

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
        changes nothing but its counters.
        """
        totals = self.task.totals(batch)
        grads, terms, states = self._gradient(state, frozen, batch, hyper, totals)
        grads = self._add_penalties(grads, state.trainable, hyper)
        grads = grads if self.row_masks is None else vocab_rows.only(self.row_masks, grads)
        unfrozen = self._unfrozen_mask(state.step, hyper)
        if unfrozen is not None:  # moments of a layer that waits stay zero
            grads = jax.tree.map(lambda g, on: jnp.where(on, g, 0), grads, unfrozen)
        grads, norm = optimizers.clip_by_global_norm(grads, hyper["clip_norm"])

        rate = schedules.rate(self.config.schedule, state.step, hyper)
        tx = optimizers.build(
            self.config.optim, {**hyper, "learning_rate": rate}, self.specs, *self.factors
        )
        updates, opt = tx.update(grads, state.opt, state.trainable)
        # decay would change the others too
        updates = updates if self.row_masks is None else vocab_rows.only(self.row_masks, updates)
        if unfrozen is not None:  # w + (-0.0) == w bitwise, also for w = -0.0
            updates = jax.tree.map(
                lambda u, on: jnp.where(on, u, jnp.asarray(-0.0, u.dtype)), updates, unfrozen
            )
        trainable = jax.tree.map(lambda w, u: w + u.astype(w.dtype), state.trainable, updates)
        ema = (
            state.ema
            if state.ema is None
            else optimizers.ema_update(
                state.ema, trainable, hyper["ema"], state.step - state.skipped
            )
        )

        has_targets = jnp.stack([w > 0 for w in totals.values()]).all()
        is_finite = jnp.isfinite(norm) & jnp.stack([jnp.isfinite(s) for s in terms.values()]).all()
        is_taken = has_targets & is_finite
        new = State(state.step, state.skipped, trainable, opt, ema)
        # a bad step changes nothing but the clock
        new = jax.tree.map(lambda n, o: jnp.where(is_taken, n, o), new, state)
        new = new.replace(step=state.step + 1, skipped=state.skipped + ~is_taken)
        return new, StepMetrics(terms, totals, states, rate, norm, ~is_taken, state.step)

    def _gradient(
        self, state: State, frozen: Params, batch: Batch, hyper: Hyper, totals: dict[str, Array]
    ):
        """Computes gradient, sums of loss terms and metric states, summed over micro-batches."""
        rows, expert_counts = batch.tokens.shape[0], None
        dropout = self._dropout(state.step, rows, hyper)

        def output(trainable: Params, micro: Batch, dropout: Dropout | None) -> Output:
            return self._output(
                partition.merge(trainable, frozen), micro, hyper, dropout, columns=False
            )

        def objective(trainable: Params, micro: Batch, dropout: Dropout | None):
            out = output(trainable, micro, dropout)
            value = sum(hyper["terms"][k] * s / _safe(totals[k]) for k, s in out.terms.items())
            return value + self._router_losses(out.states, expert_counts, batch, hyper), (
                out.terms,
                out.states,
            )

        gradient = jax.grad(objective, has_aux=True)
        n = self.config.train.accumulate
        if n == 1:
            grads, (terms, states) = gradient(state.trainable, batch, dropout)
            return grads, terms, states

        def of_micro(micro, function=gradient):
            batch, keys = micro
            return function(
                state.trainable, batch, None if keys is None else dropout._replace(keys=keys)
            )

        cut = lambda x: x.reshape(n, rows // n, *x.shape[1:])
        micro_batches = jax.tree.map(cut, (batch, None if dropout is None else dropout.keys))
        # how often each expert is chosen in the whole batch: a forward pass more, for the loss is
        # no sum over its parts
        if "balance" in hyper:
            expert_counts = lax.map(
                lambda micro: of_micro(micro, output).states[EXPERTS].chosen, micro_batches
            ).sum(0)
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of_micro, _first(micro_batches))
        )
        add = lambda sums, micro: (jax.tree.map(jnp.add, sums, of_micro(micro)), None)
        (grads, (terms, states)), _ = lax.scan(add, zeros, micro_batches)
        return grads, terms, states

    def _output(
        self, params: Params, batch: Batch, hyper: Hyper, dropout: Dropout | None, *, columns: bool
    ) -> Output:
        """Returns the task's output for a batch, with the experts' router counts in its states."""
        if not self.config.model.experts or batch.backbone is not None:
            return self.task.loss(self.model, params, batch, hyper, dropout, columns=columns)
        model = dataclasses.replace(self.model, routed=[])
        out = self.task.loss(model, params, batch, hyper, dropout, columns=columns)
        return out._replace(
            states={**out.states, EXPERTS: jax.tree.map(lambda *passes: sum(passes), *model.routed)}
        )

    def _router_losses(
        self, states: Mapping[str, Any], expert_counts: Array | None, batch: Batch, hyper: Hyper
    ) -> Array | float:
        """Returns what a micro-batch adds to the losses of the routers.

        As penalties, they are not in the loss that is reported.

        Args:
          expert_counts: how often each expert is chosen in the whole batch, `[L, E]`; None: the
            micro-batch is the whole.
          batch: the whole.
        """
        value, routed = 0.0, states.get(EXPERTS)
        tokens = _safe((batch.segment_ids > 0).sum() * self.config.model.layers)
        if "balance" in hyper:
            value += hyper["balance"] * expert_balance.balance(
                routed.chosen if expert_counts is None else expert_counts,
                routed.probability,
                tokens,
            )
        if "router_z" in hyper:
            value += hyper["router_z"] * expert_balance.router_z(routed.square, tokens)
        return value

    def _dropout(self, step: Array, rows: int, hyper: Hyper) -> Dropout | None:
        """Returns one dropout key for each row, from (seed, step, row); None without dropout.

        The keys are the same however the batch is cut.
        """
        if "dropout" not in hyper:
            return None
        key = jax.random.fold_in(jax.random.key(hyper["dropout_seed"], impl="threefry2x32"), step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
        return Dropout(hyper["dropout"], keys, hyper.get("adapter_dropout"), hyper.get("neftune"))

    def _add_penalties(self, grads: Params, trainable: Params, hyper: Hyper) -> Params:
        for one, mask, weight in zip(
            self.config.loss.penalties, self.penalty_masks, hyper["penalties"], strict=True
        ):
            extra = jax.grad(lambda w: weight * penalties.penalty(one.kind, w, mask))(trainable)
            grads = jax.tree.map(jnp.add, grads, extra)
        return grads

    # --- evaluation
    # ----------------------------------------------------------------------------------------------
    def evaluate(
        self, trainable: Params, frozen: Params, batch: Batch, hyper: Hyper
    ) -> tuple[Any, dict[str, Array]]:
        """Returns ((terms, totals, states), columns): the step's loss, without dropout."""
        out = self._output(partition.merge(trainable, frozen), batch, hyper, None, columns=True)
        return (out.terms, self.task.totals(batch), out.states), out.columns


def _safe(weight: Array) -> Array:
    """Returns the weight, or 1 where it is 0, so that a step without targets divides by no zero."""
    return jnp.where(weight > 0, weight, 1)


def _layer_of(path: str) -> int | None:
    """Returns the number of the layer that a virtual path names; None where it names none."""
    found = re.search(rf"(?:^|/){LAYERS}/(\d+)/", path)
    return int(found[1]) if found else None


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def check_unfreezing(program: Program, hyper: Hyper, total: int) -> None:
    """Raises ConfigError where the run ends before everything is unfrozen."""
    last = max(int(np.max(place)) for place in jax.tree.leaves(program.unfreeze_order))
    if "unfreeze_every" in hyper and (at := last * int(hyper["unfreeze_every"])) >= total:
        raise ConfigError(
            f"train.unfreeze_every={program.config.train.unfreeze_every}: the last of {last} turns"
            f" would come at step {at}, but the run has {total} steps; give a shorter one, or"
            " freeze what is not to be trained by train.freeze"
        )


def objective_value(
    terms: Mapping[str, Any], totals: Mapping[str, Any], weights: Mapping[str, Any]
) -> float:
    """Computes `sum_k lambda_k S_k / W_k` of merged sums, on the host; NaN where a `W_k` is 0."""
    return float(
        sum(
            float(weights[k])
            * (float(terms[k]) / float(totals[k]) if totals[k] > 0 else float("nan"))
            for k in terms
        )
    )
