"""What is added to the loss of a task: penalties on weights, and the losses of the routers of
experts. They are not in the loss that is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsft.config.schema import Penalty
from jaxsft.data.pipeline import Batch
from jaxsft.losses.terms import expert_balance, penalties
from jaxsft.models.dropout import Dropout
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.task import Output, Task
from jaxsft.training.hyper import Hyper

EXPERTS = "experts"  # the name of the state of what routers did


def nonzero(weight: Array) -> Array:
    """Returns the weight, or 1 where it is 0, so that a step without targets divides by no zero."""
    return jnp.where(weight > 0, weight, 1)


class Penalties:
    """The penalties on weights, `loss.penalties`."""

    def __init__(self, kinds: Sequence[Penalty], specs: Any):
        """Finds the weights of each. Raises ConfigError where a pattern matches nothing."""
        self.kinds, self.masks = kinds, penalties.masks(kinds, specs)

    def added(self, grads: Params, trainable: Params, hyper: Hyper) -> Params:
        """Returns the gradients with those of the penalties, once for the whole batch."""
        for one, mask, weight in zip(self.kinds, self.masks, hyper["penalties"], strict=True):
            extra = jax.grad(lambda w: weight * penalties.penalty(one.kind, w, mask))(trainable)
            grads = jax.tree.map(jnp.add, grads, extra)
        return grads


def task_output(
    task: Task,
    model: Transformer,
    params: Params,
    batch: Batch,
    hyper: Hyper,
    dropout: Dropout | None,
    *,
    columns: bool,
) -> Output:
    """Returns `task.loss` of a batch, with the counts of the routers of experts in its states."""
    if not model.config.experts or batch.backbone is not None:
        return task.loss(model, params, batch, hyper, dropout, columns=columns)
    model = dataclasses.replace(model, routed=[])
    out = task.loss(model, params, batch, hyper, dropout, columns=columns)
    routed = jax.tree.map(lambda *passes: sum(passes), *model.routed)
    return out._replace(states={**out.states, EXPERTS: routed})


def router_losses(
    layers: int,
    states: Mapping[str, Any],
    expert_counts: Array | None,
    batch: Batch,
    hyper: Hyper,
) -> Array | float:
    """Returns what a micro-batch adds to the losses of the routers.

    Args:
      states: of the output of the micro-batch.
      expert_counts: how often each expert is chosen in the whole batch, `[L, E]`; None: the
        micro-batch is the whole.
      batch: the whole.
    """
    value, routed = 0.0, states.get(EXPERTS)
    tokens = nonzero((batch.segment_ids > 0).sum() * layers)
    if "balance" in hyper:
        value += hyper["balance"] * expert_balance.balance(
            routed.chosen if expert_counts is None else expert_counts, routed.probability, tokens
        )
    if "router_z" in hyper:
        value += hyper["router_z"] * expert_balance.router_z(routed.square, tokens)
    return value
