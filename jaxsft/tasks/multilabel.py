"""`task=multilabel`: any number of labels for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import MultiLabel
from jaxsft.data.records.features import values_of
from jaxsft.data.records.fields import pair_of
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError
from jaxsft.metrics import label_sets
from jaxsft.metrics.base import Outputs
from jaxsft.models.step_sums import LabelSums
from jaxsft.tasks import rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output
from jaxsft.tasks.whole_text import TextTask, about

HALF = 0.5


class MultiLabelTask(TextTask):
    """A sigmoid for each label. The loss is binary cross-entropy on logits, or an error of the
    probabilities (`mse` is the Brier score): the mean over the labels of a text, in which those
    that it has may weigh more (`task.positive_weight`).
    """

    spec = specs.MULTILABEL
    learnt_numbers = ("counts", "rows")

    def unlabelled(self, row: Row, columns: Any) -> MultiLabel:
        return MultiLabel(*pair_of(row, columns), (), values_of(row, columns))

    @classmethod
    def fit(
        cls,
        config: Config,
        tokenizer: Tokenizer,
        records: Sequence[MultiLabel],
        where: Sequence[str],
    ) -> dict[str, Any]:
        labels = cls.fit_labels(
            config.task.labels, {label for r in records for label in r.labels}, where, least=1
        )
        counts = dict.fromkeys(labels, 0)
        for label in (label for r in records for label in r.labels if label in counts):
            counts[label] += 1
        return {
            "labels": labels,
            "counts": list(counts.values()),
            "rows": len(records),
            **cls.fit_features(config, records, where),
        }

    @property
    def labels(self) -> list[str]:
        return self.state["labels"]

    @property
    def width(self) -> int:
        return len(self.labels)

    def encode_all(
        self, records: Sequence[MultiLabel], where: Sequence[str]
    ) -> list[Encoded | str]:
        numbers = self.read_labels(records, where, self.labels, lambda r: r.labels)
        one_hot = np.eye(self.width, dtype=np.int8)
        return self.encode_texts(
            records,
            where,
            [{"labels": one_hot[found].sum(0, dtype=np.int8), "weight": 1.0} for found in numbers],
        )

    # --- loss
    # ----------------------------------------------------------------------------------------------
    @property
    def positive_weight(self) -> np.ndarray:
        """Returns the factor by which the loss of a label that a text has is multiplied, `[L]`.

        Under `task.positive_weight=balanced` it is rows without the label by rows with it.
        """
        given = self.config.task.positive_weight
        if given == "balanced":  # a label without a row is never positive
            counts = np.array(self.state["counts"], np.float64)
            return ((self.state["rows"] - counts) / np.maximum(counts, 1)).astype(np.float32)
        return np.full(self.width, 1.0 if given == "none" else given, np.float32)

    @property
    def numbers_in_program(self) -> bool:
        return self.config.task.positive_weight == "balanced"

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        logits = self.read(model, params, batch, noise)  # [B, G, L]
        gold = batch.segment["labels"] > 0
        values = self.head_loss.of_label_sets(logits, gold, hyper)
        weights = jnp.where(gold, self.positive_weight, 1).astype(logits.dtype)
        terms = {self.config.task.loss: Weighed((weights * values).mean(-1), self.weight(batch))}
        counts = LabelSums.update(
            gold, jax.nn.sigmoid(logits) >= self._number, batch.example_ids >= 0
        )
        return Output.of(terms, {"labels": counts}, batch, {"logits": logits} if columns else None)

    # --- results
    # ----------------------------------------------------------------------------------------------
    @property
    def _number(self) -> float:
        return HALF if self.config.task.threshold == "tuned" else self.config.task.threshold

    @property
    def thresholds(self) -> np.ndarray:
        """Returns the threshold of each label, `[L]`: those of `tune`, or the one of the config.

        Raises ConfigError where they were not tuned yet.
        """
        if self.config.task.threshold != "tuned":
            return np.full(self.width, float(self.config.task.threshold))
        if "thresholds" not in self.state:
            raise ConfigError(
                "task.threshold=tuned: the run is unfinished, so its thresholds are not tuned yet;"
                " run its command again"
            )
        return np.array(self.state["thresholds"])

    @property
    def measures(self) -> tuple[str, ...]:
        """Returns the metrics of the task. Raises as `thresholds`, without which there are none."""
        assert len(self.thresholds) == self.width
        return super().measures

    def tune(self, outputs: Outputs) -> dict[str, Any]:
        if self.config.task.threshold != "tuned":
            return {}
        probability = _sigmoid(outputs["logits"])
        found = label_sets.best_thresholds(outputs["labels"], probability, HALF)
        return {"thresholds": found.tolist()}

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        """Returns gold and given labels; a row's logits are of its parts (`task.windows`)."""
        logits = rows.joined(split, columns["logits"], self.config.task.windows)
        arrays = {"labels": rows.first(split, split.arrays["segment.labels"]) > 0, "logits": logits}
        beside = {}
        if self.config.task.threshold != "tuned" or "thresholds" in self.state:
            arrays["given"] = _sigmoid(logits) >= self.thresholds
            beside = {"threshold": self.thresholds}
        return Outputs(rows.kept(split)[0], arrays, self.labels, beside=beside)

    def mixed(self, outputs: Sequence[Outputs]) -> dict[str, np.ndarray]:
        """Returns the logits `[rows, L]` of the mean of the probabilities of several models."""
        yes, no = (
            scipy.special.logsumexp(
                [scipy.special.log_expit(sign * one["logits"]) for one in outputs], axis=0
            )
            for sign in (1, -1)
        )
        return {"logits": yes - no}

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        kept = rows.kept(split)[0].tolist()
        logits = rows.joined(split, columns["logits"], self.config.task.windows)
        for row, z in zip(kept, logits, strict=True):
            record, p = split.records[row], _sigmoid(z)
            given = [
                label
                for label, value, least in zip(self.labels, p, self.thresholds, strict=True)
                if value >= least
            ]
            scores = {
                label: round(float(value), 6) for label, value in zip(self.labels, p, strict=True)
            }
            out = {
                "row": row,
                **about(record),
                "labels": list(record.labels),
                "prediction": given,
                "probability": scores,
            }
            yield out | {"correct": set(given) == set(record.labels)}


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.where(z >= 0, 1 / (1 + np.exp(-np.abs(z))), 1 - 1 / (1 + np.exp(-np.abs(z))))
