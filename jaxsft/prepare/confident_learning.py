"""Confident learning: finds labels that are probably wrong.

It works from probabilities that were predicted for rows that the predictor had not seen.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 2021. Letters: N rows, C classes; i is the given class, j the one that is suspected behind it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsft.errors import ConfigError, DataError

FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
)
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
CLOSE = 1e-6  # a probability that misses its threshold by so little has reached it


@jax.jit
def thresholds(labels: Int[Array, " N"], p: Float[Array, "N C"]) -> Float[Array, " C"]:
    """Computes the mean probability of class j over the rows given class j, `[C]`.

    2, which nothing reaches, where j is never given.
    """
    given = jax.nn.one_hot(labels, p.shape[1], dtype=p.dtype)
    count = given.sum(0)
    return jnp.where(count > 0, (given * p).sum(0) / jnp.maximum(count, 1), 2.0)


@jax.jit
def confident(labels: Int[Array, " N"], p: Float[Array, "N C"]) -> Int[Array, " N"]:
    """Returns the class that each row confidently belongs to, `[N]`; -1 where there is none.

    It is the likeliest where several reach their threshold.
    """
    reached = p >= thresholds(labels, p) - CLOSE
    count = reached.sum(1)
    return jnp.where(count > 1, p.argmax(1), jnp.where(count == 1, reached.argmax(1), -1))


def confident_joint(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Estimates how many rows given class i (down) belong to class j (across), `[C, C]`.

    The confident rows are counted, at least one per class stays where it is, and each line is
    scaled to the number of rows that are given its class.
    """
    guess, classes = np.asarray(confident(labels, p)), p.shape[1]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (labels[guess >= 0], guess[guess >= 0]), 1)
    np.fill_diagonal(counts, counts.diagonal().clip(min=1))
    given = np.bincount(labels, minlength=classes)
    scaled = counts / counts.sum(1, keepdims=True) * given[:, None]
    return _rounded(scaled / max(scaled.sum(), 1e-100) * given.sum())


def transition(labels: np.ndarray, probabilities: np.ndarray) -> Float[np.ndarray, "C C"]:
    """Estimates the probability of each given class (across) by the true one (down).

    It is the joint, each column divided by its sum; a class that no row belongs to is given as it
    is.
    """
    labels, p = _checked(labels, probabilities)
    joint = confident_joint(labels, p).T.astype(np.float64)  # true down, given across
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.maximum(total, 1), np.eye(len(joint)))


def find_issues(
    labels: np.ndarray, probabilities: np.ndarray, filter_by: str = "prune_by_noise_rate"
) -> np.ndarray:
    """Returns which rows are probably mislabelled: `[N]` bool.

    A row whose likeliest class is the given one never is.

    Args:
      labels: `[N]`, the given classes, 0 to C-1.
      probabilities: `[N, C]`, of rows that the predictor was not trained on.
      filter_by: prune_by_noise_rate (for each i and j as many rows as the joint says, those with
        the largest `p_j - p_i`), prune_by_class (as many rows of class i as the joint says, those
        with the smallest `p_i`), both, confident_learning (the rows counted off the diagonal), or
        predicted_neq_given (every row whose likeliest class is another).

    Raises:
      DataError: the arrays are no labels and probabilities of the same rows.
      ConfigError: no such filter.
    """
    labels, p = _checked(labels, probabilities)
    if filter_by not in FILTERS:
        raise ConfigError(f"filter_by={filter_by}: expected one of {', '.join(FILTERS)}")
    other = p.argmax(1) != labels
    if filter_by == "predicted_neq_given":
        return other
    if filter_by == "confident_learning":
        guess = np.asarray(confident(labels, p))
        return other & (guess >= 0) & (guess != labels)
    prune = _to_prune(confident_joint(labels, p))
    # the only row of its class stays
    alone = np.bincount(labels, minlength=p.shape[1])[labels] <= 1
    found = ~alone & other
    if filter_by in ("prune_by_noise_rate", "both"):
        found &= np.asarray(_largest_margins(labels, p, prune - np.diag(prune.diagonal())))
    if filter_by in ("prune_by_class", "both"):
        found &= np.asarray(
            _least_sure(labels, p, np.bincount(labels, minlength=p.shape[1]) - prune.diagonal())
        )
    return found


