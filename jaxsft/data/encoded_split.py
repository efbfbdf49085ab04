"""A split as the examples that its records give, made once and kept in the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.data import cache, encode, flat_examples, long_texts
from jaxsft.data.encode import Encoded
from jaxsft.data.encoded_words import weighted_words
from jaxsft.data.ledger import Aside
from jaxsft.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Split:
    """One encoded split.

    Attributes:
      arrays: flat arrays of `flat_examples.flat`.
      records, where: per input row, its record and `file:line`.
      dropped: reason by row.
      limit, source_limit: positions of a row, and of a row of sources (0: there are none).
      mixed: of which source of a mixture each example is; None where it is no mixture.
      beside: by `file:line`, what the columns hold that evaluation asks for.
    """

    name: str
    arrays: dict[str, np.ndarray]
    records: Sequence[Any]
    where: Sequence[str]
    dropped: dict[int, str]
    ledger: dict[str, Any]
    limit: int
    source_limit: int = 0
    mixed: np.ndarray | None = None
    beside: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.arrays["offsets"])

    @property
    def source_lengths(self) -> np.ndarray | None:
        return np.diff(self.arrays["source_offsets"]) if "source_offsets" in self.arrays else None

    @property
    def examples(self) -> int:
        return len(self.arrays["row"])

    @property
    def words(self) -> int:
        """Returns the number of words of all examples; a word in several windows counts in each."""
        return int(self.arrays["word_offsets"][-1]) if "word_offsets" in self.arrays else 0


def load_split(
    name: str,
    records: Sequence[Any],
    where: Sequence[str],
    task: Any,
    data: Any,
    context: int,
    *,
    min_length: int = 1,
    min_source: int = 1,
    aside: Sequence[Aside] = (),
) -> Split:
    """Encodes a split, or reads what an equal one gave from the cache.

    Args:
      task: gives `encode_all(records, where) -> [Encoded | reason]` and `digest`.
      data: the DataConfig.
      min_length, min_source: rows, and rows of sources, are at least so long (evaluation splits
        share the training split's shape where they can).
      aside: rows of the split that gave no record: they are in the ledger, read and dropped.

    Raises:
      DataError: see `encode.build`.
    """
    weights = [getattr(r, "weight", 1.0) for r in records]
    depends_on = {name: getattr(data, name) for name in long_texts.OPTIONS} | {
        "max_dropped": data.max_dropped,
        "aside": [dataclasses.astuple(bad) for bad in aside],
        "records": [repr(r) for r in records],
        "weights": weights,
        "task": task.digest,
        "context": context,
        "min": (min_length, min_source),
    }

    def build() -> tuple[dict, dict]:
        encoded = [
            weighted(e, w) for e, w in zip(task.encode_all(records, where), weights, strict=True)
        ]
        limits = long_texts.limits(encoded, context, data, (min_length, min_source))
        options = {"max_dropped": data.max_dropped, "split": name, "aside": aside}
        built, ledger, dropped = encode.build(encoded, where, limits, **options)
        facts = {
            "ledger": ledger.as_dict(),
            "dropped": {str(k): v for k, v in dropped.items()},
            "limit": limits.row,
            "source_limit": limits.source,
        }
        return flat_examples.flat(built), facts

    folder = cache.root(data.cache_dir) / cache.key(depends_on)
    arrays, facts = cache.load_or_build(folder, build)
    dropped = {int(k): v for k, v in facts["dropped"].items()}
    limits = (facts["limit"], facts["source_limit"])
    return Split(name, arrays, records, where, dropped, facts["ledger"], *limits)


def weighted(encoded: Encoded | str, weight: float) -> Encoded | str:
    """Multiplies the loss of a row: the weights of its tokens and that of the whole text.

    Raises ConfigError where it has neither.
    """
    if weight == 1 or isinstance(encoded, str):
        return encoded
    words, weights, segment = encoded.words, encoded.weights, dict(encoded.segment)
    if weights is None and "weight" not in segment and words is None:
        raise ConfigError(
            "data.columns.weight: this task has no weights that those of the rows could multiply;"
            " set data.columns.weight=none"
        )
    if "weight" in segment:
        segment["weight"] = segment["weight"] * weight
    return encoded._replace(
        weights=None if weights is None else weights * np.float32(weight),
        segment=segment,
        words=None if words is None else weighted_words(words, weight),
        more=tuple(weighted(one, weight) for one in encoded.more),
    )
