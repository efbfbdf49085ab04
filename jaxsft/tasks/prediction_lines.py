"""The lines of `jaxsft predict`, made of predictions."""

from __future__ import annotations

from typing import Any


class PredictionLines:
    """What becomes of a prediction where there is no label to compare it with."""

    def annotated(self, line: dict[str, Any]) -> dict[str, Any]:
        """Returns a line of `predict` with the prediction in columns of its format, as CoNLL."""
        return line

    @staticmethod
    def predicted(line: dict[str, Any]) -> dict[str, Any]:
        """Returns the part of a prediction that can be made without a label."""
        kept = ("prediction", "probability", "probabilities", "nll", "tokens")
        return {name: value for name, value in line.items() if name in kept}
