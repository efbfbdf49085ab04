"""`task=span`: the answer to a question is a stretch of a context, found by its first and its last
token (Devlin et al., 2019, section 4.2).

Where a window of a long context, or the whole, does not hold the answer, both pointers stand on the
first token of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_texts import framed, no_text
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records.questions import Question, question_of
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.data.windows import sentences
from jaxsft.errors import DataError
from jaxsft.metrics import answers as scoring
from jaxsft.metrics.base import Outputs
from jaxsft.models.heads import SpanHead, layers_of, members
from jaxsft.tasks import rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output, Task, Terms

NONE = -1e30


class Best(NamedTuple):
    """The likeliest stretch of each text, `[B, G]`: log p of its ends, their positions in the text,
    and log p of there being none.
    """

    score: Float[Array, "batch texts"]
    start: Int[Array, "batch texts"]
    end: Int[Array, "batch texts"]
    nothing: Float[Array, "batch texts"]


class SpanTask(Task):
    """The loss is the mean of the cross-entropies of both pointers over the tokens of a text."""

    spec = specs.SPAN

    def unlabelled(self, row: Row, columns: Any) -> Question:
        return question_of(row, columns)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Question], where: Sequence[str]
    ) -> dict[str, Any]:
        if not any(r.answers for r in records):
            raise DataError(
                f"{where[0].rsplit(':', 1)[0]}: no row of training has an answer; check"
                " data.columns.answers"
            )
        return {"unanswered": any(not r.answers for r in records)}

    @property
    def digest(self) -> dict[str, Any]:
        return {**super().digest, "sentences": self.config.data.too_long == "sentence"}

    def encode_all(self, records: Sequence[Question], where: Sequence[str]) -> list[Encoded | str]:
        questions = self.tokenizer.encode_batch([r.question for r in records])
        contexts = self.tokenizer.encode_batch([r.context for r in records])
        return [
            no_text(r.question, a) or no_text(r.context, b) or self._encode(r, a, b)
            for r, a, b in zip(records, questions, contexts, strict=True)
        ]

    def _encode(self, record: Question, question: list[int], context: list[int]) -> Encoded | str:
        """Encodes a question and its context as one example.

        Returns `answer_lost` where no token of the context holds a character of the answer.
        """
        one = framed(self.tokenizer.wrap(question, context), {})
        first, tail = len(one.ids) - one.special_tokens[1] - len(context), one.special_tokens[1]
        offsets, start, end, breaks = self.tokenizer.offsets(record.context), 0, 0, []
        if record.answers:
            begin, stop = record.starts[0], record.starts[0] + len(record.answers[0])
            inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > begin]
            if not inside:
                return "answer_lost"
            start, end = first + inside[0], first + inside[-1]
        if self.config.data.too_long == "sentence":
            breaks = (
                first + np.searchsorted([a for a, _ in offsets], sentences(record.context))
            ).tolist()
        segment = {"start": start, "end": end, "at": 0, "context": first, "weight": 1.0}
        return one._replace(
            segment=segment, special_tokens=(first, tail), pointers=("start", "end"), breaks=breaks
        )

    def head(self, vocab: int, precision: str) -> SpanHead:
        return SpanHead(
            self.config.model.embed, precision, **layers_of(self.config.task, self.config.model)
        )

    # --- loss
    # ----------------------------------------------------------------------------------------------
    @staticmethod
    def _weight(batch: Batch) -> Float[Array, "batch texts"]:
        return jnp.where(batch.example_ids >= 0, batch.segment["weight"], 0).astype(jnp.float32)

    def totals(self, batch: Batch) -> Terms:
        return {"cross_entropy": self._weight(batch).sum()}

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        hidden = self.states(model, params, batch, noise)  # [B, S, D]
        # [B, S, 2]
        logits = model.head.apply(
            {"params": params["head"]}, hidden, noise.at(model.config.layers + 1) if noise else None
        )
        mine = members(batch.segment_ids, batch.example_ids.shape[1])  # [B, G, S]
        lots = jnp.where(mine[..., None], logits[:, None], NONE)  # [B, G, S, 2]
        # [B, G, 2]
        log_z = jnp.where(batch.example_ids[..., None] >= 0, jax.nn.logsumexp(lots, axis=2), 0)
        gold = jnp.stack([batch.segment["start"], batch.segment["end"]], -1)  # [B, G, 2]
        there = (mine & (batch.example_ids >= 0)[..., None])[..., None] & (
            batch.positions[:, None, :, None] == gold[:, :, None]
        )
        nll = (log_z - jnp.where(there, logits[:, None], 0).sum(2)).mean(-1)
        terms = {"cross_entropy": Weighed(nll, self._weight(batch))}
        found = self.best(logits, log_z, batch)._asdict() if columns else None
        return Output.of(terms, {}, batch, found)

    def best(
        self,
        logits: Float[Array, "batch seq 2"],
        log_z: Float[Array, "batch texts 2"],
        batch: Batch,
    ) -> Best:
        """Finds the span of at most `task.max_answer` tokens with the largest sum of log p.

        Whatever the logits, `0 <= start <= end`, and both are in the context of the text.
        """
        mine, of = (
            members(batch.segment_ids, batch.example_ids.shape[1]),
            jnp.maximum(batch.segment_ids - 1, 0),
        )
        log_p = logits - jnp.take_along_axis(log_z, of[..., None], axis=1)  # [B, S, 2]
        tail = self.tokenizer.wrap([], []).tail
        take = lambda values: jnp.take_along_axis(values, of, axis=1)  # [B, G] -> [B, S]
        context = (
            (batch.segment_ids > 0)
            & (batch.positions >= take(batch.segment["context"]))
            & (batch.positions < take(mine.sum(-1)) - tail)
        )
        # Inside the context at least NONE (nan too), outside of it less than anything, so that no
        # end can lie there.
        first, last = (
            jnp.where(context, jnp.where(log_p[..., k] > NONE, log_p[..., k], NONE), -jnp.inf)
            for k in (0, 1)
        )
        index = jnp.arange(first.shape[1])

        # the start d tokens before the end; a roll goes around the end of the row, where another
        # text may be, or this one
        def longer(d, found):
            score, back = found
            same = (index >= d) & (jnp.roll(batch.segment_ids, d, axis=1) == batch.segment_ids)
            moved = jnp.where(same, jnp.roll(first, d, axis=1), -jnp.inf)
            return jnp.where(moved > score, moved, score), jnp.where(moved > score, d, back)

        score, back = lax.fori_loop(
            1,
            min(self.config.task.max_answer, first.shape[1]),
            longer,
            (first, jnp.zeros(first.shape, jnp.int32)),
        )
        sums = jnp.where(mine, (score + last)[:, None], -jnp.inf)  # [B, G, S]
        at_end = sums.argmax(-1)  # [B, G]
        at_start = at_end - jnp.take_along_axis(back, at_end, axis=1)
        start, end = (jnp.take_along_axis(batch.positions, at, axis=1) for at in (at_start, at_end))
        nothing = jnp.where(mine & (batch.positions == 0)[:, None], log_p.sum(-1)[:, None], 0).sum(
            -1
        )
        return Best(sums.max(-1), start, end, nothing)

    # --- results
    # ----------------------------------------------------------------------------------------------
    def _answers(self, split: Split, columns) -> dict[int, tuple[str, float, int]]:
        """Returns (answer, probability of its ends, its first character) for each kept row; the
        answer may be empty.

        Of a context in windows it is that of the window where the probability is largest. It is
        empty where "no answer" is at least as probable in every window, if the run has learnt
        questions without one.
        """
        found = {name: rows.parts_by_row(split, columns[name]) for name in Best._fields}
        at, context = (
            rows.parts_by_row(split, split.arrays[f"segment.{name}"]) for name in ("at", "context")
        )
        out = {}
        for row, scores in found["score"].items():
            k, nothing = int(scores.argmax()), float(found["nothing"][row].min())
            if self.state["unanswered"] and nothing >= scores[k]:
                out[row] = ("", float(np.exp(nothing)), 0)
                continue
            shift = int(at[row][k]) - int(context[row][k])
            offsets, text = (
                self.tokenizer.offsets(split.records[row].context),
                split.records[row].context,
            )
            start, end = (int(found[name][row][k]) + shift for name in ("start", "end"))
            answer = text[offsets[start][0] : offsets[end][1]]
            begin = offsets[start][0] + len(answer) - len(answer.lstrip())
            out[row] = (answer.strip(), float(np.exp(scores[k])), begin)
        return out

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        found = self._answers(split, columns)
        pairs = [(answer, split.records[row].answers) for row, (answer, *_) in found.items()]
        arrays = {
            name: np.array([scoring.best(score, *pair) for pair in pairs], np.float64)
            for name, score in (("exact", scoring.exact), ("f1", scoring.f1))
        }
        gold, predicted = [], []
        for place, (row, (answer, _, begin)) in enumerate(found.items()):
            record = split.records[row]
            predicted += [(place, begin, begin + len(answer), 0)] if answer else []
            right = zip(record.starts[:1], record.answers[:1], strict=True)
            gold += [(place, start, start + len(text), 0) for start, text in right]
        for name, spans in (("gold", gold), ("predicted", predicted)):
            arrays[f"span.{name}"] = np.array(spans, np.int64).reshape(-1, 4)
        return Outputs(np.array(list(found), np.int64), arrays, ("answer",))

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        for row, (answer, probability, _) in self._answers(split, columns).items():
            record = split.records[row]
            out = {
                "row": row,
                "text": record.question,
                "text_pair": record.context,
                "label": record.answers[0] if record.answers else "",
            }
            yield out | {
                "prediction": answer,
                "probability": probability,
                "correct": bool(scoring.best(scoring.exact, answer, record.answers)),
            }
