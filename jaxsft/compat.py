"""The differences between JAX versions, in one place."""

from __future__ import annotations

import jax


def enable_x64(enabled: bool = True):
    """Returns a context manager for 64-bit types: `jax.enable_x64`, or its older home."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64 as context

    return context(enabled)


def auto_axes(n: int) -> tuple:
    """Returns n automatic mesh axes, which sharding by propagation needs.

    `make_mesh` makes explicit axes by default since JAX 0.10.
    """
    return (jax.sharding.AxisType.Auto,) * n
