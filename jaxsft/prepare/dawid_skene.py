"""The model of Dawid and Skene, by EM: true labels behind annotators with errors of their own.

Source: Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm", Applied Statistics 28(1), 1979. An annotator a writes class k for an item of class c
with probability `confusion[a, c, k]`; classes have the shares `prior[c]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsft.errors import DataError

STEPS = 200
# added to every count, so that one that was never seen is unlikely and not impossible
SMOOTHING = 0.01


class Consensus(NamedTuple):
    """The estimate from the work of all annotators.

    Attributes:
      posterior: `[I, C]`, the probability of each class for each item.
      confusion: `[A, C, C]`, what annotator a writes (last axis) where class c is true.
      prior: `[C]`.
      log_likelihood: `[STEPS]` of the ratings and the smoothing, before each step; it never falls.
    """

    posterior: Float[Array, "I C"]
    confusion: Float[Array, "A C C"]
    prior: Float[Array, " C"]
    log_likelihood: Float[Array, " T"]


def estimate(
    ratings: Int[np.ndarray, "A I"], classes: int, smoothing: float = SMOOTHING
) -> Consensus:
    """Estimates the model by EM from the votes of the majority.

    Args:
      ratings: `[A, I]`, the class that annotator a gave to item i, 0 to C-1; -1 where there is
        none.
      smoothing: the weight of a Dirichlet prior (`1 + smoothing`) on every line of the confusions
        and on the shares of the classes.

    Raises:
      DataError: an item without any rating, or a rating that is no class.
    """
    ratings = np.asarray(ratings)
    if ratings.ndim != 2 or not ratings.size or ratings.max() >= classes or ratings.min() < -1:
        raise DataError(
            f"Dawid-Skene: found ratings of shape {list(ratings.shape)}, expected [annotators,"
            f" items] of 0 to {classes - 1}, or -1 for none"
        )
    return estimate_counts(np.asarray(jax.nn.one_hot(ratings, classes)), smoothing)


def estimate_counts(counts: Float[np.ndarray, "A I C"], smoothing: float = SMOOTHING) -> Consensus:
    """Estimates the model where an annotator may answer an item several times.

    `counts[a, i, k]` is how often annotator a gave class k to item i.

    One line for everybody takes ratings whose authors are not known: all have the errors of one
    then.

    Raises:
      DataError: an item without any rating, or a count that is negative or not finite.
    """
    counts = np.asarray(counts, np.float32)
    if counts.ndim != 3 or not counts.size or not np.isfinite(counts).all() or counts.min() < 0:
        raise DataError(
            f"Dawid-Skene: found counts of shape {list(counts.shape)}, expected [annotators, items,"
            " classes] of finite numbers, 0 or more"
        )
    if (empty := counts.sum((0, 2)) == 0).any():
        raise DataError(
            f"Dawid-Skene: item number {int(empty.argmax()) + 1} has no rating; leave it out"
        )
    return _em(jnp.asarray(counts), smoothing)


@jax.jit
def _em(given: Float[Array, "A I C"], smoothing: float) -> Consensus:
    def maximise(posterior):
        prior = posterior.sum(0) + smoothing
        confusion = jnp.einsum("ic,aik->ack", posterior, given) + smoothing
        return prior / prior.sum(), confusion / confusion.sum(-1, keepdims=True)

    def expect(prior, confusion):
        joint = jnp.log(prior) + jnp.einsum("aik,ack->ic", given, jnp.log(confusion))
        evidence = jax.nn.logsumexp(joint, -1)
        penalty = smoothing * (jnp.log(prior).sum() + jnp.log(confusion).sum())
        return jnp.exp(joint - evidence[:, None]), evidence.sum() + penalty

    def step(posterior, _):
        posterior, likelihood = expect(*maximise(posterior))
        return posterior, likelihood

    votes = given.sum(0)
    posterior, likelihood = jax.lax.scan(
        step, votes / votes.sum(-1, keepdims=True), None, length=STEPS
    )
    prior, confusion = maximise(posterior)
    return Consensus(posterior, confusion, prior, likelihood)
