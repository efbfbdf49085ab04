"""The options of `jaxsft prepare` and `jaxsft quality`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from jaxsft.config.data_options import DataFiles, UsedFiles
from jaxsft.config.option import option


@dataclass(frozen=True)
class OutputConfig:
    dir: Optional[str] = option(None, "the folder of the prepared set")
    format: str = option(
        "jsonl", "jsonl | json | csv | tsv | parquet | array_record (in the layout of TFDS)"
    )
    shards: int = option(1, "files per split", at_least=1)
    origin: bool = option(False, "add the column `origin`: file:line of every row")
    overwrite: bool = option(False, "replace another prepared set that stands in the folder")


@dataclass(frozen=True)
class PrepareConfig:
    """The options of `jaxsft prepare`."""

    data: UsedFiles = field(default_factory=UsedFiles)
    stages: list[Any] = option([], "in their order: a name, or {name: {option: value}}")
    output: OutputConfig = field(default_factory=OutputConfig)
    run: Optional[str] = option(
        None, "a run directory, for stages that need a model (`model` is a group of Hydra's)"
    )
    seed: int = option(0, "of what stages draw")
    workers: int = option(1, "processes for the stages that are slow", at_least=1)
    plugins: list[str] = option([], "modules, or files, of plug-ins, as of training")


@dataclass(frozen=True)
class RatingsConfig:
    """Labels of several annotators: columns of the data, one per annotator, or a file with a row
    per item and annotator.
    """

    columns: list[str] = option([], "of the data, one per annotator")
    file: Optional[str] = option(None, "instead of columns")
    item: str = option("id", "of the file: the column that names the item")
    annotator: Optional[str] = option(
        None, "of the file: the column that names the annotator; null: they cannot be told apart"
    )
    values: list[str] = option(
        [], "of the file: the columns that hold a rating, each measured by itself"
    )
    level: str = option("nominal", "nominal | ordinal | interval | ratio")


@dataclass(frozen=True)
class QualityConfig:
    """The options of `jaxsft quality`."""

    data: DataFiles = field(default_factory=DataFiles)
    output: Optional[str] = option(
        None, "a folder; null: quality-NAME, by the name of the first file"
    )
    compare: Optional[str] = option(None, "the card.json of other data, or of these data before")
    split_column: Optional[str] = option(
        None, "the column that names the split of each row; with data.path"
    )
    multilabel: bool = option(False, "a cell holds several labels, between data.columns.separator")
    benchmarks: list[str] = option([], "files whose rows must not be in the data")
    ngram: Any = option(
        13, "words of a run that two texts may not share; auto: the rule of GPT-3, 8 to 13"
    )
    languages: bool = option(
        False, "also the languages of 2000 texts per split; needs jaxsft[text]"
    )
    sample: int = option(
        20_000,
        "rows per split that the measures of diversity look at; a split that is not larger is"
        " measured as a whole",
    )
    clusters: int = option(
        0, "of k-means; 0: the square root of half the number of texts, 50 at most"
    )
    embeddings: Optional[str] = option(
        None, ".npy [rows, size], a row per row of data.path, in place of hashed n-grams"
    )
    ratings: RatingsConfig = field(default_factory=RatingsConfig)
    folds: int = option(0, "of the classifier that looks for wrong labels; 0: it does not")
    listed: int = option(20, "rows shown for each finding; all of them are in findings.jsonl")
    seed: int = option(0, "of the sample, of k-means and of the folds")
