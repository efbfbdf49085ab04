"""A stack of layers: how it is run, and the differences between its layers apart from weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxsft.config.model import ModelConfig

EVERYTHING = 2**30  # the window of a layer that has none, beside layers that have one


class Layer(NamedTuple):
    """The differences between the blocks of a stack apart from their weights, each `[L]` in a scan.

    Attributes:
      index: of the layer.
      window: positions nearer than it are seen; None: no layer has one.
      local: the layer rotates with `rope_local_base`; None: no layer does.
      rotates: the layer rotates; None: all do, or none.
    """

    index: Int[Array, ""]
    window: Int[Array, ""] | None = None
    local: Bool[Array, ""] | None = None
    rotates: Bool[Array, ""] | None = None

    def positions(self, inputs: Any) -> Any:
        """Returns the position inputs of this layer; `inputs` are those of all
        (`position_inputs.inputs`), of which layers with a window may have their own.
        """
        if self.local is not None:
            inputs = jax.tree.map(lambda local, other: jnp.where(self.local, local, other), *inputs)
        if self.rotates is not None:  # by an angle of 0 where it does not
            cos, sin = inputs
            inputs = jnp.where(self.rotates, cos, 1), jnp.where(self.rotates, sin, 0)
        return inputs


def layers_of(config: ModelConfig, start: int, depth: int) -> Layer:
    """Returns index, window, locality and rotation of consecutive layers, arrays `[depth]`."""
    index = np.arange(start, start + depth, dtype=np.int32)
    rotates = None if config.rope_layers is None else np.isin(index, config.rope_layers)
    if config.window is None:
        return Layer(index, rotates=rotates)
    every = config.window_layers is None
    windowed = np.arange(config.layers) if every else np.array(config.window_layers, np.int32)
    local = np.isin(index, windowed)
    window = np.where(local, np.int32(config.window), np.int32(EVERYTHING))
    return Layer(index, window, None if config.rope_local_base is None else local, rotates)


def scan_layers(
    config: ModelConfig,
    platform: str,
    block: Callable[[Array, Any], tuple[Array, Any]],
    x: Array,
    segments: Iterable[tuple[int, Any, Any]],
) -> tuple[Array, list[Any]]:
    """Runs all layers, from the bottom up.

    Each segment is one `lax.scan` over its stacked weights, under `jax.checkpoint` where
    `model.remat` is set, and unrolled as `model.unroll` says.

    Args:
      platform: that is compiled for.
      block: makes `(x, what else it gives)` of `x` and `(weights, adapters, Layer)` of one layer.
      segments: (first layer, stack, its adapters) of each.

    Returns: x, and what else the layers of each segment gave.
    """
    if config.remat:
        kept = jax.checkpoint_policies.save_only_these_names(*(config.remat_saves or ()))
        block = jax.checkpoint(block, policy=kept if config.remat_saves else None)
    given = []
    for start, stack, beside in segments:
        depth = depth_of(stack)
        scanned = (stack, beside, layers_of(config, start, depth))
        x, more = lax.scan(block, x, scanned, unroll=_unroll(config, platform, depth))
        given.append(more)
    return x, given


def depth_of(stack: Any) -> int:
    """Returns how many layers a stack has."""
    return jax.tree.leaves(stack)[0].shape[0]


def _unroll(config: ModelConfig, platform: str, depth: int) -> int:
    # Measured on CPU: a full unroll is 25 % faster than the loop and compiles no slower at
    # these depths.
    on_cpu = config.unroll == "auto" and platform == "cpu"
    return depth if config.unroll == "full" or on_cpu else 1
