"""Transforms between Hugging Face's tensors and our weights, invertible to the byte.

They move numbers and change none.

Theirs are `[out, in]` matrices; ours are `[inputs..., outputs...]`, which a `WeightSpec` tells
apart. All of it is views of numpy arrays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxsft.sharding.weight_spec import WeightSpec

Specs = Sequence[WeightSpec]


@dataclasses.dataclass(frozen=True)
class Transform:
    """The transform between one tensor of theirs and one of ours (`FusedTransform`: several).

    `specs` are of one layer.
    """

    def shape(self, specs: Specs) -> tuple[int, ...]:
        """Returns the shape that the tensor of theirs must have."""
        return specs[0].shape

    def to_ours(self, tensor: np.ndarray, specs: Specs) -> list[np.ndarray]:
        return [tensor]

    def to_theirs(self, arrays: Sequence[np.ndarray], specs: Specs) -> np.ndarray:
        return arrays[0]

    @property
    def of_bias(self) -> Transform:
        """Returns the transform of the bias that belongs to a matrix with this one."""
        return FLAT


@dataclasses.dataclass(frozen=True)
class FlatTransform(Transform):
    """The transform where theirs is a vector and ours has axes (a bias `[H, N]`)."""

    def shape(self, specs: Specs) -> tuple[int, ...]:
        return (math.prod(specs[0].shape),)

    def to_ours(self, tensor: np.ndarray, specs: Specs) -> list[np.ndarray]:
        return [tensor.reshape(specs[0].shape)]

    def to_theirs(self, arrays: Sequence[np.ndarray], specs: Specs) -> np.ndarray:
        return arrays[0].reshape(-1)


@dataclasses.dataclass(frozen=True)
class RowTransform(Transform):
    """The transform where theirs is `[1, n]` and ours `[n]`."""

    def shape(self, specs: Specs) -> tuple[int, ...]:
        return (1, *specs[0].shape)

    def to_ours(self, tensor: np.ndarray, specs: Specs) -> list[np.ndarray]:
        return [tensor[0]]

    def to_theirs(self, arrays: Sequence[np.ndarray], specs: Specs) -> np.ndarray:
        return arrays[0][None]


@dataclasses.dataclass(frozen=True)
class LinearTransform(Transform):
    """The transform of `nn.Linear`, `[out, in]`.

    `turned=False` is the `[in, out]` of GPT-2's Conv1D.
    """

    turned: bool = True

    def shape(self, specs: Specs) -> tuple[int, ...]:
        n_in, n_out = specs[0].matrix
        return (n_out, n_in) if self.turned else (n_in, n_out)

    def to_ours(self, tensor: np.ndarray, specs: Specs) -> list[np.ndarray]:
        return [(tensor.T if self.turned else tensor).reshape(specs[0].shape)]

    def to_theirs(self, arrays: Sequence[np.ndarray], specs: Specs) -> np.ndarray:
        x = arrays[0].reshape(specs[0].matrix)
        return x.T if self.turned else x


@dataclasses.dataclass(frozen=True)
class FusedTransform(Transform):
    """The transform where several linear layers of ours are one of theirs, along its outputs.

    Attributes:
      turned: as of `LinearTransform`.
      by_head: the outputs are, head by head, those of each part (GPT-NeoX), not part by part
        (GPT-2, Phi-3).
      bias: theirs is the vector of their biases.
    """

    turned: bool = True
    by_head: bool = False
    bias: bool = False

    @property
    def of_bias(self) -> Transform:
        return dataclasses.replace(self, bias=True)

    def _outputs(self, spec: WeightSpec) -> int:
        return math.prod(spec.shape) if self.bias else spec.matrix[1]

    def shape(self, specs: Specs) -> tuple[int, ...]:
        n_out = sum(map(self._outputs, specs))
        if self.bias:
            return (n_out,)
        n_in = specs[0].matrix[0]
        return (n_out, n_in) if self.turned else (n_in, n_out)

    def to_ours(self, tensor: np.ndarray, specs: Specs) -> list[np.ndarray]:
        x = tensor.T if self.turned and not self.bias else tensor  # [in, out], or [out]
        if self.by_head:
            heads, dim = specs[0].shape[-2:]
            x = x.reshape(*x.shape[:-1], heads, len(specs), dim)
            return [x[..., i, :].reshape(spec.shape) for i, spec in enumerate(specs)]
        ends = np.cumsum([self._outputs(spec) for spec in specs])[:-1]
        return [
            part.reshape(spec.shape)
            for part, spec in zip(np.split(x, ends, axis=-1), specs, strict=True)
        ]

    def to_theirs(self, arrays: Sequence[np.ndarray], specs: Specs) -> np.ndarray:
        if self.by_head:
            lead = () if self.bias else (specs[0].matrix[0],)
            x = np.stack(
                [a.reshape(*lead, *spec.shape[-2:]) for a, spec in zip(arrays, specs, strict=True)],
                axis=-2,
            )
            x = x.reshape(*lead, -1)
        else:
            flat = [
                a.reshape(-1) if self.bias else a.reshape(spec.matrix)
                for a, spec in zip(arrays, specs, strict=True)
            ]
            x = np.concatenate(flat, axis=-1)
        return x.T if self.turned and not self.bias else x


PLAIN = Transform()
FLAT = FlatTransform()
ROW = RowTransform()
LINEAR = LinearTransform()
CONV1D = LinearTransform(turned=False)
FUSED = FusedTransform()
FUSED_CONV1D = FusedTransform(turned=False)
FUSED_BY_HEAD = FusedTransform(by_head=True)
