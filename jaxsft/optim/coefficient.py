"""A coefficient of an optimizer as the step is given it, in the place of a Python number."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


class Coefficient(struct.PyTreeNode):
    """A traced number that takes the dtype of what it meets, as a Python number does.

    Optax computes `1 - b2`, of which float32 would keep three digits of b2=0.9999: the difference
    comes along, from the host's double. So values that are traced and values that are compiled in
    give the same bits.
    """

    value: Float[Array, ""]
    rest: Float[Array, ""]  # 1 - value

    @classmethod
    def of(cls, pair: Float[Array, 2]) -> Coefficient:
        """Returns the coefficient of `[value, 1 - value]`, as `training.hyper` gives it."""
        return cls(pair[0], pair[1])

    def __mul__(self, x: Any) -> Any:
        return self.value.astype(x.dtype) * x

    def __radd__(self, x: Any) -> Any:
        return x + self.value.astype(x.dtype)

    def __rsub__(self, one: Any) -> Coefficient:
        """Computes `1 - value`, again a coefficient; of no other number."""
        if one != 1:
            raise TypeError(f"a coefficient is subtracted from 1 only, found {one}")
        return Coefficient(self.rest, self.value)

    def __pow__(self, count: Array) -> Array:
        """Computes the power of a whole number, in the default float of the machine."""
        return jnp.power(self.value.astype(jnp.result_type(float)), count)
