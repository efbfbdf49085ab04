"""One declaration per weight: shape, dtype, initialiser, logical axes and number of inputs.

It is carried through `jax.eval_shape`.

Everything else about a weight is derived from it: its initial value, its sharding, its place in a
checkpoint, its row in the parameter table, whether it decays, and the matrix that Muon sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxsft import quantised
from jaxsft.errors import ConfigError
from jaxsft.sharding.weight_spec import Flat, WeightSpec

MOST = 2**31 - 1  # places of an axis: ids and positions are int32


class Weight(nn.LogicallyPartitioned):
    """A boxed parameter. `inputs` counts the leading axes (of one layer and expert) that a product
    sums over; 0 where the weight is no matrix.
    """

    inputs: int = struct.field(default=0, pytree_node=False)


def declare(init: Callable, axes: tuple[str, ...], inputs: int = 0) -> Callable:
    """Wraps an initialiser, so that `module.param(name, declare(...), shape)` carries the
    declaration.

    Args:
      init: `init(key, shape, dtype) -> array`; it sees the shape of one layer, so fan-in is per
        layer of a stack.
      axes: the logical name of each axis.
      inputs: how many leading axes are summed over in the product `x @ w`; 0 for embeddings, scales
        and biases.
    """

    def boxed(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Weight:
        if len(axes) != len(shape):
            raise ValueError(f"{len(axes)} logical axes {axes} for shape {shape}")
        if max(shape, default=0) > MOST:
            raise ConfigError(
                f"a weight of {' x '.join(axes)} would be {' x '.join(map(str, shape))}: no size is"
                f" above {MOST}; set less of model.*, or look at the sizes in config.json"
            )
        return Weight(init(key, shape, dtype), names=axes, inputs=inputs)

    return boxed


def weight_of(module: nn.Module, declared: Callable, shape: tuple[int, ...]) -> Any:
    """Returns the parameter `w` of a module; one that is held in few bits is read as it is, for
    its arrays have shapes of their own.
    """
    if module.has_variable("params", "w") and quantised.are(
        held := module.get_variable("params", "w")
    ):
        return held
    return module.param("w", declared, shape)


def specs(boxed: Any) -> Any:
    """Returns the tree of `WeightSpec` of a tree of `Weight` (arrays or shapes)."""
    return jax.tree.map(
        lambda w: WeightSpec(tuple(w.value.shape), w.value.dtype, tuple(w.names), w.inputs),
        boxed,
        is_leaf=is_weight,
    )


def flatten(tree: Any) -> Flat:
    """Returns the leaves by path, as errors name them: `{"trainable/embed/tokens/w": array}`."""
    name = lambda key: str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
    return {
        "/".join(map(name, path)): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def is_weight(x: Any) -> bool:
    return isinstance(x, Weight)
