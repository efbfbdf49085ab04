"""Mergeable metric states. `update` runs inside jit, `merge` adds anywhere, `compute` gives numbers
on the host.

Counts are integers and every sum is merged on the host in float64, so a metric does not depend on
the batch size or the order. Metrics count with the mask of what is there, never with the loss
weight.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


class MetricState(struct.PyTreeNode):
    """A metric state: a pytree of sums."""

    def merge(self, other: MetricState) -> MetricState:
        return jax.tree.map(lambda a, b: a + b, self, other)

    def compute(self) -> dict[str, float]:
        raise TypeError(f"{type(self).__name__} has no numbers of its own")

    def brief(self) -> dict[str, float]:
        """Returns the numbers of a log line during training."""
        return self.compute()


def widen(tree: Any) -> Any:
    """Moves sums from the device to the host, in float64 and int64, ready to be merged."""
    wide = lambda x: np.asarray(
        x, np.int64 if np.issubdtype(np.asarray(x).dtype, np.integer) else np.float64
    )
    return jax.tree.map(wide, tree)


def merge(a: Any, b: Any) -> Any:
    """Adds two trees of states; None is empty."""
    return b if a is None else jax.tree.map(lambda x, y: x + y, a, b)


class TokenStatistics(MetricState):
    """Token accuracy and perplexity over the trained tokens."""

    nll: Any
    correct: Any
    count: Any

    @classmethod
    def update(cls, nll, correct, mask) -> TokenStatistics:
        """Sums a batch. nll, correct, mask: `[B, S]`."""
        count = mask.sum(dtype=jnp.int32)
        return cls(jnp.where(mask, nll, 0).sum(), (correct & mask).sum(dtype=jnp.int32), count)

    def compute(self) -> dict[str, float]:
        n = int(self.count)
        if not n:
            return {"perplexity": math.nan, "token_accuracy": math.nan, "tokens": 0}
        mean = float(self.nll) / n
        return {
            "perplexity": math.inf if mean > 700 else math.exp(mean),
            "token_accuracy": int(self.correct) / n,
            "tokens": n,
        }


class Hits(MetricState):
    """The share of right items, under the name `name`."""

    correct: Any
    count: Any
    name: str = struct.field(pytree_node=False, default="accuracy")

    @classmethod
    def update(cls, correct, mask, name: str = "accuracy") -> Hits:
        """Counts a batch. correct, mask: any equal shape."""
        return cls((correct & mask).sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32), name)

    def compute(self) -> dict[str, float]:
        return {self.name: int(self.correct) / int(self.count) if int(self.count) else math.nan}


class Confusion(MetricState):
    """A confusion matrix of counts `[gold, predicted]`."""

    matrix: Any

    @classmethod
    def update(cls, gold, predicted, mask, classes: int) -> Confusion:
        """Counts a batch. gold, predicted, mask: any equal shape; classes: C."""
        cell = jnp.where(mask, gold * classes + predicted, classes * classes).reshape(-1)
        counts = jnp.zeros(classes * classes + 1, jnp.int32).at[cell].add(1)
        return cls(counts[:-1].reshape(classes, classes))

    def compute(self) -> dict[str, float]:
        """Computes accuracy, and precision, recall and F1: macro, micro, weighted by support.

        Macro averages over the classes that occur. 0/0 is 0, as in scikit-learn.
        """
        m = np.asarray(self.matrix, np.float64)
        total, hit, gold, predicted = m.sum(), np.diag(m), m.sum(1), m.sum(0)
        if not total:
            return {"accuracy": math.nan, "rows": 0}
        divide = lambda a, b: np.divide(a, b, out=np.zeros_like(a), where=b > 0)
        scores = {
            "precision": divide(hit, predicted),
            "recall": divide(hit, gold),
            "f1": divide(2 * hit, gold + predicted),
        }
        occurs = (gold + predicted) > 0
        out = {"accuracy": hit.sum() / total, "rows": int(total)}
        for name, value in scores.items():
            out[f"{name}_macro"] = value[occurs].mean()
            out[f"{name}_weighted"] = (value * gold).sum() / total
            # with one label a text, all three are the accuracy
            out[f"{name}_micro"] = hit.sum() / total
        return {k: v if isinstance(v, int) else float(v) for k, v in out.items()}

    def brief(self) -> dict[str, float]:
        return {"accuracy": self.compute()["accuracy"]}