@jax.jit
def _largest_margins(labels, p, prune):
    """Returns for each pair (i, j) the `prune[i, j]` rows of class i with the largest margin.

    The result is `[N]` bool.
    """
    margins = p - jnp.take_along_axis(p, labels[:, None], 1)  # [N, C]
    among = lambda j: _rank(labels, -margins[:, j]) < prune[labels, j]
    return jax.lax.map(among, jnp.arange(p.shape[1])).any(0)


@jax.jit
def _least_sure(labels, p, prune):
    return _rank(labels, jnp.take_along_axis(p, labels[:, None], 1)[:, 0]) < prune[labels]


def _rank(groups: Int[Array, " N"], values: Float[Array, " N"]) -> Int[Array, " N"]:
    """Returns the place of each row in its group, by ascending value."""
    order = jnp.lexsort((values, groups))
    sorted_groups = groups[order]
    place = jnp.arange(len(groups)) - jnp.searchsorted(sorted_groups, sorted_groups)
    return jnp.zeros_like(place).at[order].set(place)


def _to_prune(joint: np.ndarray) -> np.ndarray:
    """Returns the joint with at least one row on each diagonal cell.

    It is taken from the other cells of its line in equal parts.
    """
    kept = joint.astype(np.float64)
    more = np.maximum(kept.diagonal(), 1) - kept.diagonal()
    others = np.maximum(np.count_nonzero(kept, axis=1) - 1.0, 1.0)
    diagonal = np.maximum(kept.diagonal(), 1)
    kept = (kept - (more / others)[:, None]).clip(min=0)
    np.fill_diagonal(kept, diagonal)
    return _rounded(kept.T).T


def _rounded(matrix: np.ndarray) -> np.ndarray:
    """Rounds to whole numbers and keeps the sum of each line.

    What rounding moved most is moved back.
    """
    out = np.round(matrix).astype(np.int64)
    for line, exact in zip(out, matrix, strict=True):
        while (over := int(line.sum() - round(exact.sum()))) != 0:
            step = 1 if over > 0 else -1
            line[((line - exact) * step).argmax()] -= step
    return out


@functools.partial(jax.jit, static_argnames="method")
def quality_scores(
    labels: Int[Array, " N"], p: Float[Array, "N C"], method: str = "self_confidence"
) -> Float[Array, " N"]:
    """Rates how well each label fits, 0 to 1; the lowest are looked at first.

    `self_confidence` is `p_i`; `normalized_margin` is `(p_i - max_j p_j + 1) / 2` with j other than
    i; `confidence_weighted_entropy` is the entropy divided by `log C` and by `p_i`, turned round to
    `log(x + 1) / x`.
    """
    own = jnp.take_along_axis(p, labels[:, None], 1)[:, 0]
    if method == "self_confidence":
        return own
    if method == "normalized_margin":
        others = jnp.where(jax.nn.one_hot(labels, p.shape[1], dtype=bool), -jnp.inf, p).max(1)
        return (own - others + 1) / 2
    if method == "confidence_weighted_entropy":
        entropy = -jax.scipy.special.xlogy(p, p).sum(1) / jnp.log(p.shape[1])
        x = jnp.maximum(entropy / jnp.maximum(own, 1e-6), 1e-6)
        # 0 / 0: the limit of x is that of the worst label, not of the best
        sure_of_another = (entropy < 1e-6) & (own < 0.5)
        return jnp.where(sure_of_another, 0.0, jnp.log1p(x) / x)
    raise ConfigError(f"method={method}: expected one of {', '.join(SCORES)}")


def ranked(issues: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the rows of the issues, the worst first."""
    rows = np.flatnonzero(issues)
    return rows[np.argsort(np.asarray(scores)[rows], kind="stable")]


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, p = np.asarray(labels), np.asarray(probabilities)
    if (
        labels.ndim != 1
        or not np.issubdtype(labels.dtype, np.integer)
        or p.ndim != 2
        or len(p) != len(labels)
        or not len(labels)
    ):
        raise DataError(
            f"label noise: found labels {labels.dtype} {list(labels.shape)} and probabilities"
            f" {list(p.shape)}, expected [N] and [N, C]"
        )
    if labels.min() < 0 or labels.max() >= p.shape[1]:
        raise DataError(
            f"label noise: found labels from {labels.min()} to {labels.max()}, expected 0 to"
            f" {p.shape[1] - 1}"
        )
    if not np.isfinite(p).all() or p.min() < 0 or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise DataError(
            "label noise: a row of the probabilities is negative, not finite, or does not sum to 1"
        )
    return labels.astype(np.int32), p.astype(np.float32)
