"""The contract of a task. Everything that differs between tasks is in one file here: record,
encoding, head, loss, metrics, predictions.
"""

from __future__ import annotations

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
    """What a task computes from a batch.

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
        """Returns `metric`, or of the metrics the one that fits what was found in the data."""
        assert self.metric is not None
        return self.metric

    def sign(self, metric: str) -> int:
        """-1 where less is better, otherwise 1."""
        further = [row_metrics.take(name, self.spec) for name in self.config.evaluation.metrics]
        low = {name for one in further for name in one.lower_is_better}
        return -1 if metric in self.lower_is_better or metric in low else 1

    def __init__(self, config: Config, tokenizer: Tokenizer, state: Mapping[str, Any]):
        """`state` is what `fit` gave, from the training data of this run or from its
        `task.json`."""
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
        """The record of a row without its answer, for prediction. Raises DataError."""
        return self.record(row, columns)

    @classmethod
    def fit(
        cls, config: Config, tokenizer: Tokenizer, records: Sequence[Any], where: Sequence[str]
    ) -> dict[str, Any]:
        """What must be known of the training data to encode anything (a label vocabulary); plain
        JSON.
        """
        return {}

    @property
    def digest(self) -> dict[str, Any]:
        """Everything that `encode_all` depends on, for the cache's key."""
        return {"task": self.name, "tokenizer": self.tokenizer.digest, "state": self.state}

    def encode_all(self, records: Sequence[Any], where: Sequence[str]) -> list[Encoded | str]:
        """Per record its ids, or the reason why it cannot be trained on."""
        raise NotImplementedError

    @classmethod
    def arrange(
        cls, records: Sequence[Any], where: Sequence[str], columns: Any, training: bool
    ) -> tuple[list[Any], list[str]]:
        """The records of a split as the model meets them, where one of a file stands for several,
        or several for one.
        """
        return list(records), list(where)

    @classmethod
    def text_key(cls, record: Any) -> str:
        """Returns what rows that say the same share: they stay in one split of a file, and are
        counted where two splits have them.
        """
        return cls.spec.records.text_key(record)

    @classmethod
    def classes(cls, record: Any) -> list[tuple[str, str]]:
        """Returns every label that must be known to learn or score a record
        (`records.Kind.classes`).
        """
        return cls.spec.records.classes(record)

    corrupt: Any = None  # `corrupt(batch, seed, epoch)`, where what is read is not what is learnt

    # --- model
    # ----------------------------------------------------------------------------------------------
    def head(self, vocab: int, precision: str) -> nn.Module | None:
        raise NotImplementedError

    def backbone(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """What is below the head: states of tokens `[B, S, D]` or, where the task is `pooled`,
        vectors of texts `[B, T, D]`, T a multiple of G.
        """
        return model.hidden(
            params, batch.tokens, TokenInfo(batch.segment_ids, batch.positions, batch.types), noise
        )

    @property
    def pooled(self) -> bool:
        """Whether texts are pooled below the head, without weights."""
        return False

    def states(
        self, model: Transformer, params: Params, batch: Batch, noise: Dropout | None
    ) -> Array:
        """What the head reads: of a cached backbone, which is not run again, what the batch brings
        (`train.backbone`).
        """
        return (
            self.backbone(model, params, batch, noise) if batch.backbone is None else batch.backbone
        )

    def head_uses(self, lengths: np.ndarray) -> float:
        """How often the head runs for texts of so many tokens: on each token (a word has about
        one), or once a text.
        """
        return float(lengths.sum() if self.of_words else len(lengths))

    @staticmethod
    def term_weights(config: Config) -> dict[str, float]:
        """The weight of each loss term in what is minimised."""
        return {getattr(config.task, "loss", "cross_entropy"): 1.0} | (
            {"z_loss": config.loss.z_loss} if config.loss.z_loss > 0 else {}
        )

    def totals(self, batch: Batch) -> Terms:
        """`sum w` of each loss term, from the batch alone."""
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
        """Loss terms and metric states of a batch or micro-batch; `columns` only where predictions
        are wanted.
        """
        raise NotImplementedError

    def decoded(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the host makes of the columns of a batch before they are kept, such as trees out of
        scores.
        """
        return columns

    # --- answers
    # ----------------------------------------------------------------------------------------------
    def prompt(self, record: Any, where: str) -> list[int]:
        """The ids that an answer is generated from."""
        raise NotImplementedError

    def answer(self, record: Any, where: str) -> list[int]:
        """The ids that would be the answer."""
        raise NotImplementedError

    def score(
        self, answers: Sequence[str], records: Sequence[Any], where: Sequence[str]
    ) -> dict[str, float]:
        """Numbers of generated answers."""
        raise NotImplementedError

    # --- results
    # ----------------------------------------------------------------------------------------------
    def tune(self, split: Split, columns: Mapping[str, np.ndarray]) -> None:
        """Learns from the validation split what is not learnt by gradients (thresholds), into
        `state`; before `summarise` of any split.
        """

    def tables(
        self, split: Split, columns: Mapping[str, np.ndarray]
    ) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Numbers of the parts of a task, each label or each target: by the name of the table, its
        column names and its rows.
        """
        return {}

    def summarise(
        self, split: Split, states: Mapping[str, Any], columns: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Metrics of a split, from merged states and from columns `[examples, ...]`, those of words
        `[words, ...]`.
        """
        raise NotImplementedError

    def predictions(
        self, split: Split, columns: Mapping[str, np.ndarray], answers: Mapping[int, str] | None
    ) -> Iterator[dict[str, Any]]:
        """One dict per kept row, in order; `answers` are the generated texts by row."""
        raise NotImplementedError

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line of `predict` for a format with columns of its own for what is predicted (CoNLL,
        CoNLL-U).
        """
        return line

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        """The part of a prediction that is there without a label."""
        return {
            k: v for k, v in line.items() if k in ("prediction", "probability", "nll", "tokens")
        }


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels in the order of numbers where all are whole numbers, so that number i of 0 ... n is
    output i; else in that of text.
    """
    found = sorted(labels)
    return (
        sorted(found, key=int)
        if all(re.fullmatch(r"[+-]?[0-9]{1,18}", label) for label in found)
        else found
    )


def by_text(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """What was said of the words of each row, `{row: [words, ...]}`: of a text in windows, each
    word as the window that owns it says.
    """
    own = split.arrays["word.own"]
    row = np.repeat(split.arrays["row"], np.diff(split.arrays["word_offsets"]))[own]
    rows, starts = np.unique(row, return_index=True)
    return dict(zip(rows.tolist(), np.split(values[own], starts[1:]), strict=True))


def by_row(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """The parts of each row together: `{row: [parts, ...]}`. Examples of a row are neighbours."""
    rows, starts = np.unique(split.arrays["row"], return_index=True)
    return dict(zip(rows.tolist(), np.split(values, starts[1:]), strict=True))
