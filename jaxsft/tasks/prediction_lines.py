"""What is made of predictions: the lines of `jaxsft predict`, and one of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Outputs


class PredictionLines:
    """Makes lines of predictions without labels, and the mean of those of several models."""

    name: str

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        """Returns a line of `predict` with the prediction in columns of its format, as CoNLL."""
        return line

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of a prediction that can be made without a label."""
        kept = ("prediction", "probability", "probabilities", "nll", "tokens")
        return {name: value for name, value in line.items() if name in kept}

    def mixed(self, outputs: Sequence[Outputs]) -> dict[str, np.ndarray]:
        """Returns the columns `[rows, ...]` of a model whose prediction is the mean of several.

        Args:
          outputs: of the models, of the same rows.

        Raises:
          ConfigError: predictions of this task have no mean.
        """
        raise ConfigError(
            f"task={self.name}: its predictions have no mean; expected a task of labels, of label"
            " sets or of numbers"
        )
