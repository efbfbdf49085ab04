"""What a task has of its spec and of the kind of its records, as attributes and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxsft.config.schema import Config
from jaxsft.data.formats import Row
from jaxsft.tasks.specs import TaskSpec

# What a class has of its spec, and of the kind of its records.
OF_SPEC = (
    "name",
    "causal",
    "generates",
    "can_generate",
    "metric",
    "of_words",
)
OF_RECORDS = ("record", "texts", "stratum", "inputs", "outputs", "infer_columns")


class Specified:
    """A class that names its `spec` has what that says as attributes, and the readers of its
    records as functions.

    Attributes:
      spec: what is known of the task without JAX.
    """

    spec: TaskSpec
    name: str
    causal: bool | None
    generates: bool
    can_generate: bool
    metric: str | None
    of_words: bool
    record: Callable[[Row, Any], Any]  # of a row and data.columns; raises DataError
    texts: Callable[[Any], list[str]]  # of a record: what a tokenizer is trained on
    stratum: Callable[[Any], str]  # rows of one are spread evenly over the splits
    inputs: Callable[[Any], list[str]]  # the columns of a delimited file with what is given
    outputs: Callable[[Any], list[str]]  # and with what is to be learnt
    infer_columns: Callable[[Row, Any], Any]  # the columns of a file, from its first row

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
