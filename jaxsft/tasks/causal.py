"""Next-token prediction: the loss, metrics and predictions that `lm` and `chat` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.data.pipeline import Batch, Split
from jaxsft.losses.terms import tokens as token_losses
from jaxsft.metrics.base import Outputs
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import VocabHead
from jaxsft.models.step_sums import TokenSums
from jaxsft.models.transformer import Transformer
from jaxsft.tasks import rows
from jaxsft.tasks.rows import trained_bytes
from jaxsft.tasks.task import Output, Task, Terms


class CausalTask(Task):
    """Weighted cross-entropy of the next token (plus z-loss where it is set)."""

    def head(self, vocab: int, precision: str):
        m = self.config.model
        if m.tied and not m.head_bias:
            return None
        return VocabHead(m.embed, vocab, precision, matrix=not m.tied, bias=m.head_bias)

    def head_uses(self, lengths: np.ndarray) -> float:
        return float(lengths.sum())

    @property
    def _z_loss(self) -> bool:
        return self.config.loss.z_loss > 0

    def totals(self, batch: Batch) -> Terms:
        weight = batch.loss_weight.sum()
        return {"cross_entropy": weight} | ({"z_loss": weight} if self._z_loss else {})

    def loss(
        self,
        model: Transformer,
        params,
        batch: Batch,
        hyper: Mapping[str, Any],
        noise,
        *,
        columns: bool,
    ) -> Output:
        hidden = self.hidden(model, params, batch, noise)  # [B, S, D]
        stats = model.token_stats(params, hidden, batch.targets, self.config.loss.chunk)
        weighted = lambda v: (batch.loss_weight * v).sum()
        terms = {"cross_entropy": weighted(self.head_loss.of_tokens(stats, hyper))}
        if self._z_loss:
            terms["z_loss"] = weighted(token_losses.z_loss(stats))
        mask = batch.loss_weight > 0
        out = {"tokens": TokenSums.update(stats.nll, stats.correct, mask)}
        return Output(terms, out, _per_text(stats, mask, batch) if columns else {})

    def hidden(self, model: Transformer, params, batch: Batch, noise):
        """Computes the states that the targets are predicted from, `[B, S, D]`."""
        where = TokenInfo(batch.segment_ids, batch.positions)
        return model.hidden(params, batch.tokens, where, noise)

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        sums = {name: rows.total(split, columns[name]) for name in ("nll", "correct", "count")}
        if "bits_per_byte" in self.config.evaluation.metrics:
            sums["bytes"] = trained_bytes(split, self.tokenizer)
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


def _per_text(stats: token_losses.TokenStats, mask, batch: Batch) -> dict[str, Any]:
    """Sums the statistics of the tokens of each packed text, `[B, G]`."""
    # [B, G, S]
    member = (
        batch.segment_ids[:, None, :]
        == jnp.arange(1, batch.example_ids.shape[1] + 1)[None, :, None]
    )
    add = lambda v: jnp.where(member & mask[:, None, :], v[:, None, :], 0).sum(-1)
    return {
        "nll": add(stats.nll),
        "count": add(jnp.ones_like(batch.targets)),
        "correct": add(stats.correct.astype(np.int32)),
    }
