"""`task=classify`: one label for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import LabelledText
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.losses.terms import (
    class_weights,
    distillation,
    supervised_contrastive,
    two_passes,
)
from jaxsft.metrics.base import Outputs
from jaxsft.models.heads import TextHead
from jaxsft.models.ordinal_head import OrdinalHead
from jaxsft.models.step_sums import Hits
from jaxsft.tasks import class_inputs, rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output, Terms
from jaxsft.tasks.whole_text import TextTask, about

MORE = ("r_drop", "supervised_contrastive")  # terms beside the loss of the head, by their options
DISTILLATION = "distillation"  # the term of a teacher (`training/teacher.py`)


class Classify(class_inputs.ClassInputs, TextTask):
    """The loss is over the softmax, or between logits and the one-hot label."""

    spec = specs.CLASSIFY
    learnt_numbers = ("counts",)

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
        inputs = class_inputs.fit(config, labels, (r.label for r in records))
        return {"labels": labels, **inputs, **cls.fit_features(config, records, where)}

    def head(self, vocab: int, precision: str) -> TextHead:
        kind = OrdinalHead if self.config.task.ordinal else TextHead
        return self.make_head(kind, self.width, precision)

    @property
    def beyond_its_outputs(self) -> str:
        """Returns why a softmax of linear outputs is not what predicts; empty where it is."""
        task = self.config.task
        if task.ordinal:
            return "task.ordinal=true: transformers has no head of thresholds"
        if task.prior_correction > 0:
            return (
                f"task.prior_correction={task.prior_correction}: transformers takes no shares of"
                " labels from logits"
            )
        return ""

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

    # --- loss
    # ----------------------------------------------------------------------------------------------
    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        more = {name: getattr(config.task, name) for name in MORE}
        if config.distil.teacher is not None:
            more[DISTILLATION] = config.distil.weight
        return TextTask.term_weights(config) | {n: one for n, one in more.items() if one > 0}

    def totals(self, batch: Batch) -> Terms:
        totals = dict.fromkeys(self.term_weights(self.config), self.weight(batch).sum())
        totals.pop(DISTILLATION, None)
        if "teacher" in batch.segment:
            totals[DISTILLATION] = (batch.example_ids >= 0).sum().astype(jnp.float32)
        return totals

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        task, weight, present = self.config.task, self.weight(batch), batch.example_ids >= 0
        states = self.states(model, params, batch, noise)
        logits = self.of_states(model, params, batch, noise, states)  # [B, G, C]
        gold = batch.segment["label"].astype(jnp.int32)
        of_labels = lambda logits: self.head_loss.of_labels(logits, gold, hyper, weight)
        terms = {task.loss: of_labels(logits)}
        if task.r_drop > 0:
            other = logits
            if noise is not None:
                other = self.read(model, params, batch, noise.of_another_pass())
            terms[task.loss] = (terms[task.loss] + of_labels(other)) / 2
            terms["r_drop"] = two_passes.divergence(logits, other)
        weighed = {name: Weighed(values, weight) for name, values in terms.items()}
        if "teacher" in batch.segment and not columns:  # of training, not of an evaluation
            distil, teacher = self.config.distil, batch.segment["teacher"]
            given = (logits, teacher, hyper["distil_temperature"], distil.direction)
            weighed[DISTILLATION] = Weighed(distillation.divergence(*given), present)
        logits = self.corrected(logits, hyper)
        sums = {"hits": Hits.update(logits.argmax(-1) == gold, present)}
        out = Output.of(weighed, sums, batch, {"logits": logits} if columns else None)
        if task.supervised_contrastive > 0:  # the others of the batch are in it
            given = (states, gold, present, hyper["contrast_temperature"])
            term = Weighed(supervised_contrastive.values(*given), weight)
            out = out._replace(terms={**out.terms, "supervised_contrastive": term.total()})
        return out

    def corrected(self, logits: Array, hyper: Mapping[str, Any]) -> Array:
        """Returns the logits that predict: without what the shares of the labels in training say
        (Menon et al., 2021, arXiv:2007.07314, eq. 9), as far as `task.prior_correction` asks.
        """
        if "prior_correction" not in hyper:
            return logits
        counts = jnp.asarray(self.loss_input("class_counts"), logits.dtype)
        return logits - hyper["prior_correction"] * class_weights.log_shares(counts)

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        logits = rows.joined(split, columns["logits"], self.config.task.windows)
        gold = rows.first(split, split.arrays["segment.label"]).astype(np.int64)
        arrays = {"label": gold, "predicted": logits.argmax(-1), "logits": logits}
        if (outside := self.config.task.out_of_scope) is not None:
            arrays["out_of_scope"] = gold == self.labels.index(outside)
        return Outputs(rows.kept(split)[0], arrays, self.labels)

    def mixed(self, outputs: Sequence[Outputs]) -> dict[str, np.ndarray]:
        """Returns the logits `[rows, C]` of the mean of the probabilities of several models."""
        found = [scipy.special.log_softmax(one["logits"], axis=-1) for one in outputs]
        return {"logits": scipy.special.logsumexp(found, axis=0) - np.log(len(found))}

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        kept = rows.kept(split)[0].tolist()
        logits = rows.joined(split, columns["logits"], self.config.task.windows)
        for row, z in zip(kept, logits, strict=True):
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
