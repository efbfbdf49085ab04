"""Models evaluated on rows as they are and on the same rows under perturbations."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from jaxsft.config.option import option
from jaxsft.data import file_records, perturb, perturbations
from jaxsft.data.formats import Row
from jaxsft.data.perturbations import PERTURBATIONS, Perturbation, Tables
from jaxsft.data.scripts import lines_of
from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import results, slices
from jaxsft.evaluation.measured import Measured

# outputs of tasks whose prediction is a number, or nothing that could be another one
_WITHOUT_FLIPS = ("numbers", "continuation", "hidden")


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """The options of a measurement of robustness."""

    perturbations: list[str] = option(
        ["noise", "keyboard", "ocr", "case", "punctuation", "homoglyphs"],
        "how rows are changed",
        choices=tuple(PERTURBATIONS),
    )
    strengths: list[float] = option(
        [0.05, 0.1, 0.2, 0.4], "the shares of characters or words that are changed, ascending"
    )
    seed: int = option(0, "of the perturbations", at_least=0, at_most=2**32 - 1)
    columns: list[str] = option([], "the columns that are changed; empty: what the model is given")
    metrics: list[str] = option(
        [], "the numbers that are told; empty: the one that chose the checkpoint"
    )
    limit: Optional[int] = option(None, "the first rows only; null: all", at_least=2)
    lexicon: Optional[str] = option(None, "a file of `word<TAB>synonym, another`, for synonyms")
    dictionary: Optional[str] = option(
        None, "a file of `word<TAB>translation, another`, for code_switch"
    )
    sentences: Optional[str] = option(None, "a file of sentences, one a line, for distract")

    noisy: list[str] = option(
        [], "files with the same rows in a noisy form, row by row: conditions as they are"
    )

    def tables(self) -> Tables:
        """Returns what perturbations take words from. Raises ConfigError."""
        read = lambda name: (
            perturb.table_of(path, f"robustness.{name}", True)
            if (path := getattr(self, name))
            else {}
        )
        own = {}
        if self.sentences:
            own = {"sentences": tuple(lines_of(self.sentences, "robustness.sentences"))}
            if not own["sentences"]:
                raise ConfigError(f"robustness.sentences={self.sentences}: has no line")
        return Tables(read("lexicon"), read("dictionary"), **own)

    def check(self) -> None:
        """Raises ConfigError where strengths are no shares, or do not ascend."""
        good = all(0 < s <= 1 for s in self.strengths)
        if not self.strengths or not good or sorted({*self.strengths}) != [*self.strengths]:
            raise ConfigError(
                f"robustness.strengths={[*self.strengths]}: expected shares above 0, up to 1,"
                " ascending"
            )
        if not self.perturbations and not self.noisy:
            raise ConfigError("robustness.perturbations=[]: name one at least")
        names = [condition_of(path).perturbation for path in self.noisy]
        if len({*names, *self.perturbations}) < len(names) + len(self.perturbations):
            raise ConfigError(f"robustness.noisy={[*self.noisy]}: two conditions have one name")


class Condition(NamedTuple):
    """A perturbation at a strength."""

    perturbation: str
    strength: float

    def __str__(self) -> str:
        return f"{self.perturbation} {self.strength:g}"


def condition_of(path: str) -> Condition:
    """Returns the condition of a file of noisy rows, which has its name."""
    return Condition(Path(path).name.split(".")[0], 1.0)


@dataclasses.dataclass(frozen=True)
class ScoredRows:
    """The rows of a split that a model was evaluated on.

    Attributes:
      where: of all records, in order. records: those records.
      measured: the metrics with the statistics of the rows.
      predictions: by row, what was predicted; None where a prediction is a number.
      clusters, masks: of all records, what each belongs to, and the slices.
    """

    where: Sequence[str]
    records: Sequence[Any]
    measured: Mapping[str, Measured]
    predictions: Mapping[int, Any] | None
    clusters: np.ndarray | None
    masks: Mapping[str, np.ndarray]


def scored(model: Any, rows: Sequence[Row]) -> ScoredRows:
    """Evaluates rows, as `Model.scored` does."""
    split, found, _ = model.scored(rows, "rows")
    task, config = model.task.with_tuned(found.tuned), model.config
    predictions = None
    if task.spec.output not in _WITHOUT_FLIPS:
        predictions = {
            line["row"]: line.get("prediction")
            for line in task.predictions(split, found.columns, found.answers)
        }
        if any(value is None or isinstance(value, float) for value in predictions.values()):
            predictions = None
    masks = slices.groups(split, config)
    if not config.evaluation.slices and task.spec.output == "label":
        labels = np.array([str(record.label) for record in split.records])
        masks = {f"label={label}": labels == label for label in sorted(set(labels.tolist()))}
    clusters = results.clusters_of(split, config)
    return ScoredRows(split.where, split.records, found.measured, predictions, clusters, masks)


def measure(
    model: Any, rows: Sequence[Row], options: RobustnessOptions, tell: Callable[[str], None]
) -> dict[Condition | None, ScoredRows]:
    """Evaluates a model on rows as they are (None) and under each condition.

    Args:
      model: as `inference.load` returns it.
      tell: is told what comes next.

    Raises:
      ConfigError: a perturbation does not fit the task.
      DataError: a row cannot be read, or gives no record when it is perturbed.
    """
    spec, tables = model.task.spec, options.tables()
    chosen = perturbations.named(options.perturbations, tables, spec.of_words)
    columns = options.columns
    if chosen and not columns:
        columns = perturbations.columns_of(rows[0], spec, model.config.data.columns)
    tell("as they are")
    out: dict[Condition | None, ScoredRows] = {None: scored(model, rows)}
    for perturbation, strength in itertools.product(chosen, options.strengths):
        condition = Condition(perturbation.name, strength)
        tell(str(condition))
        new = perturbed_rows(rows, columns, perturbation, strength, options.seed, tables)
        out[condition] = scored(model, new)
    for path in options.noisy:
        tell(path)
        noisy = rows_of_file(model, path, options.limit)
        out[condition_of(path)] = _in_place(model, rows, noisy, out[None], path)
    return out


def _in_place(
    model: Any, rows: Sequence[Row], noisy: Sequence[Row], clean: ScoredRows, path: str
) -> ScoredRows:
    """Evaluates noisy rows in the places of the clean ones. Raises DataError where they are others:
    another number of rows, or another label.
    """
    if len(noisy) != len(rows):
        raise DataError(
            f"{path}: has {len(noisy)} rows, expected {len(rows)}: those of the data, row by row"
        )
    moved = [
        dataclasses.replace(n, file=c.file, line=c.line) for n, c in zip(noisy, rows, strict=True)
    ]
    found, classes = scored(model, moved), model.task.spec.records.classes
    for one, other, row in zip(clean.records, found.records, noisy, strict=False):
        if classes(one) != classes(other):
            raise DataError(f"{row.where}: has another label than its row in the data")
    return found


def perturbed_rows(
    rows: Sequence[Row],
    columns: Sequence[str],
    perturbation: Perturbation,
    strength: float,
    seed: int,
    tables: Tables,
) -> list[Row]:
    """Returns the rows, each changed."""
    one = functools.partial(
        perturbations.perturbed,
        names=columns,
        perturbation=perturbation,
        strength=strength,
        seed=seed,
        tables=tables,
    )
    return [one(row) for row in rows]


def rows_of_file(model: Any, path: str, limit: int | None, more: Sequence[str] = ()) -> list[Row]:
    """Reads the rows of a file as the model reads them, the first `limit`, with more columns.

    Raises DataError.
    """
    config, task = model.config, model.task
    columns = [
        *task.inputs(config.data.columns),
        *task.outputs(config.data.columns),
        *file_records.columns_beside(config),
        *more,
    ]
    rows = file_records.read_rows(config, path, columns, [])[:limit]
    if not rows:
        raise DataError(f"{path}: has no row")
    return rows


def first_number(model: Any, found: ScoredRows) -> list[str]:
    """Returns the number that chose the checkpoint, or, where rows do not give it, the first that
    they give.
    """
    chosen = model.config.evaluation.metric.partition("/")[2]
    names = [
        name
        for one in found.measured.values()
        for name in one.metric.names
        if name not in one.metric.counts
    ]
    return [chosen] if chosen in names else names[:1]
