"""The share of each token in the score of its text, by one of several methods.

Each method gives `[N, S]` scores of texts `[N, S]`, 0 where a token is not explained. Those of
gradients run batched in one jitted function; those that leave tokens out evaluate many versions of
a text in calls of one shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsft.errors import ConfigError
from jaxsft.evaluation import shapley
from jaxsft.evaluation.text_scores import ScoredTexts, TextScores, chunks
from jaxsft.models.attention import TokenInfo
from jaxsft.models.explained_transformer import ExplainedTransformer

MOST_STEPS = 1024
POINTS = 16  # of one part of a path: one program for any number of them


@dataclasses.dataclass(frozen=True)
class Effort:
    """The work that an estimate takes.

    Attributes:
      steps: points on the path of integrated gradients, doubled until its sum is right.
      tolerance: by how much the sum may differ from the difference of the scores.
      samples: noisy copies, neighbours, coalitions; permutations are a tenth of it.
      noise: of SmoothGrad, in units of the spread of the embeddings.
      seed: of all that is drawn.
    """

    steps: int = 32
    tolerance: float = 1e-3
    samples: int = 256
    noise: float = 0.15
    seed: int = 0


Scores = Float[np.ndarray, "texts seq"]
Method = Callable[[TextScores, ScoredTexts, np.ndarray, Effort], Scores]


def attribute(
    method: str, scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
) -> Scores:
    """Returns the scores of tokens, float64. Raises ConfigError for a method that does not fit."""
    if method in PATHS and scores.baseline == "delete":
        raise ConfigError(
            f"explain.baseline=delete: explain.method={method} follows the embeddings to those of"
            " an absent token; choose mask, pad or zero"
        )
    found = np.asarray(METHODS[method](scores, texts, target, effort), np.float64)
    if not np.isfinite(found).all():
        raise ConfigError(f"explain.method={method}: gives scores that are not finite numbers")
    return np.where(texts.explained, found, 0)


# --- gradients
# --------------------------------------------------------------------------------------------------
def _gradient(
    scores: TextScores, params, texts: ScoredTexts, vectors: Array, target: Array
) -> Array:
    """Computes the gradient of the score of each text, `[N, S, D]`, at these embeddings."""
    total = lambda v: scores.score(scores.outputs(params, texts.batch, v), target).sum()
    return jax.grad(total)(vectors)


def _batched(scores: TextScores, texts: ScoredTexts, target: np.ndarray, run: Callable) -> Scores:
    """Returns what `run(params, texts, target)` gives, from calls of one shape."""
    parts = []
    for index, size in chunks(len(texts)):
        part = jax.tree.map(lambda a, i=index: a[i], (texts, target))
        parts.append(np.asarray(run(scores.params, *part), np.float64)[:size])
    return np.concatenate(parts)


def gradient_x_input(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
) -> Scores:
    """Computes the product of gradient and embedding (Shrikumar et al., 2017)."""

    @jax.jit
    def run(params, texts, target):
        x = scores.embeddings(params, texts.batch)
        return (_gradient(scores, params, texts, x, target) * x).sum(-1)

    return _batched(scores, texts, target, run)


def smoothgrad(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
) -> Scores:
    """Computes gradient x input with the mean gradient at noisy embeddings (Smilkov et al., 2017).

    The noise has `effort.noise` times the standard deviation of the embeddings of the text.
    """
    copies = max(1, effort.samples // 10)

    @jax.jit
    def run(params, texts, target):
        x = scores.embeddings(params, texts.batch)
        real = (texts.batch.segment_ids > 0)[..., None]
        spread = effort.noise * jnp.std(x, axis=(1, 2), where=real, keepdims=True)

        def one(total, key):
            noisy = x + spread * jax.random.normal(key, x.shape, x.dtype) * real
            return total + _gradient(scores, params, texts, noisy, target), None

        keys = jax.random.split(jax.random.key(effort.seed), copies)
        mean = jax.lax.scan(one, jnp.zeros_like(x), keys)[0] / copies
        return (mean * x).sum(-1)

    return _batched(scores, texts, target, run)


def integrated_gradients(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
) -> Scores:
    """Integrates the gradient from absent tokens to the text (Sundararajan et al., 2017).

    The scores of a text add up to the difference of its score, within `effort.tolerance`, or the
    number of points (first `effort.steps`) is doubled. Raises ConfigError where 1,024 are too few.
    """
    found, panels = np.zeros(texts.explained.shape), max(1, effort.steps // POINTS)
    ends = [scores.values(texts, keep, target) for keep in _all_and_none(texts)]
    left, run = np.arange(len(texts)), _path(scores)
    while True:
        some = jax.tree.map(lambda a, i=left: a[i], texts)
        parts = [
            _batched(scores, some, target[left], lambda *a, k=k, n=panels: run(*a, k / n, 1 / n))
            for k in range(panels)
        ]
        found[left] = np.sum(parts, axis=0)
        gap = np.abs(found[left].sum(1) - (ends[0] - ends[1])[left])
        left = left[gap > effort.tolerance]
        if not len(left):
            return found
        if panels * POINTS >= MOST_STEPS:
            raise ConfigError(
                f"explain.tolerance={effort.tolerance:g}: integrated gradients of {len(left)}"
                f" texts still miss their sum by {gap.max():.2g} at {panels * POINTS} points; give"
                " a larger one, or precision=fp32"
            )
        panels *= 2


def _path(scores: TextScores) -> Callable:
    """Returns the jitted integral over a part of the path, `[N, S]`, by Gauss and Legendre's rule;
    the part begins at `start` and is `length` long, of 1.
    """
    points, weights = np.polynomial.legendre.leggauss(POINTS)

    @jax.jit
    def run(params, texts, target, start, length):
        x, origin = scores.embeddings(params, texts.batch), scores.absent(params, texts)

        def one(total, point):
            at, weight = point
            at = start + length * at
            gradient = _gradient(scores, params, texts, origin + at * (x - origin), target)
            return total + length * weight * gradient, None

        grid = (jnp.asarray((points + 1) / 2, x.dtype), jnp.asarray(weights / 2, x.dtype))
        mean = jax.lax.scan(one, jnp.zeros_like(x), grid)[0]
        return (mean * (x - origin)).sum(-1)

    return run


def _all_and_none(texts: ScoredTexts) -> tuple[np.ndarray, np.ndarray]:
    return texts.explained, np.zeros_like(texts.explained)


def completeness(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, found: Scores
) -> Float[np.ndarray, " texts"]:
    """Returns by how much the scores of each text miss `score(text) - score(absent)`."""
    whole, none = (scores.values(texts, keep, target) for keep in _all_and_none(texts))
    return np.abs(found.sum(1) - (whole - none))


# --- attention
# --------------------------------------------------------------------------------------------------
def rollout(scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort) -> Scores:
    """Multiplies the attention of the layers, half of it the residual (Abnar and Zuidema, 2020).

    It reads the rows of the tokens that the output is made of, and says nothing of the target.
    """
    model = ExplainedTransformer.of(scores.model)
    model.check_maps()

    @jax.jit
    def run(params, texts, target):
        batch = texts.batch
        where = TokenInfo(batch.segment_ids, batch.positions, batch.types)
        _, maps = model.layer_states(params, batch.tokens, where, maps=True)
        size = batch.tokens.shape[1]
        joint = jnp.broadcast_to(jnp.eye(size), (len(batch.tokens), size, size))
        for attended in maps:
            joint = jnp.matmul(0.5 * attended.mean(1) + 0.5 * jnp.eye(size), joint)
        reads = _readers(scores, batch)
        return jnp.einsum("bs,bst->bt", reads / reads.sum(-1, keepdims=True), joint)

    return _batched(scores, texts, target, run)


def _readers(scores: TextScores, batch: Any) -> Array:
    """Returns how much the output is made of the state of each token, `[N, S]`."""
    real = batch.segment_ids > 0
    if scores.kind == "answer":
        return (batch.loss_weight > 0).astype(jnp.float32)
    how, last = scores.task.config.task.pool, real.sum(1, keepdims=True) - 1
    if how == "first":
        real &= batch.positions == 0
    elif how == "last":
        real &= batch.positions == last
    return real.astype(jnp.float32)


# --- leaving tokens out
# --------------------------------------------------------------------------------------------------
def _of_games(play: Callable[[shapley.Game, int, Effort], np.ndarray]) -> Method:
    """Returns the method that plays a game on each text, with its tokens as players."""

    def method(
        scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
    ) -> Scores:
        out = np.zeros(texts.explained.shape)
        for i, mine in enumerate(texts.explained):
            if mine.any():
                value = scores.of_text(texts, i, target)
                out[i, mine] = play(value, int(mine.sum()), effort)
        return out

    return method


def _occlusion(value: shapley.Game, n: int, effort: Effort) -> np.ndarray:
    """Returns by how much the score falls without each token (Zeiler and Fergus, 2014)."""
    keeps = np.concatenate([np.ones((1, n), bool), ~np.eye(n, dtype=bool)])
    found = value(keeps)
    return found[0] - found[1:]


def random_scores(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, effort: Effort
) -> Scores:
    """Returns random scores: what a method is compared with."""
    return np.random.default_rng(effort.seed).standard_normal(texts.explained.shape)


METHODS: dict[str, Method] = {
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "occlusion": _of_games(_occlusion),
    "lime": _of_games(lambda value, n, e: shapley.lime(value, n, e.samples, e.seed)),
    "shapley": _of_games(
        lambda value, n, e: shapley.sampled(value, n, max(2, e.samples // 10), e.seed)
    ),
    "kernelshap": _of_games(lambda value, n, e: shapley.kernel(value, n, e.samples, e.seed)),
    "exact": _of_games(lambda value, n, e: shapley.exact(value, n)),
    "rollout": rollout,
    "random": random_scores,
}
PATHS = ("integrated_gradients",)
COMPLETE = ("integrated_gradients", "shapley", "kernelshap", "exact")  # their scores add up
