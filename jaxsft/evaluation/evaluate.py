"""Evaluation of a split: one jitted pass, and the metrics of what it gave of each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsft.data.pipeline import Batch, Batches
from jaxsft.evaluation import measured, passes
from jaxsft.evaluation.measured import Measured
from jaxsft.metrics.base import Outputs
from jaxsft.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      numbers: by name, as in result.json.
      columns: `[examples, ...]` (`word.NAME`: `[words, ...]`), what the pass gave.
      measured: the metrics with the statistics of the rows, by name.
      answers: generated texts by row; None: none were asked for.
      tuned: what was learnt from this split, or given: entries of the state of the task.
      outputs: what the metrics were made of; None: it was not kept.
    """

    numbers: dict[str, float]
    columns: dict[str, np.ndarray]
    measured: dict[str, Measured]
    answers: dict[int, str] | None = None
    tuned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outputs: Outputs | None = None


def evaluate(
    run: Callable[[Batch], Any],
    task: Task,
    batches: Batches,
    objective: Callable[[Any, Any], float],
    tuned: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Computes loss and metrics of a split.

    Args:
      run: the compiled evaluation of a batch.
      objective: the loss from merged (terms, totals): the one that training minimises.
      tuned: what the task has learnt from the validation split; None: this is that split, from
        which it learns thresholds.
    """
    return of_pass(passes.run_pass(run, batches, task.decoded), task, batches, objective, tuned)


def of_pass(
    passed: tuple[Any, dict[str, np.ndarray]],
    task: Task,
    batches: Batches,
    objective: Callable[[Any, Any], float],
    tuned: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Computes loss and metrics from what a pass gave; the rest as of `evaluate`."""
    (terms, totals, merged), columns = passed
    if tuned is None:
        tuned = task.tune(task.row_outputs(batches.split, columns))
    task = task.with_tuned(tuned)
    outputs = task.row_outputs(batches.split, columns)
    further = measured.asked(task.config, of_answers=False)
    found = measured.measure(task.measures, further, outputs, task.name)
    numbers = {"loss": objective(terms, totals)}
    for one in found.values():
        numbers |= one.numbers(task.spelled)
    if "experts" in merged:
        numbers |= merged["experts"].brief()
    return Evaluation(numbers, columns, found, tuned=tuned, outputs=outputs)
