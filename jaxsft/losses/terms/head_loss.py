"""The loss of the head of a task, made once from its config. A task knows its outputs and targets,
and no scalar by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsft import losses
from jaxsft.losses.terms import smoothing
from jaxsft.losses.terms.tokens import TokenStats, from_logits

Scalars = Mapping[str, Any]  # the traced values of a run, all of them
OF_BATCH = ("step", "weights")  # of `losses.INPUTS`, what changes from step to step


class HeadLoss:
    """`task.loss` where a task has that option, otherwise cross-entropy; without any reduction.

    Attributes:
      name: of the loss, and of its term.
      inputs: what the task has learnt of what the loss is given (`losses.INPUTS`).
    """

    def __init__(self, task: Any, inputs: Callable[[str], Any] | None = None):
        self.name = getattr(task, "loss", "cross_entropy")
        self.loss = losses.get(self.name)
        own = [name for name in self.loss.inputs if name not in OF_BATCH]
        self.inputs = {} if inputs is None else {name: inputs(name) for name in own}

    def values(
        self, outputs: Array, targets: Array, scalars: Scalars, weights: Array | None = None
    ) -> Array:
        """Computes the loss of outputs and targets as they are (`losses.TARGETS`).

        The weights are those of the values, for a loss that compares the texts of a batch.
        """
        own = {name: scalars[name] for name in self.loss.own_scalars}
        of_batch = {"step": scalars.get("step", np.inf), "weights": weights}
        beside = {name: one for name, one in of_batch.items() if name in self.loss.inputs}
        return self.loss.values(outputs, targets, own | self.inputs | beside)

    def of_labels(
        self,
        logits: Float[Array, "... classes"],
        labels: Int[Array, ...],
        scalars: Scalars,
        weights: Float[Array, ...] | None = None,
    ) -> Float[Array, ...]:
        """Computes the loss of labels, one of several classes each.

        A loss between numbers compares logits and one-hot labels, in the mean over the classes.
        """
        if self.loss.targets == "labels":
            return self.values(logits, labels, scalars, weights)
        target = smoothing.one_hot(labels, logits.shape[-1], logits.dtype, scalars)
        return self.values(logits, target, scalars).mean(-1)

    def of_label_sets(
        self,
        logits: Float[Array, "... labels"],
        present: Bool[Array, "... labels"],
        scalars: Scalars,
    ) -> Float[Array, "... labels"]:
        """Computes the loss of labels of which each is there or not.

        A loss between numbers compares probabilities.
        """
        outputs = logits if self.loss.targets == "probabilities" else jax.nn.sigmoid(logits)
        return self.values(outputs, smoothing.label_set(present, scalars), scalars)

    @staticmethod
    def of_tokens(stats: TokenStats, scalars: Scalars) -> Float[Array, ...]:
        """Computes cross-entropy over the vocabulary, from the statistics of tokens."""
        return smoothing.expected(stats.nll, stats.uniform, scalars)

    @classmethod
    def of_words(
        cls, logits: Float[Array, "... classes"], labels: Int[Array, ...], scalars: Scalars
    ) -> Float[Array, ...]:
        """Computes cross-entropy of the labels of words, in at least float32."""
        return cls.of_tokens(from_logits(logits, labels), scalars)
