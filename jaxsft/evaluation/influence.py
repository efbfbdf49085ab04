"""Which training rows caused a prediction, by the gradients of the head.

A step of gradient descent on a training row moves the weights by minus its gradient. The product of
that with the gradient of the explained score says by how much the step raises the score (TracIn:
Pruthi et al., 2020), here of the head alone and at the weights of the model. Rows are ranked by the
cosine of the two, since the plain product prefers rows of large loss whatever the text (Barshan et
al., 2020); both are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsft.data.encoded_split import Split
from jaxsft.errors import ConfigError
from jaxsft.evaluation import text_scores
from jaxsft.evaluation.explain import Explained
from jaxsft.evaluation.text_scores import ScoredTexts, TextScores

SHOWN = 5  # rows for, and rows against, a prediction


def lines(explained: Explained, train: Split, shown: int = SHOWN) -> list[dict[str, Any]]:
    """Returns for each text the training rows that raise its score most, and that lower it most.

    Raises ConfigError for a task whose head is no part of its own.
    """
    scores, texts = explained.scores, explained.texts
    product, cosine, rows = similarities(scores, texts, explained.target, train)
    out = []
    for i, row in enumerate(texts.rows):
        order = np.argsort(-cosine[i], kind="stable")
        line = {"row": int(row), "where": explained.split.where[row]}
        line["target"] = str(scores.names[int(explained.target[i])])
        for name, chosen in (("for", order[:shown]), ("against", order[::-1][:shown])):
            line[name] = [
                {
                    "where": train.where[rows[j]],
                    "text": getattr(train.records[rows[j]], "text", None),
                    "label": getattr(train.records[rows[j]], "label", None),
                    "product": float(product[i, j]),
                    "cosine": float(cosine[i, j]),
                }
                for j in chosen
            ]
        out.append(line)
    return out


def similarities(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, train: Split
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns product and cosine, `[texts, training texts]`, and the row of each training text."""
    if scores.kind == "answer":
        raise ConfigError(
            f"explain.influence: task={scores.task.name} has no head of its own; there is that of"
            " labels and numbers"
        )
    mine = np.concatenate(list(_gradients(scores, texts, target, _of_score(scores))))
    others = text_scores.texts_of(train, scores.task)
    products, norms = [], []
    for part in _gradients(scores, others, _gold(scores, train), _of_loss(scores)):
        products.append(-mine @ part.T)
        norms.append(np.linalg.norm(part, axis=1))
    product = np.concatenate(products, axis=1)
    length = np.linalg.norm(mine, axis=1)[:, None] * np.concatenate(norms)
    cosine = np.divide(product, length, out=np.zeros_like(product), where=length > 0)
    return product, cosine, others.rows


def _gradients(
    scores: TextScores, texts: ScoredTexts, target: np.ndarray, value: Any
) -> Iterator[Float[np.ndarray, "some weights"]]:
    """Yields the gradient of `value(outputs, target)` of each text for the weights of the head."""

    @jax.jit
    def run(params, texts, target):
        batch = texts.batch
        states = scores.task.states(scores.model, params, batch, None)

        def one(head, state, row, target):
            whole = jax.tree.map(lambda a: a[None], row)._replace(backbone=state[None])
            every = {**params, "head": head}
            return value(scores.task.read(scores.model, every, whole, None)[0, 0], target)

        slopes = jax.vmap(jax.grad(one), (None, 0, 0, 0))(params["head"], states, batch, target)
        flat = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(slopes)]
        return jnp.concatenate(flat, axis=1)

    for index, size in text_scores.chunks(len(texts)):
        part = jax.tree.map(lambda a, i=index: a[i], (texts, target))
        yield np.asarray(run(scores.params, *part), np.float64)[:size]


def _of_score(scores: TextScores) -> Any:
    return lambda outputs, target: scores.score(outputs[None], target[None])[0]


def _of_loss(scores: TextScores) -> Any:
    """Returns the negative log-likelihood of outputs, or the squared error of numbers."""

    def loss(outputs: Array, gold: Array) -> Array:
        if scores.kind == "label":
            return -jax.nn.log_softmax(outputs)[gold]
        if scores.kind == "labels":
            return (jax.nn.softplus(outputs) - gold * outputs).sum()
        there = jnp.isfinite(gold)
        return jnp.where(there, jnp.square(outputs - jnp.where(there, gold, 0)), 0).sum() / 2

    return loss


def _gold(scores: TextScores, split: Split) -> np.ndarray:
    """Returns what each text of a split should give."""
    if scores.kind == "label":
        return split.arrays["segment.label"].astype(np.int32)
    if scores.kind == "labels":
        return (split.arrays["segment.labels"] > 0).astype(np.float32)
    missing = split.arrays["segment.there"] <= 0
    return np.where(missing, np.nan, split.arrays["segment.targets"]).astype(np.float32)
