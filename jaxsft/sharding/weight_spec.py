"""The description of a weight without its value, which needs no JAX."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

Flat = dict[str, Any]
LAYERS = "layers"  # the logical axis of a stack of layers; always the first axis
# leading axes that count weights alike; what treats a weight as a matrix works on each
STACKS = (LAYERS, "experts")


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """The description of a weight without its value.

    `shape` and `axes` include the leading layer axis of a stack.
    """

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str, ...]
    inputs: int = 0

    @property
    def stacked(self) -> bool:
        return bool(self.axes) and self.axes[0] == LAYERS

    @property
    def stacks(self) -> int:
        """Returns how many leading axes stack weights: layers, and experts of a layer."""
        return next((i for i, axis in enumerate(self.axes) if axis not in STACKS), len(self.axes))

    @property
    def matrix(self) -> tuple[int, int] | None:
        """Returns (fan in, fan out) of one layer and expert; None where the weight is no matrix."""
        if not self.inputs:
            return None
        shape = self.shape[self.stacks :]
        return math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :])
