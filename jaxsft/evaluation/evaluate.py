"""Evaluation of a split: one jitted pass, and the metrics of what it gave of each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsft.data.pipeline import Batch, Batches
from jaxsft.evaluation import passes
from jaxsft.evaluation.measured import Measured
from jaxsft.evaluation.row_metrics import metrics_of, with_loss
from jaxsft.metrics.base import Outputs
from jaxsft.tasks.loss_terms import objective_value
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
    weights: Mapping[str, Any],
    tuned: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Computes loss and metrics of a split.

    Args:
      run: the compiled evaluation of a batch.
      weights: of the terms of the loss that training minimises, by name.
      tuned: what the task has learnt from the validation split; None: this is that split, from
        which it learns thresholds.
    """
    return of_pass(passes.run_pass(run, batches, task.decoded), task, batches, weights, tuned)


def of_pass(
    passed: tuple[Any, dict[str, np.ndarray]],
    task: Task,
    batches: Batches,
    weights: Mapping[str, Any],
    tuned: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Computes loss and metrics from what a pass gave; the rest as of `evaluate`."""
    (terms, totals, merged), columns = passed
    if tuned is None:
        tuned = task.tune(task.row_outputs(batches.split, columns))
    task = task.with_tuned(tuned)
    outputs = with_loss(task, batches.split, columns, weights)
    found = metrics_of(task, outputs)
    numbers = {"loss": objective_value(terms, totals, weights)}
    for name in (name for name in found if name != "loss"):
        numbers |= found[name].numbers()
    if "experts" in merged:
        numbers |= merged["experts"].brief()
    return Evaluation(numbers, columns, found, tuned=tuned, outputs=outputs)
