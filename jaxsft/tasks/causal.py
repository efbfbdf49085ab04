"""Next-token prediction: the loss, metrics and predictions that `lm` and `chat` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxsft.data.pipeline import Batch, Split
from jaxsft.losses.terms import tokens as token_losses
from jaxsft.losses.terms import unlikelihood
from jaxsft.metrics.base import Outputs
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import VocabHead
from jaxsft.models.step_sums import TokenSums
from jaxsft.models.transformer import Transformer
from jaxsft.tasks import rows
from jaxsft.tasks.loss_terms import Weighed, by_text
from jaxsft.tasks.task import Output, Task, Terms


class TrainedTokens(NamedTuple):
    """Places where a token is guessed, `[B, N]`; `segments`: of which text of the row each is."""

    hidden: Array
    targets: Array
    weights: Array
    segments: Array


class CausalTask(Task):
    """Weighted cross-entropy of the next token (plus z-loss where it is set)."""

    def head(self, vocab: int, precision: str):
        m = self.config.model
        if m.tied and not m.head_bias:
            return None
        return VocabHead(m.embed, vocab, precision, matrix=not m.tied, bias=m.head_bias)

    @property
    def stop_ids(self) -> list[int]:
        return self.state.get("stop_ids", [])

    @property
    def answers_up_to(self) -> int:
        longest = self.state.get("longest_answer")
        return Task.answers_up_to if longest is None else 2 * longest + 16

    def head_uses(self, lengths: np.ndarray) -> float:
        return float(lengths.sum())

    def totals(self, batch: Batch) -> Terms:
        return dict.fromkeys(self.term_weights(self.config), batch.loss_weight.sum())

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        hidden = self.hidden(model, params, batch, noise)  # [B, S, D]
        every = TrainedTokens(hidden, batch.targets, batch.loss_weight, batch.segment_ids)
        return self.of_tokens(model, params, every, batch, hyper, columns=columns)

    def of_tokens(
        self, model, params, tokens: TrainedTokens, batch: Batch, hyper, *, columns: bool
    ) -> Output:
        """Computes loss terms, metric states and statistics of texts from the states of tokens."""
        _, targets, weights, segments = tokens
        stats = model.token_stats(params, tokens.hidden, targets, self.config.loss.chunk)
        values = {"cross_entropy": self.head_loss.of_tokens(stats, hyper)}
        if self.config.loss.z_loss > 0:
            values["z_loss"] = token_losses.z_loss(stats)
        if self.config.loss.unlikelihood > 0:
            given = (tokens.hidden, stats.log_z, targets, weights, segments)
            values["unlikelihood"] = unlikelihood.of_tokens(model, params, *given)
        terms = {name: Weighed(x, weights, segments) for name, x in values.items()}
        mask, found = weights > 0, None
        if columns:
            parts = {"nll": stats.nll, "count": jnp.ones_like(targets), "correct": stats.correct}
            add = lambda x: by_text(jnp.where(mask, x, 0), segments, batch.example_ids.shape[1])
            found = {name: add(x) for name, x in parts.items()}
        sums = {"tokens": TokenSums.update(stats.nll, stats.correct, mask)}
        return Output.of(terms, sums, batch, found)

    def hidden(self, model: Transformer, params, batch: Batch, noise):
        """Computes the states that the targets are predicted from, `[B, S, D]`."""
        where, source = TokenInfo(batch.segment_ids, batch.positions), {}
        if batch.source is not None:
            tokens, *there = batch.source
            source = {"source": (tokens, TokenInfo(*there))}
        return model.hidden(params, batch.tokens, where, noise, **source)

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        sums = {name: rows.total(split, columns[name]) for name in ("nll", "correct", "count")}
        if "bits_per_byte" in self.config.evaluation.metrics:
            sums["bytes"] = rows.trained_bytes(split, self.tokenizer)
        return Outputs(rows.kept(split)[0], sums)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        found = self.row_outputs(split, columns)
        for row, nll, count in zip(found.rows.tolist(), found["nll"], found["count"], strict=True):
            about = self.describe(
                split.records[row], split.where[row], None if answers is None else answers.get(row)
            )
            yield {"row": row, "nll": float(nll), "tokens": int(count), **about}

    def describe(self, record: Any, where: str, answer: str | None) -> dict[str, Any]:
        """Returns the fields of a row that its prediction shows; `answer` is the generated text."""
        return {"text": record.text}
