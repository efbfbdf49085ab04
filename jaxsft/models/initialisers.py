"""How weights start."""

from __future__ import annotations

import jax


def fan_in_normal(inputs: int, scale: float = 1.0):
    """Returns a truncated normal initialiser with standard deviation `scale / sqrt(fan in)`.

    The fan-in is the product of the first `inputs` axes (LeCun et al., 1998).
    """

    def init(key, shape, dtype):
        fan_in = 1
        for n in shape[:inputs]:
            fan_in *= n
        # 0.87962566 is the standard deviation of a unit normal truncated at two.
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) * (
            scale / (fan_in**0.5 * 0.87962566103423978)
        )

    return init
