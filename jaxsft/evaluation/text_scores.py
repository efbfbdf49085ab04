"""What is explained: one number of each text, as a function of the embeddings of its tokens.

Of one label among several it is the log-odds `log p / (1 - p)`, which no constant shift of the
logits changes; of labels that are there or not, the logit, which is the same; of numbers, the
prediction in units of the standard deviation of training; of an answer, the log-probability of its
tokens given the prompt.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxsft.data.encoded_split import Split
from jaxsft.data.pipeline import Batch
from jaxsft.errors import ConfigError
from jaxsft.models.attention import TokenInfo
from jaxsft.models.explained_transformer import ExplainedTransformer
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.causal import CausalTask
from jaxsft.tasks.task import Task
from jaxsft.tasks.whole_text import TextTask

CHUNK = 32  # texts of one call
STEP = 16  # lengths are rounded up to multiples of it, so that few programs are compiled


class ScoredTexts(NamedTuple):
    """Texts that are explained, one a row.

    Attributes:
      batch: `[N, S]`, one text a row.
      explained: `[N, S]` bool: the tokens that have a score. Special tokens, and in a conversation
        the answer and the token before it, have none.
      rows: `[N]` int, of the split.
    """

    batch: Batch
    explained: Bool[np.ndarray, "texts seq"]
    rows: Int[np.ndarray, " texts"]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> ScoredTexts:
        """Returns the texts `start:stop`."""
        cut = lambda a: a[start:stop]
        return ScoredTexts(jax.tree.map(cut, self.batch), cut(self.explained), cut(self.rows))


def texts_of(split: Split, task: Task) -> ScoredTexts:
    """Returns the texts of a split, a window of a long text each by itself."""
    lengths, offsets = split.lengths, split.arrays["offsets"]
    size = -(-int(lengths.max()) // STEP) * STEP

    def padded(name: str) -> np.ndarray | None:
        if (flat := split.arrays.get(name)) is None:
            return None
        out = np.zeros((split.examples, size), flat.dtype)
        for i, n in enumerate(lengths):
            out[i, :n] = flat[offsets[i] : offsets[i] + n]
        return out

    real = np.arange(size) < lengths[:, None]
    positions = np.where(real, np.arange(size), 0).astype(np.int32)
    tokens, weight = padded("tokens"), padded("loss_weight")
    ids = np.arange(split.examples, dtype=np.int32)[:, None]
    segment = {
        name.removeprefix("segment."): split.arrays[name][:, None]
        for name in split.arrays
        if name.startswith("segment.")
    }
    batch = Batch(
        tokens,
        padded("targets"),
        weight,
        real.astype(np.int32),
        positions,
        ids,
        segment,
        types=padded("types"),
    )
    unknown = task.tokenizer.role_id("unk_token")
    ordinary = np.append(task.tokenizer.ordinary(), [] if unknown is None else [unknown])
    explained = real & np.isin(tokens, ordinary)
    if isinstance(task, CausalTask):
        explained &= np.cumsum(weight > 0, axis=1) == 0
    return ScoredTexts(batch, explained, split.arrays["row"])


@dataclasses.dataclass(frozen=True)
class TextScores:
    """The scores of texts under one model.

    Attributes:
      baseline: what stands for an absent token: `mask` or `pad`, the embedding of that token;
        `zero`, no embedding; `delete`, it is left out and the others move up.
    """

    task: Task
    model: Transformer
    params: Params
    baseline: str

    @property
    def kind(self) -> str:
        """Returns what the outputs are: label, labels, numbers or answer."""
        return "answer" if isinstance(self.task, CausalTask) else self.task.spec.output

    @property
    def names(self) -> Sequence[str]:
        """Returns the names of the outputs."""
        if self.kind == "answer":
            return ("answer",)
        return self.task.targets if self.kind == "numbers" else self.task.labels

    def embeddings(self, params: Params, batch: Batch) -> Float[Array, "texts seq embed"]:
        """Computes the embeddings of tokens, positions and types."""
        where = TokenInfo(batch.segment_ids, batch.positions, batch.types)
        return ExplainedTransformer.of(self.model).embeddings(params, batch.tokens, where)

    def absent(self, params: Params, texts: ScoredTexts) -> Float[Array, "texts seq embed"]:
        """Computes the embeddings where all explained tokens are absent."""
        real = self.embeddings(params, texts.batch)
        if self.baseline == "zero":
            other = jnp.zeros_like(real)
        else:
            token = self.task.tokenizer.role_id(f"{self.baseline}_token")
            tokens = jnp.full_like(texts.batch.tokens, token)
            other = self.embeddings(params, texts.batch._replace(tokens=tokens))
        return jnp.where(texts.explained[..., None], other, real)

    def outputs(
        self, params: Params, batch: Batch, vectors: Array | None, keep: Array | None = None
    ) -> Float[Array, "texts outputs"]:
        """Computes the outputs of the head, or the log-probability of the answer.

        `keep`, `[L]`: how much of the change of each layer is added; None: all of it.
        """
        model = ExplainedTransformer.of(self.model, vectors, keep)
        if self.kind != "answer":
            return self.task.read(model, params, batch, None)[:, 0]
        hidden = self.task.hidden(model, params, batch, None)
        stats = model.token_stats(params, hidden, batch.targets)
        return -jnp.where(batch.loss_weight > 0, stats.nll, 0).sum(-1, keepdims=True)

    def score(self, outputs: Array, target: Int[Array, " texts"]) -> Float[Array, " texts"]:
        """Returns the number of each text that is explained, of its target."""
        chosen = jnp.take_along_axis(outputs, target[:, None], axis=1)[:, 0]
        if self.kind != "label":
            return chosen
        others = jnp.where(jnp.arange(outputs.shape[1]) == target[:, None], -jnp.inf, outputs)
        return chosen - jax.nn.logsumexp(others, axis=1)

    def share(self, scores: np.ndarray) -> np.ndarray:
        """Returns scores as faithfulness compares them: probabilities, or numbers as they are."""
        if self.kind in ("label", "labels"):
            return 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
        return np.asarray(scores, np.float64)

    def kept(
        self, params: Params, texts: ScoredTexts, keep: Bool[Array, "texts seq"], target: Array
    ) -> Float[Array, " texts"]:
        """Computes the score of each text with only those explained tokens that `keep` has."""
        keep = keep | ~texts.explained
        batch = texts.batch
        if self.baseline == "delete":
            keep &= batch.segment_ids > 0
            positions = jnp.maximum(jnp.cumsum(keep, axis=1) - 1, 0)
            batch = batch._replace(segment_ids=keep.astype(jnp.int32), positions=positions)
            return self.score(self.outputs(params, batch, None), target)
        vectors = jnp.where(
            keep[..., None], self.embeddings(params, batch), self.absent(params, texts)
        )
        return self.score(self.outputs(params, batch, vectors), target)

    @functools.cached_property
    def _kept(self) -> Any:
        return jax.jit(self.kept)

    @functools.cached_property
    def _outputs(self) -> Any:
        return jax.jit(self.outputs)

    def values(self, texts: ScoredTexts, keep: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Returns `kept`, `[M]` float64, of any number of texts, in calls of one shape."""
        out = []
        for index, size in chunks(len(texts)):
            part = jax.tree.map(lambda a, i=index: a[i], (texts, keep, target))
            out.append(np.asarray(self._kept(self.params, *part), np.float64)[:size])
        return np.concatenate(out)

    def predicted(self, texts: ScoredTexts) -> np.ndarray:
        """Computes the outputs of all texts as they are, `[N, outputs]` float64."""
        out = []
        for index, size in chunks(len(texts)):
            part = jax.tree.map(lambda a, i=index: a[i], texts.batch)
            out.append(np.asarray(self._outputs(self.params, part, None), np.float64)[:size])
        return np.concatenate(out)

    def of_text(self, texts: ScoredTexts, i: int, target: np.ndarray) -> Any:
        """Returns `value(keeps [M, n]) -> [M]` of text i, over its n explained tokens."""
        places = np.flatnonzero(texts.explained[i])

        def value(keeps: np.ndarray) -> np.ndarray:
            keep = np.zeros((len(keeps), texts.explained.shape[1]), bool)
            keep[:, places] = keeps
            many = np.full(len(keeps), i)
            repeated = jax.tree.map(lambda a: a[many], texts)
            return self.values(repeated, keep, target[many])

        return value


