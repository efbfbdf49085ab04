"""The contract of a task. Everything that differs between tasks is in one file here: record,
encoding, head, loss, metrics, predictions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.losses.terms.head_loss import HeadLoss
from jaxsft.metrics.base import Outputs
from jaxsft.models.dropout import Dropout
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.rundir import Stored
from jaxsft.tasks.frozen_backbone import FrozenBackbone
from jaxsft.tasks.loss_terms import Weighed
from jaxsft.tasks.prediction_lines import PredictionLines
from jaxsft.tasks.specified import Specified
from jaxsft.tasks.task_measures import TaskMeasures

Terms = dict[str, Array]  # by name: a weighted sum, or a sum of weights


class Output(NamedTuple):
    """The values that a task computes from a batch.

    Attributes:
      terms: per loss term `sum w v`, unnormalised; `Task.totals` gives its `sum w`.
      states: sums for the line that is logged, by name.
      columns: `[B, G]` arrays by name, one value (or vector) per packed text; `word.NAME` is `[B,
        W]`, one per word. `loss.TERM` and `weight.TERM` are the sums of a term over each text, `sum
        w v` and `sum w`; they are missing where a term compares texts with each other.
    """

    terms: Terms
    states: dict[str, Any]
    columns: dict[str, Array]

    @classmethod
    def of(
        cls,
        terms: Mapping[str, Weighed],
        states: dict[str, Any],
        batch: Batch,
        columns: Mapping[str, Array] | None,
    ) -> Self:
        """Adds the terms up, and where there are columns (not None) over each text too."""
        found, texts = {}, batch.example_ids.shape[1]
        for name, term in terms.items() if columns is not None else ():
            found[f"loss.{name}"], found[f"weight.{name}"] = term.of_texts(texts)
        sums = {name: term.total() for name, term in terms.items()}
        return cls(sums, states, {**(columns or {}), **found})


class Task(Specified, TaskMeasures, FrozenBackbone, PredictionLines):
    """One kind of supervision. What its `spec` says are attributes of it (`Specified`): `name`,
    `causal`, `record(row, columns)`, which makes the record of a row, and others.

    Attributes:
      start_ids: what the decoder of an encoder-decoder model is given first, whose encoder reads
        the prompt; empty for other models.
      source_frame: what stands before and behind a text that its encoder reads; None for other
        models.
      answers_up_to: how many tokens are generated where neither the config nor a reference says so.
      learnt_numbers: entries of `state` that are numbers of the training rows, such as their mean;
        the others name what there is, such as labels.
    """

    start_ids: Sequence[int] = ()
    source_frame: tuple[Sequence[int], Sequence[int]] | None = None
    answers_up_to = 128
    learnt_numbers: tuple[str, ...] = ()

    @property
    def best_metric(self) -> str:
        """Returns the metric that `evaluation.metric=auto` chooses; it may depend on the data."""
        assert self.metric is not None
        return self.metric

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        """Holds config, tokenizer and the state that the task has learnt.

        `state` is what `fit` returned, from the training data of this run or from its `task.json`.
        """
        self.config, self.tokenizer = config, tokenizer
        self.state = state if isinstance(state, Stored) else dict(state)

    @property
    def numbers_in_program(self) -> bool:
        """Returns whether the compiled step hangs on `learnt_numbers`, and not only the rows."""
        return False

    # --- data
    # ----------------------------------------------------------------------------------------------
    def unlabelled(self, row: Row, columns: Any) -> Any:
        """Returns the record of a row without its answer, for prediction. Raises DataError."""
        return self.record(row, columns)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Any], where: Sequence[str]
    ) -> dict[str, Any]:
        """Returns what encoding must know of the training data, such as labels; plain JSON."""
        return {}

    @property
    def digest(self) -> dict[str, Any]:
        """Returns everything that `encode_all` depends on, for the key of the cache."""
        return {"task": self.name, "tokenizer": self.tokenizer.digest, "state": self.state}

    def encode_all(self, records: Sequence[Any], where: Sequence[str]) -> list[Encoded | str]:
        """Encodes each record as ids, or returns the reason why it cannot be trained on."""
        raise NotImplementedError

    @classmethod
    def arrange(
        cls, records: Sequence[Any], where: Sequence[str], columns: Any, training: bool
    ) -> tuple[list[Any], list[str]]:
        """Returns the records as the model meets them, joined or divided, and where they stand."""
        return list(records), list(where)

    corrupt: Any = None  # `corrupt(batch, seed, epoch)`, where what is read is not what is learnt

    # --- model
    # ----------------------------------------------------------------------------------------------
    def head(self, vocab: int, precision: str) -> nn.Module | None:
        raise NotImplementedError

    @functools.cached_property
    def head_loss(self) -> HeadLoss:
        """Returns the loss of the head, as the config chooses it."""
        return HeadLoss(self.config.task)

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        """Returns the weight of each loss term in what is minimised, by name."""
        more = {name: getattr(config.loss, name) for name in ("z_loss", "unlikelihood")}
        more = {name: weight for name, weight in more.items() if weight > 0}
        return {getattr(config.task, "loss", "cross_entropy"): 1.0} | more

    def totals(self, batch: Batch) -> Terms:
        """Computes `sum w` of each loss term, from the batch alone."""
        raise NotImplementedError

    def loss(
        self,
        model: Transformer,
        params: Params,
        batch: Batch,
        hyper: Mapping[str, Any],
        noise: Dropout | None,
        *,
        columns: bool,
    ) -> Output:
        """Computes loss terms and metric states of a batch, and with `columns` its predictions."""
        raise NotImplementedError

    def decoded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decodes the columns of a batch on the host, such as trees from scores."""
        return columns

    # --- answers
    # ----------------------------------------------------------------------------------------------
    def prompt(self, record: Any, where: str) -> list[int]:
        """Returns the ids that an answer is generated from."""
        raise NotImplementedError

    def answer(self, record: Any, where: str) -> list[int]:
        """Returns the ids that the right answer of a record would have."""
        raise NotImplementedError

    def answer_outputs(
        self, answers: Sequence[str], records: Sequence[Any], where: Sequence[str]
    ) -> Outputs:
        """Returns generated answers, and what they are compared with, as outputs of rows."""
        raise NotImplementedError

    # --- results
    # ----------------------------------------------------------------------------------------------
    def tune(self, outputs: Outputs) -> dict[str, Any]:
        """Returns what has no gradient (thresholds), learnt from the validation split, as entries
        of `state`.
        """
        return {}

    def row_outputs(self, split: Split, columns: Mapping[str, np.ndarray]) -> Outputs:
        """Returns what metrics read of the rows of a split: gold and predicted, on arrays.

        Args:
          columns: `[examples, ...]` or `[words, ...]`, what the pass gave.
        """
        raise NotImplementedError

    def predictions(
        self, split: Split, columns: Mapping[str, np.ndarray], answers: Mapping[int, str] | None
    ) -> Iterator[dict[str, Any]]:
        """Yields a prediction for each kept row, in order; `answers` are generated texts by row."""
        raise NotImplementedError
