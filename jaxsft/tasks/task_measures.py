"""Which metrics a task has, which way each is better, and what was tuned on validation data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from jaxsft.config.schema import Config
from jaxsft.metrics import by_name
from jaxsft.tasks.specs import TaskSpec, of_target


class TaskMeasures:
    """What an evaluation asks about the numbers of a task."""

    spec: TaskSpec
    config: Config
    state: dict[str, Any]

    @property
    def measures(self) -> tuple[str, ...]:
        """Returns the names of the metrics that the task has by itself; those whose arrays its
        outputs do not have are left out.
        """
        return self.spec.measures

    def sign(self, metric: str) -> int:
        """Returns -1 for a number of which less is better, otherwise 1."""
        spec = self.spec
        names = [*spec.measures, *spec.answer_measures, *self.config.evaluation.metrics]
        low = {"loss", *by_name.lower_is_better(names)}
        low |= {
            of_target(name, label) for name in low for label in self.config.data.columns.targets
        }
        return -1 if metric in low else 1

    @property
    def answer_measures(self) -> tuple[str, ...]:
        """Returns the names of the metrics of generated answers."""
        return ("exact_match",)

    def with_tuned(self, values: Mapping[str, Any]) -> Self:
        """Returns the task with what `tune` returned."""
        if not values:
            return self
        task = copy.copy(self)
        task.state = copy.copy(self.state)
        task.state.update(values)
        return task
