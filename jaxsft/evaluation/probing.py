"""What the layers of a model know, and which layers and heads its scores need.

A linear probe reads the label from the mean state of a layer, on folds that it did not see (Alain
and Bengio, 2017). A layer matters by how much the score falls where it is skipped, a head by the
slope of the score for its gate (Michel et al., 2019).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsft.config.explain_options import ExplainOptions
from jaxsft.errors import ConfigError
from jaxsft.evaluation import faithfulness, text_scores
from jaxsft.evaluation.explain import Explained
from jaxsft.models import adapters
from jaxsft.models.attention import TokenInfo
from jaxsft.models.explained_transformer import ExplainedTransformer
from jaxsft.models.model_base import Params

FOLDS = 5


def layers(explained: Explained, options: ExplainOptions) -> dict[str, Any]:
    """Returns `probe`, the accuracy of a probe by layer (0: the embeddings); `skipped`, by how much
    the score falls without each layer; both with bounds; and `heads`, the mean absolute slope of
    each head `[layers][heads]` (none of a model with adapters, which a gate would not reach).
    """
    e, out = explained, {}
    rows = (e.texts.rows, options.level, options.replicates)
    if e.scores.kind == "label":
        labels = _labels(e)
        hits = [probe(x, labels, options.seed) for x in mean_states(e)]
        found = [faithfulness.mean_bounds({"accuracy": hit}, *rows)["accuracy"] for hit in hits]
        out["probe"] = [{"layer": i} | _brief(one) for i, one in enumerate(found)]
    drops = [faithfulness.mean_bounds({"drop": x}, *rows)["drop"] for x in skipped(e)]
    out["skipped"] = [{"layer": i} | _brief(one) for i, one in enumerate(drops, start=1)]
    has_adapters = adapters.NAME in e.scores.params
    out["heads"] = None if has_adapters else heads(e).tolist()
    return out


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("value", "low", "high", "n")}


def _labels(e: Explained) -> np.ndarray:
    """Returns the labels of the texts, or what the model predicts where the file has none."""
    given = [getattr(e.split.records[row], "label", None) for row in e.texts.rows]
    known = list(e.scores.names)
    # a row without a label is read with the first one
    if all(label in known for label in given) and len(set(given)) > 1:
        return np.array([known.index(label) for label in given])
    return e.outputs.argmax(1)


def mean_states(e: Explained) -> Float[np.ndarray, "states texts embed"]:
    """Computes the mean state of the tokens of each text before the first layer and after each."""
    model = ExplainedTransformer.of(e.scores.model)

    @jax.jit
    def run(params, batch):
        where = TokenInfo(batch.segment_ids, batch.positions, batch.types)
        states, _ = model.layer_states(params, batch.tokens, where)
        real = (batch.segment_ids > 0)[None, :, :, None]
        return states.mean(2, where=real)

    parts = []
    for index, size in text_scores.chunks(len(e.texts)):
        batch = jax.tree.map(lambda a, i=index: a[i], e.texts.batch)
        parts.append(np.asarray(run(e.scores.params, batch), np.float64)[:, :size])
    return np.concatenate(parts, axis=1)


def probe(x: Float[np.ndarray, "texts embed"], labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns whether a linear probe is right on each text, `[N]` of 0 and 1, by folds.

    It is a ridge regression of one-hot labels on standardised states, solved in closed form.
    """
    n = len(x)
    if n < FOLDS:
        raise ConfigError(f"explain.layers: {n} texts; a probe needs {FOLDS} at least")
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    hits, classes = np.zeros(n), np.eye(int(labels.max()) + 1)
    for k in range(FOLDS):
        seen, held = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        mean, spread = x[seen].mean(0), x[seen].std(0) + 1e-6
        a, b = (x[seen] - mean) / spread, (x[held] - mean) / spread
        y = classes[labels[seen]]
        dual = np.linalg.solve(a @ a.T + a.shape[1] * np.eye(len(a)), y - y.mean(0))
        hits[held] = (b @ a.T @ dual + y.mean(0)).argmax(1) == labels[held]
    return hits


def skipped(e: Explained) -> Float[np.ndarray, "layers texts"]:
    """Returns by how much the score of each text falls where a layer is skipped."""
    count = e.scores.model.config.layers

    @jax.jit
    def run(params, batch, target, keep):
        return e.scores.score(e.scores.outputs(params, batch, None, keep), target)

    def score(keep: np.ndarray) -> np.ndarray:
        parts = []
        for index, size in text_scores.chunks(len(e.texts)):
            cut = jax.tree.map(lambda a, i=index: a[i], (e.texts.batch, e.target))
            parts.append(np.asarray(run(e.scores.params, *cut, keep), np.float64)[:size])
        return np.concatenate(parts)

    whole = score(np.ones(count, np.float32))
    return np.stack([whole - score(1 - np.eye(count, dtype=np.float32)[i]) for i in range(count)])


def heads(e: Explained) -> Float[np.ndarray, "layers heads"]:
    """Returns the mean absolute slope of the score of a text for the gate of each head."""
    config = e.scores.model.config

    @jax.jit
    def run(params, batch, target):
        def one(row, target):
            row = jax.tree.map(lambda a: a[None], row)

            def score(gates):
                outputs = e.scores.outputs(gated(params, gates), row, None)
                return e.scores.score(outputs, target[None])[0]

            return jax.grad(score)(jnp.ones((config.layers, config.heads)))

        return jax.vmap(one)(batch, target)

    parts = []
    for index, size in text_scores.chunks(len(e.texts)):
        cut = jax.tree.map(lambda a, i=index: a[i], (e.texts.batch, e.target))
        parts.append(np.abs(np.asarray(run(e.scores.params, *cut), np.float64)[:size]))
    return np.concatenate(parts).mean(0)


def gated(params: Params, gates: Float[Array, "layers heads"]) -> Params:
    """Returns the weights under which the output of each head is multiplied by its gate."""
    layers = {}
    for start, stack in params["layers"].items():
        o = stack["attention"]["o"]
        mine = gates[int(start) : int(start) + o["w"].shape[0]]  # of w [L, H, N, D]
        attention = {**stack["attention"], "o": {**o, "w": o["w"] * mine[:, :, None, None]}}
        layers[start] = {**stack, "attention": attention}
    return {**params, "layers": layers}
