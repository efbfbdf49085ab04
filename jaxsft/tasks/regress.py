"""`task=regress`: one or several numbers for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.records import Regression
from jaxsft.data.records.features import values_of
from jaxsft.data.records.fields import pair_of
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.errors import ConfigError, DataError
from jaxsft.metrics.base import Outputs
from jaxsft.models.heads import TextHead
from jaxsft.models.step_sums import SquaredErrorSums
from jaxsft.tasks import rows, specs
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.task import Output, Terms
from jaxsft.tasks.whole_text import TextTask, about


class Regress(TextTask):
    """The loss is an error of standardised numbers, averaged over the targets that are there; every
    result is in the units of the data.

    The numbers of the whole are the means over the targets: `rmse` is the mean of the targets' own,
    not the root of a mean.

    With `task.loss=gaussian` the head gives two numbers for each target, and a prediction has its
    deviation.
    """

    spec = specs.REGRESS
    learnt_numbers = ("mean", "deviation")

    def unlabelled(self, row: Row, columns: Any) -> Regression:
        return Regression(*pair_of(row, columns), (math.nan,) * self.width, values_of(row, columns))

    @classmethod
    def fit(
        cls,
        config: Config,
        tokenizer: Tokenizer,
        records: Sequence[Regression],
        where: Sequence[str],
    ) -> dict[str, Any]:
        columns = config.data.columns
        names = list(columns.targets) or [columns.label or "label"]
        values = np.array([r.targets for r in records], np.float64)
        for i, name in enumerate(names):
            there = values[np.isfinite(values[:, i]), i]
            if not len(there) or np.ptp(there) == 0:
                found = (
                    "no row of training has it"
                    if not len(there)
                    else f"every row of training has {there[0]:g}"
                )
                raise DataError(
                    f"{where[0].rsplit(':', 1)[0]}: target {name!r}: {found}, so there is nothing"
                    " to learn; check data.columns.targets"
                )
        learnt = {
            "targets": names,
            "mean": np.nanmean(values, 0).tolist(),
            "deviation": np.nanstd(values, 0).tolist(),
        }
        return learnt | cls.fit_features(config, records, where)

    @property
    def targets(self) -> list[str]:
        return self.state["targets"]

    @property
    def width(self) -> int:
        return len(self.targets)

    @property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (mean, deviation) of the targets, `[T]`; 0 and 1 without standardization."""
        if not self.config.task.standardize:
            return np.zeros(self.width), np.ones(self.width)
        return np.array(self.state["mean"]), np.array(self.state["deviation"])

    @property
    def digest(self) -> dict[str, Any]:
        return {**super().digest, "standardize": self.config.task.standardize}

    def encode_all(
        self, records: Sequence[Regression], where: Sequence[str]
    ) -> list[Encoded | str]:
        mean, deviation = self.scale
        values = np.array([r.targets for r in records], np.float64).reshape(
            len(records), self.width
        )
        there, scaled = (
            np.isfinite(values),
            np.nan_to_num((values - mean) / deviation).astype(np.float32),
        )
        return self.encode_texts(
            records,
            where,
            [
                {"targets": v, "there": t.astype(np.int8), "weight": 1.0}
                for v, t in zip(scaled, there, strict=True)
            ],
        )

    def totals(self, batch: Batch) -> Terms:
        return {
            self.config.task.loss: (self.weight(batch)[..., None] * batch.segment["there"]).sum()
        }

    @property
    def spread(self) -> bool:
        """Returns whether the head gives the logarithm of a variance beside each number."""
        return self.head_loss.loss.targets == "normals"

    @property
    def beyond_its_outputs(self) -> str:
        """Returns why the outputs are not numbers, one for each target; empty where they are."""
        return (
            "task.loss=gaussian: transformers has no head of numbers with deviations"
            if self.spread
            else ""
        )

    def head(self, vocab: int, precision: str) -> TextHead:
        return self.make_head(TextHead, self.width * (2 if self.spread else 1), precision)

    def loss(self, model, params, batch: Batch, hyper, noise, *, columns: bool) -> Output:
        predicted = outputs = self.read(model, params, batch, noise)  # [B, G, T], or 2 T
        found = {}
        if self.spread:
            outputs = outputs.reshape(*outputs.shape[:2], self.width, 2)
            predicted, found["variance"] = outputs[..., 0], jnp.exp(outputs[..., 1])
        gold, there = batch.segment["targets"], batch.segment["there"] > 0
        weight = self.weight(batch)[..., None] * there
        values = self.head_loss.values(outputs, gold, hyper)
        mask = there & (batch.example_ids >= 0)[..., None]
        states = {"errors": SquaredErrorSums.update(predicted, gold, mask)}
        found["predicted"] = predicted
        terms = {self.config.task.loss: Weighed(values, weight)}
        return Output.of(terms, states, batch, found if columns else None)

    # --- results
    # ----------------------------------------------------------------------------------------------
    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        """Returns targets and predictions, `[rows, T]` in the units of the data."""
        (mean, deviation), kept = self.scale, rows.kept(split)[0]
        gold = np.array([split.records[row].targets for row in kept], np.float64)
        predicted = rows.mean(split, columns["predicted"]) * deviation + mean
        arrays = {"targets": gold.reshape(-1, self.width), "predictions": predicted}
        return Outputs(kept, arrays, self.targets)

    def mixed(self, outputs: Sequence[Outputs]) -> dict[str, np.ndarray]:
        """Returns the mean `[rows, T]` of the predictions of several models, as a head gives it."""
        if self.spread:
            raise ConfigError(
                "task.loss=gaussian: the mean of several predictions has no deviation here"
            )
        mean, deviation = self.scale
        return {
            "predicted": (np.mean([one["predictions"] for one in outputs], 0) - mean) / deviation
        }

    def predictions(self, split: Split, columns, answers) -> Iterator[dict[str, Any]]:
        named = lambda values: (
            {n: float(v) for n, v in zip(self.targets, values, strict=True)}
            if self.width > 1
            else float(values[0])
        )
        found = self.row_outputs(split, columns)
        if self.spread:
            deviations = iter(np.sqrt(rows.mean(split, columns["variance"])) * self.scale[1])
        lines = zip(found.rows.tolist(), found["targets"], found["predictions"], strict=True)
        for row, gold, predicted in lines:
            gold = {
                n: None if math.isnan(v) else v
                for n, v in zip(self.targets, gold.tolist(), strict=True)
            }
            label = gold if self.width > 1 else gold[self.targets[0]]
            beside = {"deviation": named(next(deviations))} if self.spread else {}
            yield {
                "row": row,
                **about(split.records[row]),
                "label": label,
                "prediction": named(predicted),
                **beside,
            }
