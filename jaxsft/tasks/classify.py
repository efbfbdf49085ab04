"""`task=classify`: one label for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import LabelledText
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.metrics.states import Confusion
from jaxsft.models.transformer import Transformer
from jaxsft.tasks import specs
from jaxsft.tasks.base import Output, Terms, by_row
from jaxsft.tasks.whole_text import TextTask, about, mean_of_parts


class Classify(TextTask):
    """The loss is over the softmax, or between logits and the one-hot label."""

    spec = specs.CLASSIFY

    def unlabelled(self, row: Row, columns: Any) -> LabelledText:
        name = columns.label or "label"
        columns = dataclasses.replace(columns, label_names=None, no_label=None)
        # never read
        return self.record(
            dataclasses.replace(row, fields={**row.fields, name: self.labels[0]}), columns
        )

    @classmethod
    def fit(
        cls,
        config: Config,
        tokenizer: Tokenizer,
        records: Sequence[LabelledText],
        where: Sequence[str],
    ) -> dict[str, Any]:
        return {
            "labels": cls.fit_labels(config.task.labels, {r.label for r in records}, where),
            **cls.fit_features(config, records, where),
        }

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @property
    def width(self) -> int:
        return len(self.labels)

    def encode_all(
        self, records: Sequence[LabelledText], where: Sequence[str]
    ) -> list[Encoded | str]:
        labels = self.read_labels(records, where, self.labels, lambda r: (r.label,))
        return self.encode_texts(
            records, where, [{"label": label, "weight": 1.0} for (label,) in labels]
        )

    def totals(self, batch: Batch) -> Terms:
        return {self.config.task.loss: self.weight(batch).sum()}

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
        logits = self.read(model, params, batch, noise)  # [B, G, C]
        gold, present = batch.segment["label"].astype(jnp.int32), batch.example_ids >= 0
        terms = {
            self.config.task.loss: (
                self.weight(batch) * self.head_loss.of_labels(logits, gold, hyper)
            ).sum()
        }
        confusion = Confusion.update(gold, logits.argmax(-1), present, len(self.labels))
        return Output(terms, {"confusion": confusion}, {"logits": logits} if columns else {})

    def summarise(self, split: Split, states, columns) -> dict[str, float]:
        return self.confusion(split, columns).compute()

    def confusion(self, split: Split, columns) -> Confusion:
        """Counts rows by gold and predicted label.

        The latter is that of their parts' mean logits.
        """
        gold = {row: int(g[0]) for row, g in by_row(split, split.arrays["segment.label"]).items()}
        matrix = np.zeros((len(self.labels),) * 2, np.int64)
        for row, logits in mean_of_parts(split, columns["logits"]).items():
            matrix[gold[row], int(logits.argmax())] += 1
        return Confusion(matrix)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        for row, z in mean_of_parts(split, columns["logits"]).items():
            record, p = split.records[row], np.exp(z - z.max())
            best = int(z.argmax())
            out = {
                "row": row,
                **about(record),
                "label": record.label,
                "prediction": self.labels[best],
                "probability": float(p[best] / p.sum()),
            }
            yield out | {"correct": self.labels[best] == record.label}
