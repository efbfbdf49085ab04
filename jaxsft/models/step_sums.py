"""Sums that a step reports, for the lines that are logged during training: `update` runs inside
jit, `merge` adds anywhere, `brief` gives numbers on the host.

Counts are integers and every sum is merged on the host in float64, so that a number does not depend
on the batch size or the order. They count with the mask of what is there, never with the loss
weight. The numbers of an evaluation are those of `jaxsft/metrics`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class StepSums(struct.PyTreeNode):
    """A pytree of sums."""

    def merge(self, other: StepSums) -> StepSums:
        return jax.tree.map(lambda a, b: a + b, self, other)

    def brief(self) -> dict[str, float]:
        """Returns the numbers of a log line."""
        raise NotImplementedError


def widen(tree: Any) -> Any:
    """Moves sums from the device to the host, in float64 and int64, ready to be merged."""
    wide = lambda x: np.asarray(
        x, np.int64 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float64
    )
    return jax.tree.map(wide, tree)


def merge(a: Any, b: Any) -> Any:
    """Adds two trees of states; None is empty."""
    return b if a is None else jax.tree.map(lambda x, y: x + y, a, b)


class TokenSums(StepSums):
    """Token accuracy and perplexity over the trained tokens."""

    nll: Any
    correct: Any
    count: Any

    @classmethod
    def update(cls, nll, correct, mask) -> TokenSums:
        """Sums a batch. nll, correct, mask: `[B, S]`."""
        count = mask.sum(dtype=jnp.int32)
        return cls(jnp.where(mask, nll, 0).sum(), (correct & mask).sum(dtype=jnp.int32), count)

    def brief(self) -> dict[str, float]:
        n = int(self.count)
        if not n:
            return {"perplexity": math.nan, "token_accuracy": math.nan, "tokens": 0}
        mean = float(self.nll) / n
        return {
            "perplexity": math.inf if mean > 700 else math.exp(mean),
            "token_accuracy": int(self.correct) / n,
            "tokens": n,
        }


class Hits(StepSums):
    """The share of right items, under the name `name`."""

    correct: Any
    count: Any
    name: str = struct.field(pytree_node=False, default="accuracy")

    @classmethod
    def update(cls, correct, mask, name: str = "accuracy") -> Hits:
        """Counts a batch. correct, mask: any equal shape."""
        return cls((correct & mask).sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32), name)

    def brief(self) -> dict[str, float]:
        return {self.name: int(self.correct) / int(self.count) if int(self.count) else math.nan}


class LabelSums(StepSums):
    """How many labels are right, and how many are wrong or missed, of any number a text has."""

    hit: Any
    errors: Any

    @classmethod
    def update(cls, gold, given, present) -> LabelSums:
        """Counts a batch. gold, given: `[..., L]` bool; present: `[...]` bool."""
        there = present[..., None]
        count = lambda x: (x & there).sum(dtype=jnp.int32)
        return cls(count(gold & given), count(gold ^ given))

    def brief(self) -> dict[str, float]:
        hit, errors = int(self.hit), int(self.errors)
        return {"f1_micro": 2 * hit / (2 * hit + errors) if hit + errors else math.nan}


class SquaredErrorSums(StepSums):
    """The mean squared error over all targets that are not missing, in the units of the loss."""

    total: Any
    count: Any

    @classmethod
    def update(cls, predicted, targets, mask) -> SquaredErrorSums:
        """Sums a batch. predicted, targets, mask: any equal shape."""
        return cls(
            jnp.where(mask, jnp.square(predicted - targets), 0).sum(), mask.sum(dtype=jnp.int32)
        )

    def brief(self) -> dict[str, float]:
        return {"mse_scaled": float(self.total) / int(self.count) if self.count else math.nan}
