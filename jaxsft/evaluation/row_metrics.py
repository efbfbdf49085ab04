"""What a task measures of the rows of a split, the loss that training minimises among it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsft.data.pipeline import Split
from jaxsft.evaluation import measured
from jaxsft.evaluation.measured import Measured
from jaxsft.metrics.base import Outputs
from jaxsft.tasks import rows
from jaxsft.tasks.task import Task


def metrics_of(task: Task, outputs: Outputs) -> dict[str, Measured]:
    """Returns the metrics of the rows of a split, the loss and those that were asked for too."""
    further = measured.asked(task.config, of_answers=False)
    return measured.measure(("loss", *task.measures), further, outputs, task.name)


def with_loss(
    task: Task, split: Split, columns: Mapping[str, np.ndarray], weights: Mapping[str, Any]
) -> Outputs:
    """Returns the outputs of the rows of a split, with the sums of the terms of their loss where
    every term is a sum over rows; those of a row that was dropped are 0.

    Args:
      weights: of the terms, by name.
    """
    outputs = task.row_outputs(split, columns)
    if not all(f"loss.{name}" in columns for name in weights):
        return outputs
    there = np.isin(outputs.rows, rows.kept(split)[0])
    found = np.zeros((len(there), len(weights), 2))
    for i, (name, weight) in enumerate(weights.items()):
        found[there, i, 0] = rows.total(split, columns[f"loss.{name}"]) * float(weight)
        found[there, i, 1] = rows.total(split, columns[f"weight.{name}"])
    return dataclasses.replace(outputs, arrays={**outputs.arrays, "loss_terms": found})