def chunks(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the places of a few texts, and how many of them count: the last ones may repeat one,
    so that few shapes are compiled.
    """
    width = min(CHUNK, 1 << max(count - 1, 0).bit_length())
    for start in range(0, count, width):
        places = np.arange(start, start + width)
        yield np.minimum(places, count - 1), min(width, count - start)


def scores_of(task: Task, model: Any, params: Params, baseline: str) -> TextScores:
    """Returns the scores of a task's texts. Raises ConfigError where they cannot be explained."""
    known = isinstance(task, CausalTask) or (
        isinstance(task, TextTask)
        and not task.apart
        and task.spec.output in ("label", "labels", "numbers")
    )
    if not known or not isinstance(model, Transformer):
        raise ConfigError(
            f"explain: task={task.name} has no scores of tokens; there are those of labels and"
            " numbers of whole texts, and of answers of decoders"
        )
    if task.state.get("features"):
        raise ConfigError("explain: data.columns.features: columns beside a text have no scores")
    has = {name: task.tokenizer.role_id(f"{name}_token") is not None for name in ("mask", "pad")}
    if baseline == "auto":
        baseline = next((name for name in has if has[name]), "zero")
    if not has.get(baseline, True):
        raise ConfigError(
            f"explain.baseline={baseline}: the tokenizer has no such token; choose zero or delete"
        )
    return TextScores(task, model, params, baseline)
