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
from jaxsft.errors import ConfigError
from jaxsft.losses.terms import distillation
from jaxsft.metrics.base import Outputs
from jaxsft.models.step_sums import Hits
from jaxsft.tasks import rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output, Terms
from jaxsft.tasks.whole_text import TextTask, about

DISTILLATION = "distillation"  # the term of a teacher (`training/teacher.py`)


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
        labels = cls.fit_labels(config.task.labels, {r.label for r in records}, where)
        if (outside := config.task.out_of_scope) is not None and outside not in labels:
            raise ConfigError(
                f"task.out_of_scope={outside}: is none of the labels ({', '.join(labels[:5])}); if"
                " no training row has it, name it in task.labels"
            )
        return {"labels": labels, **cls.fit_features(config, records, where)}

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

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        own = {} if config.distil.teacher is None else {DISTILLATION: config.distil.weight}
        return TextTask.term_weights(config) | own

    def totals(self, batch: Batch) -> Terms:
        taught = {DISTILLATION: (batch.example_ids >= 0).sum().astype(jnp.float32)}
        return super().totals(batch) | (taught if "teacher" in batch.segment else {})

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        logits = self.read(model, params, batch, noise)  # [B, G, C]
        gold, present = batch.segment["label"].astype(jnp.int32), batch.example_ids >= 0
        values = self.head_loss.of_labels(logits, gold, hyper)
        terms = {self.config.task.loss: Weighed(values, self.weight(batch))}
        if "teacher" in batch.segment and not columns:  # of training, not of an evaluation
            distil, teacher = self.config.distil, batch.segment["teacher"]
            given = (logits, teacher, hyper["distil_temperature"], distil.direction)
            terms[DISTILLATION] = Weighed(distillation.divergence(*given), present)
        hits = Hits.update(logits.argmax(-1) == gold, present)
        return Output.of(terms, {"hits": hits}, batch, {"logits": logits} if columns else None)

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        logits = rows.mean(split, columns["logits"])
        gold = rows.first(split, split.arrays["segment.label"]).astype(np.int64)
        arrays = {"label": gold, "predicted": logits.argmax(-1), "logits": logits}
        if (outside := self.config.task.out_of_scope) is not None:
            arrays["out_of_scope"] = gold == self.labels.index(outside)
        return Outputs(rows.kept(split)[0], arrays, self.labels)

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        kept = rows.kept(split)[0].tolist()
        for row, z in zip(kept, rows.mean(split, columns["logits"]), strict=True):
            record, p = split.records[row], np.exp(z - z.max())
            best = int(z.argmax())
            out = {
                "row": row,
                **about(record),
                "label": record.label,
                "prediction": self.labels[best],
                "probability": float(p[best] / p.sum()),
            }
            if self.config.evaluation.probabilities:
                every = zip(self.labels, (p / p.sum()).tolist(), strict=True)
                out["probabilities"] = {label: round(value, 6) for label, value in every}
            yield out | {"correct": self.labels[best] == record.label}
