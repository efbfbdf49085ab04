"""What losses of one label are given beside logits and labels, learnt of the training rows: how
many of them have each label, and how often a label is taken for another.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxsft import losses
from jaxsft.config.schema import Config
from jaxsft.data import transition_file
from jaxsft.errors import ConfigError
from jaxsft.losses.terms.head_loss import HeadLoss

STATE = {"class_counts": "counts", "transition": "transition"}  # where the state has an input


def fit(config: Config, labels: Sequence[str], given: Iterable[str]) -> dict[str, Any]:
    """Returns what the loss of a config is given, as entries of the state of its task; {} for most
    losses.
    """
    inputs, out = losses.get(config.task.loss).inputs, {}
    if "class_counts" in inputs or getattr(config.task, "prior_correction", 0) > 0:
        rows = Counter(given)
        out["counts"] = [rows[label] for label in labels]
    if "transition" in inputs:
        out["transition"] = transition_file.read(config.task.transition, labels)
    return out


class ClassInputs:
    """A task on labels whose loss may be given what `fit` returned."""

    config: Config
    state: dict[str, Any]

    @functools.cached_property
    def head_loss(self) -> HeadLoss:
        """Returns the loss of the head, with what it is given."""
        return HeadLoss(self.config.task, self.loss_input)

    def loss_input(self, name: str) -> np.ndarray:
        """Returns an input of the loss (`losses.INPUTS`).

        Raises ConfigError where the model was not trained with it.
        """
        key = STATE[name]
        if key not in self.state:
            raise ConfigError(
                f"task.loss={self.config.task.loss}: this model does not know"
                f" {losses.INPUTS[name]}, which the loss or task.prior_correction reads; train with"
                " these options, or leave them out"
            )
        return np.array(self.state[key], np.float64)

    @property
    def numbers_in_program(self) -> bool:
        return "counts" in self.state
