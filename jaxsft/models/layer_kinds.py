"""The differences between the layers of a stack apart from their weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxsft.config.model import ModelConfig

EVERYTHING = 2**30  # the window of a layer that has none, beside layers that have one


class Layer(NamedTuple):
    """The differences between the blocks of a stack apart from their weights, each `[L]` in a scan.

    Attributes:
      index: of the layer.
      window: positions nearer than it are seen; None: no layer has one.
      local: the layer rotates with `rope_local_base`; None: no layer does.
    """

    index: Int[Array, ""]
    window: Int[Array, ""] | None = None
    local: Bool[Array, ""] | None = None

    def positions(self, inputs: Any) -> Any:
        """Returns the position inputs of this layer; `inputs` are those of all
        (`position_inputs.inputs`), of which layers with a window may have their own.
        """
        if self.local is None:
            return inputs
        return jax.tree.map(lambda local, other: jnp.where(self.local, local, other), *inputs)


def layers_of(config: ModelConfig, start: int, depth: int) -> Layer:
    """Returns index, window and locality of consecutive layers, arrays `[depth]`."""
    index = np.arange(start, start + depth, dtype=np.int32)
    if config.window is None:
        return Layer(index)
    every = config.window_layers is None
    windowed = np.arange(config.layers) if every else np.array(config.window_layers, np.int32)
    local = np.isin(index, windowed)
    window = np.where(local, np.int32(config.window), np.int32(EVERYTHING))
    return Layer(index, window, None if config.rope_local_base is None else local)
