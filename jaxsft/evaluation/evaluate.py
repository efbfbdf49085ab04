"""Evaluation of a split: one jitted pass, and the metrics of what it gave of each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxsft.data import pipeline
from jaxsft.data.pipeline import Batch, Batches
from jaxsft.evaluation.measured import Measured
from jaxsft.evaluation.row_metrics import metrics_of, with_loss
from jaxsft.metrics.base import Outputs
from jaxsft.models import step_sums
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


def run_pass(
    run: Callable[[Batch], tuple[Any, Mapping[str, Any]]],
    batches: Batches,
    decoded: Callable[[dict], dict] = lambda columns: columns,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns (terms, totals, states) and columns of a split, each example and word exactly once;
    where the batches are of chosen examples, the columns of the others are 0.

    The device is read one batch late.

    Args:
      decoded: what the host makes of the columns of a batch.
    """
    sums, columns, seen = None, {}, np.zeros(batches.split.examples, np.int64)

    def read(step: int, result: tuple[Any, Mapping[str, Any]]) -> None:
        nonlocal sums
        new, values = jax.device_get(result)
        sums = step_sums.merge(sums, step_sums.widen(new))
        ids, words = batches.example_ids(step), batches.word_ids(step)
        np.add.at(seen, ids[ids >= 0], 1)
        for name, value in decoded(values).items():
            to, count = (
                (words, batches.split.words) if name.startswith("word.") else (ids, len(seen))
            )
            column = columns.setdefault(name, np.zeros((count, *value.shape[2:]), value.dtype))
            column[to[to >= 0]] = value[to >= 0]

    late = None
    for step, batch in enumerate(pipeline.stream(batches, 0, len(batches))):
        result = run(batch)
        if late is not None:
            read(*late)
        late = (step, result)
    read(*late)
    asked = np.ones(len(seen), np.int64)
    if batches.chosen is not None:
        asked = np.bincount(batches.chosen, minlength=len(seen))
    assert (seen == asked).all(), "an example was evaluated twice or not at all"
    return sums, columns


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
    (terms, totals, merged), columns = run_pass(run, batches, task.decoded)
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
