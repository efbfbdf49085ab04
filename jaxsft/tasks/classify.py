"""`task=classify`: one label for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded, framed
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import KINDS, LabelledText
from jaxsft.data.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.losses import registry
from jaxsft.metrics.states import Confusion
from jaxsft.models.attention import Tokens
from jaxsft.models.heads import ClassHead, pool
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.base import Output, Task, Terms, by_row

AVERAGES = ("macro", "micro", "weighted")


class Classify(Task):
    """Packed texts are pooled by segment; the loss is any of the registry: over the softmax, or between logits and the one-hot label.

    Squared error on logits as a loss for classification: Hui and Belkin, 2021 (arXiv:2006.07322), without their rescaling.
    """

    name = "classify"
    metric = "accuracy"
    metrics = ("loss", "accuracy", "rows", *(f"{m}_{a}" for m in ("precision", "recall", "f1") for a in AVERAGES))
    record, texts, stratum = (staticmethod(getattr(KINDS["classify"], name)) for name in ("record", "texts", "stratum"))
    inputs, outputs, infer_columns = (staticmethod(getattr(KINDS["classify"], name)) for name in ("inputs", "outputs", "infer_columns"))

    def unlabelled(self, row: Row, columns: Any) -> LabelledText:
        name = columns.label or "label"
        columns = dataclasses.replace(columns, label_names=None, no_label=None)
        return self.record(dataclasses.replace(row, fields={**row.fields, name: self.labels[0]}), columns)  # never read

    @classmethod
    def fit(cls, config: Config, tokenizer: Tokenizer, records: Sequence[LabelledText], where: Sequence[str]) -> dict[str, Any]:
        labels = [str(x) for x in config.task.labels] if config.task.labels else sorted({r.label for r in records})
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise (ConfigError if config.task.labels else DataError)(
                f"{where[0].rsplit(':', 1)[0] if where else 'task.labels'}: {len(set(labels))} different labels ({', '.join(labels[:5])}); "
                f"classification needs at least two, each named once; check data.columns.label and task.labels"
            )
        return {"labels": labels}

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    def encode_all(self, records: Sequence[LabelledText], where: Sequence[str]) -> list[Encoded | str]:
        index = {label: i for i, label in enumerate(self.labels)}
        text_ids = self.tokenizer.encode_stream([r.text for r in records])
        pairs = any(r.text_pair is not None for r in records)
        pair_ids = self.tokenizer.encode_batch([r.text_pair or "" for r in records]) if pairs else [[]] * len(records)
        encoded: list[Encoded | str] = []
        for record, place, ids, pair in zip(records, where, text_ids, pair_ids, strict=True):
            if record.label not in index:
                known = ", ".join(self.labels[:10]) + (", ..." if len(self.labels) > 10 else "")
                raise DataError(f"{place}: label {record.label!r} is not in the vocabulary of {len(index)} labels ({known}); add it by task.labels")
            if not record.text.strip() and not (record.text_pair or "").strip():
                encoded.append("empty")
                continue
            segment = {"label": index[record.label], "weight": 1.0}
            encoded.append(framed(self.tokenizer.wrap(ids, pair if record.text_pair is not None else None), segment))
        return encoded

    def head(self, vocab: int, precision: str) -> ClassHead:
        return ClassHead(self.config.model.embed, len(self.labels), precision)

    def totals(self, batch: Batch) -> Terms:
        return {self.config.task.loss: self._weight(batch).sum()}

    @staticmethod
    def _weight(batch: Batch):
        return jnp.where(batch.example_ids >= 0, batch.segment["weight"], 0).astype(jnp.float32)

    def loss(self, model: Transformer, params, batch: Batch, hyper: Mapping[str, Any], noise, *, columns: bool) -> Output:
        hidden = model.hidden(params, batch.tokens, Tokens(batch.segment_ids, batch.positions, batch.types), noise)  # [B, S, D]
        texts = pool(hidden, batch.segment_ids, batch.positions, batch.example_ids.shape[1], self.config.task.pool)  # [B, G, D]
        logits = model.head.apply({"params": params["head"]}, texts, noise.at(model.config.layers + 1) if noise else None)  # [B, G, C]
        gold, present = batch.segment["label"].astype(jnp.int32), batch.example_ids >= 0
        value = self._values(logits, gold, hyper)  # [B, G]
        terms = {self.config.task.loss: (self._weight(batch) * value).sum()}
        confusion = Confusion.update(gold, logits.argmax(-1), present, len(self.labels))
        return Output(terms, {"confusion": confusion}, {"logits": logits} if columns else {})

    def _values(self, logits, gold, hyper):
        name, smoothing = self.config.task.loss, hyper["label_smoothing"]
        if registry.get(name) is registry.cross_entropy:
            return registry.cross_entropy(logits, gold, smoothing)
        classes = logits.shape[-1]
        target = jax.nn.one_hot(gold, classes, dtype=logits.dtype) * (1 - smoothing) + smoothing / classes
        scalars = {"delta": hyper["huber_delta"]} if name == "huber" else {}
        return registry.get(name)(logits, target, **scalars).mean(-1)

    def summarise(self, split: Split, states, columns) -> dict[str, float]:
        return self.confusion(split, columns).compute()

    def confusion(self, split: Split, columns) -> Confusion:
        """Counts of rows: the parts of a row vote with their mean logits."""
        rows = by_row(split, columns["logits"])
        gold = {row: int(g[0]) for row, g in by_row(split, split.arrays["segment.label"]).items()}
        matrix = np.zeros((len(self.labels),) * 2, np.int64)
        for row, logits in rows.items():
            matrix[gold[row], int(logits.mean(0).argmax())] += 1
        return Confusion(matrix)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        for row, logits in by_row(split, columns["logits"]).items():
            record, z = split.records[row], logits.astype(np.float64).mean(0)
            p = np.exp(z - z.max())
            best = int(z.argmax())
            out = {"row": row, "text": record.text} | ({} if record.text_pair is None else {"text_pair": record.text_pair})
            out |= {"label": record.label, "prediction": self.labels[best], "probability": float(p[best] / p.sum())}
            yield out | {"correct": self.labels[best] == record.label}
