"""The options of a quality card, beside `data.*`, which says where the rows are and which columns hold what."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Optional

from jaxsft.errors import ConfigError

LEVELS = ("nominal", "ordinal", "interval", "ratio")


@dataclasses.dataclass(frozen=True)
class Options:
    split_column: Optional[str] = None  # the column that names the split of each row; with data.path
    label_separator: Optional[str] = None  # between the labels of one cell, such as "," in "4,27"
    benchmarks: tuple[str, ...] = ()  # files whose rows must not be in the data
    ngram: int | str = 13  # words of an n-gram that two texts may not share; auto: see `contamination.Index`
    sample: int = 20_000  # rows per split that the measures of diversity look at; splits that are not larger are measured as a whole
    clusters: int = 0  # of k-means; 0: the square root of half the number of texts, 50 at most
    embeddings: Optional[str] = None  # .npy [rows, size], a row per row of data.path, in place of hashed n-grams
    ratings: tuple[str, ...] = ()  # columns of the data with one annotator's label each; or one file in long form
    ratings_item: str = "id"  # of a file: the column that names the item
    ratings_annotator: Optional[str] = None  # of a file: the column that names the annotator; null: they cannot be told apart
    ratings_value: tuple[str, ...] = ()  # of a file: the columns that are ratings
    ratings_level: str = "nominal"  # nominal | ordinal | interval | ratio
    folds: int = 0  # of the classifier that looks for wrong labels; 0: it does not
    listed: int = 20  # rows shown for each finding; all of them are in findings.jsonl
    seed: int = 0  # of the sample, of k-means and of the folds

    def check(self) -> None:
        """Raises ConfigError where a value is impossible or two do not go together."""
        if not (self.ngram == "auto" or (isinstance(self.ngram, int) and self.ngram >= 1)):
            raise ConfigError(f"ngram={self.ngram}: expected a number of words of at least 1, or auto")
        for name, least in (("sample", 2), ("listed", 0), ("clusters", 0), ("folds", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {least}")
        if self.folds == 1:
            raise ConfigError("folds=1: expected 0 (no search for wrong labels) or at least 2")
        if self.ratings_level not in LEVELS:
            raise ConfigError(f"ratings_level={self.ratings_level}: expected one of {', '.join(LEVELS)}")
        if bool(self.ratings_value) != (len(self.ratings) == 1):
            raise ConfigError("ratings: expected two or more columns of the data, or one file together with ratings_value=[COLUMNS]")


def parsed(given: Mapping[str, str]) -> Options:
    """Options from `key=value` texts; a list is `[a,b]`, or one value. Raises ConfigError for a value of the wrong type or an impossible one."""
    hints, out = typing.get_type_hints(Options), {}
    for key, text in given.items():
        out[key] = _value(key, text, hints[key])
    options = Options(**out)
    options.check()
    return options


def _value(key: str, text: str, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return tuple(part.strip().strip("'\"") for part in inner.split(",") if part.strip())
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if text == "null" and type(None) in kinds:
        return None
    if int in kinds:
        try:
            return int(text.replace("_", ""))
        except ValueError:
            if str not in kinds:
                raise ConfigError(f"{key}={text}: expected a whole number") from None
    return text


NAMES = tuple(f.name for f in dataclasses.fields(Options))
