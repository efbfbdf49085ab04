"""A linear chain over the words of packed texts (Lafferty et al., 2001): log-likelihood by the
forward algorithm, the best tags by Viterbi's.

A row holds several chains side by side. A chain is a run of words of one number, and 0 is no word.
It begins with the scores of `start` where its first word begins a text, and ends with those of
`end` where its last one ends it: a window of a longer text has neither at its cut ends.

Letters: B batch, W words of a row, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxsft.models.dropout import Dropout
from jaxsft.models.heads import TokenHead
from jaxsft.products import at_least_fp32
from jaxsft.sharding.weights import declare


class Chains(NamedTuple):
    """The chain of each word, and where a text begins and ends, all `[B, W]`."""

    number: Int[Array, "batch words"]  # 0: no word
    first: Bool[Array, "batch words"]  # the word begins its text
    last: Bool[Array, "batch words"]  # the word ends its text

    @property
    def begins(self) -> Bool[Array, "batch words"]:
        return self.number != jnp.pad(self.number, ((0, 0), (1, 0)))[:, :-1]

    @property
    def ends(self) -> Bool[Array, "batch words"]:
        return (self.number != jnp.pad(self.number, ((0, 0), (0, 1)))[:, 1:]) & (self.number > 0)


class ChainScores(NamedTuple):
    """The learned scores of a chain.

    Of one tag after another, `[before, after]`, and of a text's first and last tag.
    """

    transitions: Float[Array, "classes classes"]
    start: Float[Array, " classes"]
    end: Float[Array, " classes"]


class TagHead(TokenHead):
    """A head with logits of each word, `[B, W, D] -> [B, W, C]`, and chain scores with `crf`."""

    classes: int = 2
    crf: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch words embed"], dropout: Dropout | None = None
    ) -> Float[Array, "batch words classes"]:
        c, zeros = self.classes, nn.initializers.zeros
        y = self.logits(x, c, dropout)
        if self.crf:
            self.param("transitions", declare(zeros, ("classes", "classes")), (c, c))
            self.param("start", declare(zeros, ("classes",)), (c,))
            self.param("end", declare(zeros, ("classes",)), (c,))
        return y


def negative_log_likelihood(
    logits: Float[Array, "batch words classes"],
    tags: Int[Array, "batch words"],
    chains: Chains,
    scores: ChainScores,
) -> Array:
    """Computes `log Z - score(tags)` of each chain, `[B, W]`: at its last word, and 0 elsewhere.

    `score(t) = start[t_1] + sum_i logits[i, t_i] + sum_i transitions[t_i, t_i+1] + end[t_n]`, and Z
    sums `exp score` over all tags.
    """
    logits = logits.astype(at_least_fp32(logits.dtype))
    gold = jnp.take_along_axis(logits, tags[..., None], axis=-1)[..., 0]  # [B, W]
    before = jnp.pad(tags, ((0, 0), (1, 0)))[:, :-1]
    begins, ends = chains.begins, chains.ends
    gold = gold + jnp.where(
        begins, jnp.where(chains.first, scores.start[tags], 0), scores.transitions[before, tags]
    )
    gold = gold + jnp.where(ends & chains.last, scores.end[tags], 0)

    def step(carry, word):
        alpha, total = carry  # [B, C], [B]
        logit, add, begin, first = word
        entering = jnp.where(first[:, None], scores.start, 0)
        onwards = jax.nn.logsumexp(alpha[:, :, None] + scores.transitions, axis=1)
        alpha = jnp.where(begin[:, None], entering, onwards) + logit
        total = jnp.where(begin, 0, total) + add
        return (alpha, total), (alpha, total)

    start = (jnp.zeros_like(logits[:, 0]), jnp.zeros_like(gold[:, 0]))
    along = lambda *arrays: tuple(jnp.moveaxis(x, 1, 0) for x in arrays)
    _, (alpha, total) = lax.scan(step, start, along(logits, gold, begins, chains.first))
    alpha, total = along(alpha, total)  # [B, W, C], [B, W]
    log_z = jax.nn.logsumexp(alpha + jnp.where(chains.last[..., None], scores.end, 0), axis=-1)
    return jnp.where(ends, log_z - total, 0)


def viterbi(
    logits: Float[Array, "batch words classes"], chains: Chains, scores: ChainScores
) -> Int[Array, "batch words"]:
    """Returns the tags with the highest score in each chain; 0 where there is no word.

    The algorithm is that of Viterbi, 1967.
    """
    logits = logits.astype(at_least_fp32(logits.dtype))

    def forward(best, word):
        logit, begin, first = word
        candidates = best[:, :, None] + scores.transitions  # [B, before, after]
        entering = jnp.where(first[:, None], scores.start, 0)
        best = jnp.where(begin[:, None], entering, candidates.max(1)) + logit
        return best, (best, candidates.argmax(1).astype(jnp.int32))

    along = lambda *arrays: tuple(jnp.moveaxis(x, 1, 0) for x in arrays)
    _, (best, came_from) = lax.scan(
        forward, jnp.zeros_like(logits[:, 0]), along(logits, chains.begins, chains.first)
    )
    # of the word behind each
    next_came_from = jnp.concatenate([came_from[1:], jnp.zeros_like(came_from[:1])])

    def backward(tag, word):
        best, came_from, end, last = word
        at_end = (best + jnp.where(last[:, None], scores.end, 0)).argmax(-1).astype(jnp.int32)
        tag = jnp.where(end, at_end, jnp.take_along_axis(came_from, tag[:, None], axis=-1)[:, 0])
        return tag, tag

    ends = along(chains.ends, chains.last)
    _, tags = lax.scan(
        backward, jnp.zeros(logits.shape[0], jnp.int32), (best, next_came_from, *ends), reverse=True
    )
    return jnp.where(chains.number > 0, jnp.moveaxis(tags, 0, 1), 0)
