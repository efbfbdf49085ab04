"""The contract of a task. Everything that differs between tasks is in one file here: record,
encoding, head, loss, metrics, predictions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from jaxtyping import Array

from jaxsft.config.schema import Config
from jaxsft.data.encode import Encoded
from jaxsft.data.formats import Row
from jaxsft.data.pipeline import Batch, Split
from jaxsft.data.tokenizers.tokenizer import Tokenizer
from jaxsft.losses.terms.head_loss import HeadLoss
from jaxsft.metrics import row_metrics
from jaxsft.models.attention import TokenInfo
from jaxsft.models.layers import Dropout
from jaxsft.models.transformer import Params, Transformer
from jaxsft.rundir import Stored
from jaxsft.tasks.specs import TaskSpec

# What a class has of its spec, and of the kind of its records.
OF_SPEC = (
    "name",
    "causal",
    "generates",
    "can_generate",
    "metric",
    "metrics",
    "lower_is_better",
    "of_words",
)
OF_RECORDS = ("record", "texts", "stratum", "inputs", "outputs", "infer_columns")
Terms = dict[str, Array]  # by name: a weighted sum, or a sum of weights


class Output(NamedTuple):
    """The values that a task computes from a batch.

    Attributes:
      terms: per loss term `sum w v`, unnormalised; `Task.totals` gives its `sum w`.
      states: metric states by name.
      columns: `[B, G]` arrays by name, one value (or vector) per packed text; `word.NAME` is `[B,
        W]`, one per word.
    """

    terms: Terms
    states: dict[str, Any]
    columns: dict[str, Array]


class Task:
    """One kind of supervision. A class that names its `spec` has what that says as attributes
    (`name`, `metrics`, `causal`, ...), and the readers of its records as functions.

    Attributes:
      spec: what is known of the task without JAX.
      start_ids: what the decoder of an encoder-decoder model is given first, whose encoder reads
        the prompt; empty for other models.
      source_frame: what stands before and behind a text that its encoder reads; None for other
        models.
      answers_up_to: how many tokens are generated where neither the config nor a reference says so.
    """

    spec: TaskSpec
    name: str
    causal: bool | None
    generates: bool
    can_generate: bool
    metric: str | None
    metrics: tuple[str, ...]
    lower_is_better: tuple[str, ...]
    of_words: bool
    start_ids: Sequence[int] = ()
    source_frame: tuple[Sequence[int], Sequence[int]] | None = None
    answers_up_to = 128

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "spec" in vars(cls):
            for name in OF_SPEC:
                setattr(cls, name, getattr(cls.spec, name))
            for name in OF_RECORDS:
                setattr(cls, name, staticmethod(getattr(cls.spec.records, name)))

    @classmethod
    def metric_names(cls, config: Config) -> tuple[str, ...]:
        """Returns the names that evaluation gives with this config."""
        return cls.spec.metric_names(config)

    @property
    def best_metric(self) -> str:
        """Returns the metric that `evaluation.metric=auto` chooses; it may depend on the data."""
        assert self.metric is not None
        return self.metric

    def sign(self, metric: str) -> int:
        """Returns -1 for a metric of which less is better, otherwise 1."""
        further = [row_metrics.take(name, self.spec) for name in self.config.evaluation.metrics]
        low = {name for one in further for name in one.lower_is_better}
        return -1 if metric in self.lower_is_better or metric in low else 1

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        """Holds config, tokenizer and the state that the task has learnt.

        `state` is what `fit` returned, from the training data of this run or from its `task.json`.
        """
        self.config, self.tokenizer = config, tokenizer
        self.state = state if isinstance(state, Stored) else dict(state)

    # --- data
    # ----------------------------------------------------------------------------------------------
    record: Callable[[Row, Any], Any]  # of a row and data.columns; raises DataError
    texts: Callable[[Any], list[str]]  # of a record: what a tokenizer is trained on
    stratum: Callable[[Any], str]  # rows of one are spread evenly over the splits
    inputs: Callable[[Any], list[str]]  # the columns of a delimited file with what is given
    outputs: Callable[[Any], list[str]]  # and with what is to be learnt
    infer_columns: Callable[[Row, Any], Any]  # the columns of a file, from its first row

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

    @classmethod
    def text_key(cls, record: Any) -> str:
        """Returns a text that is equal for rows with the same input.

        Such rows stay in one split of a file, and are counted where two splits have them.
        """
        return cls.spec.records.text_key(record)

    @classmethod
    def classes(cls, record: Any) -> list[tuple[str, str]]:
        """Returns every label needed to learn or score a record (`records.Kind.classes`)."""
        return cls.spec.records.classes(record)

    corrupt: Any = None  # `corrupt(batch, seed, epoch)`, where what is read is not what is learnt

    # --- model
    # ----------------------------------------------------------------------------------------------
    def head(self, vocab: int, precision: str) -> nn.Module | None:
        raise NotImplementedError

    def backbone(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """Computes the states below the head, without weights of the head.

        They are states of tokens `[B, S, D]` or, where the task is `pooled`, vectors of texts `[B,
        T, D]`, T a multiple of G, the packed texts of a row.
        """
        return model.hidden(
            params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions, batch.types), noise
        )

    @property
    def pooled(self) -> bool:
        """Returns whether texts are pooled below the head, by a function without weights."""
        return False

    def states(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """Returns what the head reads: the batch's cached backbone outputs, else `backbone`."""
        return (
            self.backbone(model, params, batch, noise) if batch.backbone is None else batch.backbone
        )

    @functools.cached_property
    def head_loss(self) -> HeadLoss:
        """Returns the loss of the head, as the config chooses it."""
        return HeadLoss(self.config)

    def head_uses(self, lengths: np.ndarray) -> float:
        """Counts the uses of the head: one a token (a word has about one), or one a text."""
        return float(lengths.sum() if self.of_words else len(lengths))

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        """Returns the weight of each loss term in what is minimised, by name."""
        return {getattr(config.task, "loss", "cross_entropy"): 1.0} | (
            {"z_loss": config.loss.z_loss} if config.loss.z_loss > 0 else {}
        )

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

    def score(
        self, answers: Sequence[str], records: Sequence[Any], where: Sequence[str]
    ) -> dict[str, float]:
        """Computes the metrics of generated answers, by name."""
        raise NotImplementedError

    # --- results
    # ----------------------------------------------------------------------------------------------
    def tune(self, split: Split, columns: Mapping[str, np.ndarray]) -> None:
        """Learns what has no gradient (thresholds) from the validation split into `state`.

        Called before `summarise` of any split.
        """

    def tables(
        self, split: Split, columns: Mapping[str, np.ndarray]
    ) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Returns tables of metrics for parts of a task, such as each label or each target.

        They are by name of the table: its column names and its rows. By default there are none.
        """
        return {}

    def summarise(
        self, split: Split, states: Mapping[str, Any], columns: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Computes metrics from merged states and columns, `[examples, ...]` or `[words, ...]`."""
        raise NotImplementedError

    def predictions(
        self, split: Split, columns: Mapping[str, np.ndarray], answers: Mapping[int, str] | None
    ) -> Iterator[dict[str, Any]]:
        """Yields a prediction for each kept row, in order; `answers` are generated texts by row."""
        raise NotImplementedError

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        """Returns a line of `predict` with the prediction in columns of its format, as CoNLL."""
        return line

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of a prediction that can be made without a label."""
        return {
            k: v for k, v in line.items() if k in ("prediction", "probability", "nll", "tokens")
        }


def in_order(labels: Iterable[str]) -> list[str]:
    """Sorts labels as numbers where all are whole numbers (label i is output i), else as text."""
    found = sorted(labels)
    return (
        sorted(found, key=int)
        if all(re.fullmatch(r"[+-]?[0-9]{1,18}", label) for label in found)
        else found
    )


def by_text(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """Returns `{row: [words, ...]}`: the value of each word from the window that owns it."""
    own = split.arrays["word.own"]
    row = np.repeat(split.arrays["row"], np.diff(split.arrays["word_offsets"]))[own]
    rows, starts = np.unique(row, return_index=True)
    return dict(zip(rows.tolist(), np.split(values[own], starts[1:]), strict=True))


def by_row(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """Returns the values of the parts of each row, `{row: [parts, ...]}`; parts are neighbours."""
    rows, starts = np.unique(split.arrays["row"], return_index=True)
    return dict(zip(rows.tolist(), np.split(values, starts[1:]), strict=True))
