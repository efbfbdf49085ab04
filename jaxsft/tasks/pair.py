"""`task=pair`: two texts and their class, how near they are, or nothing but that they belong
together.

`task.encoder=cross` reads both in one sequence. `bi` reads each by itself, as two segments of a
row, and compares their vectors u and v, so that a vector can be kept and compared with any other
(Sentence-BERT: Reimers and Gurevych, 2019, arXiv:1908.10084).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import Pair
from jaxsft.data.records.fields import text_of
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import DataError
from jaxsft.losses.terms import pairs
from jaxsft.metrics import retrieval
from jaxsft.metrics.base import Outputs
from jaxsft.models.attention import TokenInfo
from jaxsft.models.heads import PairHead, TextHead
from jaxsft.models.model_base import Params
from jaxsft.models.step_sums import Hits, SquaredErrorSums
from jaxsft.models.transformer import Transformer
from jaxsft.tasks import class_inputs, rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output
from jaxsft.tasks.whole_text import TextTask, about

# what a loss reads; others: score


class PairTask(class_inputs.ClassInputs, TextTask):
    """A task on two texts: what a pair has, a label, a score or neither, is what the loss reads;
    all rows have the same.

    Under `bi` a cosine is compared with a score, scaled so that those of training lie between 0 and
    1; under `cross` scores are standardised.
    """

    spec = specs.PAIR
    learnt_numbers = ("low", "high", "mean", "deviation", "counts")

    def unlabelled(self, row: Row, columns: Any) -> Pair:
        a = text_of(row, columns.text or "text", "data.columns.text")
        b = text_of(row, columns.text_pair or "text_pair", "data.columns.text_pair")
        return Pair(
            a,
            b,
            *{
                "label": (self.state.get("labels", [""])[0], None),
                "score": (None, self.state.get("low")),
            }.get(self.kind, ()),
        )

    @property
    def kind(self) -> str:
        return specs.of_pair(self.config.task.loss)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Pair], where: Sequence[str]
    ) -> dict[str, Any]:
        kind = specs.of_pair(config.task.loss)
        _check_kinds(config.task.loss, kind, records, where)
        if kind == "label":
            labels = cls.fit_labels(config.task.labels, {r.label for r in records}, where)
            if config.task.loss == "cosine_embedding" and (
                len(labels) != 2 or config.task.positive not in labels
            ):
                raise DataError(
                    f"{where[0].rsplit(':', 1)[0]}: task.loss=cosine_embedding knows two labels,"
                    f" one of them task.positive={config.task.positive}; found {len(labels)}"
                    f" ({', '.join(labels[:5])})"
                )
            return {
                "labels": labels,
                **class_inputs.fit(config, labels, (r.label for r in records)),
            }
        if kind == "nothing":
            return {}
        scores = np.array([r.score for r in records], np.float64)
        if np.ptp(scores) == 0:
            raise DataError(
                f"{where[0].rsplit(':', 1)[0]}: every pair has the score {scores[0]:g}, so there is"
                " nothing to learn; check data.columns.score"
            )
        return {
            "low": scores.min(),
            "high": scores.max(),
            "mean": scores.mean(),
            "deviation": scores.std(),
        }

    @property
    def apart(self) -> bool:
        return self.config.task.encoder == "bi"

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @property
    def width(self) -> int:
        """Returns the number of outputs of the head; 0 where it returns vectors."""
        if self.apart and self.head_loss.loss.targets != "labels":
            return 0
        return len(self.labels) if self.kind == "label" else 1

    @property
    def scale(self) -> tuple[float, float]:
        """Returns (offset, unit) of a score: the model learns `(score - offset) / unit`."""
        s = self.state
        return (s["low"], s["high"] - s["low"]) if self.apart else (s["mean"], s["deviation"])

    @property
    def digest(self) -> dict[str, Any]:
        return {**super().digest, "encoder": self.config.task.encoder, "kind": self.kind}

    def encode_all(self, records: Sequence[Pair], where: Sequence[str]) -> list[Encoded | str]:
        _check_kinds(self.config.task.loss, self.kind, records, where)
        segments: list[dict[str, Any]] = [{"weight": 1.0} for _ in records]
        if self.kind == "label":
            segments = [
                {"label": label, "weight": 1.0}
                for (label,) in self.read_labels(records, where, self.labels, lambda r: (r.label,))
            ]
        elif self.kind == "score":
            offset, unit = self.scale
            segments = [
                {"score": np.float32((r.score - offset) / unit), "weight": 1.0} for r in records
            ]
        return self.encode_texts(records, where, segments)

    def head(self, vocab: int, precision: str) -> TextHead | None:
        head = self.make_head(PairHead if self.apart else TextHead, self.width, precision)
        return None if self.apart and head.weightless else head

    # --- loss
    # ----------------------------------------------------------------------------------------------
    def read(
        self, model: Transformer, params: Params, batch: Batch, noise: Any
    ) -> Float[Array, "batch texts width"]:
        """Computes the outputs of the head for each pair, `[B, G, width]`.

        Under `task.encoder=bi` without outputs they are the vectors of its two texts, `[B, G, 2,
        D]`.
        """
        if not self.apart:
            return super().read(model, params, batch, noise)
        if model.head is not None:
            out = super().read(model, params, batch, noise)
        else:
            out = self.make_head(PairHead, 0, model.precision).apply(
                {}, self.states(model, params, batch, noise), dropout=noise
            )
        return out if self.width else out.reshape(out.shape[0], -1, 2, out.shape[-1])

    def where(self, batch: Batch) -> TokenInfo:
        return split_pairs(batch) if self.apart else super().where(batch)

    def count(self, batch: Batch) -> int:
        return super().count(batch) * (2 if self.apart else 1)

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        out, present = self.read(model, params, batch, noise), batch.example_ids >= 0
        head, targets = self.head_loss, self.head_loss.loss.targets
        states: dict[str, Any] = {}
        if targets == "nothing":
            unit = pairs.normalise(out)
            values, found = head.values(unit, present, hyper), {"vectors": unit}
        elif targets == "labels":
            gold = batch.segment["label"].astype(jnp.int32)
            values = head.of_labels(out, gold, hyper, self.weight(batch))
            found = {"logits": out}
            states = {"hits": Hits.update(out.argmax(-1) == gold, present)}
        elif targets == "together":
            cosine = pairs.cosine(out)
            together = batch.segment["label"] == self.labels.index(self.config.task.positive)
            values, found = head.values(cosine, together, hyper), {"predicted": cosine}
        else:
            predicted = pairs.cosine(out) if self.apart else out[..., 0]
            gold = batch.segment["score"]
            values, found = head.values(predicted, gold, hyper), {"predicted": predicted}
            states = {"errors": SquaredErrorSums.update(predicted, gold, present)}
        term = Weighed(values, self.weight(batch))
        if targets == "nothing":  # the others of the batch are in it: no share of a text
            return Output({head.name: term.total()}, states, found if columns else {})
        return Output.of({head.name: term}, states, batch, found if columns else None)

    # --- results
    # ----------------------------------------------------------------------------------------------
    @property
    def measures(self) -> tuple[str, ...]:
        return specs.PAIR_MEASURES[self.kind]

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        kept = rows.kept(split)[0]
        if self.kind == "nothing":
            vectors = columns["vectors"]
            ranks = retrieval.ranks(vectors[:, 0], vectors[:, 1])
            cosine = (vectors[:, 0].astype(np.float64) * vectors[:, 1]).sum(-1)
            arrays = {"rank": rows.first(split, ranks), "cosine": rows.first(split, cosine)}
            return Outputs(kept, arrays)
        if self.kind == "score":
            offset, unit = self.scale  # in the units of the data
            gold = np.array([split.records[row].score for row in kept], np.float64)
            predicted = rows.mean(split, columns["predicted"]) * unit + offset
            return Outputs(kept, {"targets": gold, "predictions": predicted})
        arrays = {"label": rows.first(split, split.arrays["segment.label"]).astype(np.int64)}
        if self.config.task.loss == "cosine_embedding":
            yes = self.labels.index(self.config.task.positive)
            arrays["cosine"] = cosine = rows.mean(split, columns["predicted"])
            arrays["predicted"] = np.where(cosine >= self.config.task.threshold, yes, 1 - yes)
        else:
            arrays["logits"] = logits = rows.mean(split, columns["logits"])
            arrays["predicted"] = logits.argmax(-1)
        return Outputs(kept, arrays, self.labels)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        found = self.row_outputs(split, columns)
        for i, row in enumerate(found.rows.tolist()):
            record = split.records[row]
            yield {"row": row, **about(record), **self._line(record, found.arrays, i)}

    def _line(self, record: Pair, arrays: Mapping[str, np.ndarray], i: int) -> dict[str, Any]:
        """Returns what is predicted of row i, beside its texts."""
        if self.kind == "nothing":
            return {"prediction": float(arrays["cosine"][i]), "rank": int(arrays["rank"][i])}
        if self.kind == "score":
            gold, predicted = arrays["targets"][i], arrays["predictions"][i]
            return {"label": float(gold), "prediction": float(predicted)}
        label = self.labels[arrays["predicted"][i]]
        if "cosine" in arrays:
            by = {"cosine": float(arrays["cosine"][i])}
        else:
            p = np.exp(arrays["logits"][i] - arrays["logits"][i].max())
            by = {"probability": float(p.max() / p.sum())}
        out = {"label": record.label, "prediction": label, **by}
        return out | {"correct": label == record.label}


def split_pairs(batch: Batch) -> TokenInfo:
    """Makes the texts of pair g segments 2 g - 1 and 2 g, each with positions from 0."""
    second = batch.types == 1
    segments = jnp.where(batch.segment_ids > 0, 2 * batch.segment_ids - 1 + second, 0)
    texts = jnp.arange(1, batch.example_ids.shape[1] + 1)
    member = batch.segment_ids[:, None, :] == texts[None, :, None]  # [B, G, S]
    first = (member & ~second[:, None, :]).sum(-1)  # [B, G]: tokens of the first text
    before = jnp.take_along_axis(first, jnp.maximum(batch.segment_ids - 1, 0), axis=1)  # [B, S]
    return TokenInfo(segments, batch.positions - jnp.where(second, before, 0))


def _check_kinds(loss: str, kind: str, records: Sequence[Pair], where: Sequence[str]) -> None:
    """Raises DataError where a pair does not have what the loss reads, or has something else."""
    for record, place in zip(records, where, strict=True):
        found = (
            "label"
            if record.label is not None
            else "score"
            if record.score is not None
            else "nothing"
        )
        if found != kind:
            has = {"label": "a label", "score": "a score", "nothing": "neither label nor score"}
            fitting = {
                "label": "cross_entropy",
                "score": "mse",
                "nothing": "contrastive task.encoder=bi",
            }[found]
            column = {"label": "data.columns.label", "score": "data.columns.score"}.get(kind)
            other = f", or {column}=<its column>" if column else ""
            raise DataError(
                f"{place}: this pair has {has[found]}, but task.loss={loss} expects {has[kind]};"
                f" set task.loss={fitting}{other}"
            )
