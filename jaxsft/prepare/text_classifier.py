"""A small classifier of texts, for out-of-fold probabilities without any trained model.

Softmax regression on hashed words and pairs of words, weighted by rarity: a minute of training for
ten thousand texts, and reproducible.
"""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxsft.data.graphemes import marks
from jaxsft.errors import DataError

BUCKETS = 2**12
BATCH = 256
EPOCHS, RATE, DECAY = 12, 0.1, 1e-5
LONGEST = 512  # different features of a text; of longer texts the rarest
# A word, or one letter of a script that is written without spaces.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_word = re.compile(
    f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+(?:[{marks()}\u200c\u200d]+[^\\W{_UNSPACED}]*)*"
)


def features(texts: Sequence[str]) -> tuple[Int[np.ndarray, "N L"], Float[np.ndarray, "N L"]]:
    """Computes hashed features of each text: buckets and values, padded with value 0.

    A value is `log(1 + count) * log(N / texts with it)`, scaled to unit length.
    """
    counted: list[tuple[np.ndarray, np.ndarray]] = []
    seen = np.zeros(BUCKETS)
    for text in texts:
        words = _word.findall(text.lower())
        grams = [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]
        buckets, counts = np.unique(
            [zlib.crc32(g.encode("utf-8", "backslashreplace")) % BUCKETS for g in grams] or [0],
            return_counts=True,
        )
        seen[buckets] += 1
        counted.append((buckets, counts))
    rarity = np.log((1 + len(texts)) / (1 + seen)) + 1
    width = min(max(len(b) for b, _ in counted), LONGEST)
    ids, values = np.zeros((len(texts), width), np.int32), np.zeros((len(texts), width), np.float32)
    for i, (buckets, counts) in enumerate(counted):
        weight = np.log1p(counts) * rarity[buckets]
        keep = np.argsort(-weight, kind="stable")[:width]
        ids[i, : len(keep)], values[i, : len(keep)] = (
            buckets[keep],
            weight[keep] / np.linalg.norm(weight[keep]),
        )
    return ids, values


def cross_val_probabilities(
    texts: Sequence[str], labels: Sequence[int] | np.ndarray, folds: int = 5, seed: int = 0
) -> Float[np.ndarray, "N C"]:
    """Computes each text's probabilities by a classifier that was trained on the other folds.

    Each class is spread evenly over the folds.

    Args:
      labels: `[N]`, 0 to C-1.

    Raises:
      DataError: fewer than two classes, or a class with fewer rows than folds: a fold's classifier
        would not know it.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < folds:
        raise DataError(
            f"cross-validation: {len(counts)} classes, the smallest with {counts.min()} rows;"
            f" expected two, each with {folds} rows at least"
        )
    fold = np.zeros(len(labels), np.int32)
    order = np.random.default_rng([seed, folds]).permutation(len(labels))
    for label in range(len(counts)):
        own = order[labels[order] == label]
        fold[own] = np.arange(len(own)) % folds
    ids, values = features(texts)
    out = np.zeros((len(labels), len(counts)), np.float32)
    for k in range(folds):
        held = fold == k
        weights = train(ids[~held], values[~held], labels[~held], len(counts), seed)
        out[held] = probabilities(weights, ids[held], values[held])
    return out


def train(
    ids: np.ndarray, values: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0
) -> dict[str, Array]:
    """Trains `w [BUCKETS, C]` and `b [C]`, by Adam on the cross-entropy with a pull towards 0."""
    steps = -(-len(ids) // BATCH)
    rng = np.random.default_rng([seed, len(ids)])
    order = np.stack(
        [np.resize(rng.permutation(len(ids)), steps * BATCH) for _ in range(EPOCHS)]
    ).reshape(-1, BATCH)
    return _fit(
        jnp.asarray(ids),
        jnp.asarray(values),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(order),
        classes,
    )


@functools.partial(jax.jit, static_argnames="classes")
def _fit(ids, values, labels, order, classes: int) -> Any:
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, len(order)))
    weights = {"w": jnp.zeros((BUCKETS, classes)), "b": jnp.zeros(classes)}

    def loss(weights, rows):
        logits = _dense(ids[rows], values[rows]) @ weights["w"] + weights["b"]
        return (
            optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()
            + DECAY * (weights["w"] ** 2).sum()
        )

    def step(carry, rows):
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights, rows), state)
        return (optax.apply_updates(weights, updates), state), None

    return jax.lax.scan(step, (weights, optimizer.init(weights)), order)[0][0]


def _dense(ids: Int[Array, "B L"], values: Float[Array, "B L"]) -> Float[Array, "B D"]:
    rows = jnp.arange(len(ids))[:, None]
    return jnp.zeros((len(ids), BUCKETS)).at[rows, ids].add(values)


@jax.jit
def _probabilities(weights, ids, values):
    return jax.nn.softmax(_dense(ids, values) @ weights["w"] + weights["b"])


def probabilities(weights: dict[str, Array], ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Computes probabilities `[N, C]`, in batches of one size."""
    out = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH], values[start : start + BATCH]
        fill = BATCH - len(part[0])
        out.append(
            np.asarray(_probabilities(weights, *(np.pad(x, ((0, fill), (0, 0))) for x in part)))[
                : BATCH - fill
            ]
        )
    return np.concatenate(out)
