"""The one place for differences between JAX versions."""

from __future__ import annotations

import jax


def enable_x64(enabled: bool = True):
    """A context manager for 64-bit types: `jax.enable_x64` where it exists, else its older home."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64 as context

    return context(enabled)


def auto_axes(n: int) -> tuple:
    """`make_mesh` makes explicit axes by default since 0.10; sharding by propagation needs
    automatic ones.
    """
    return (jax.sharding.AxisType.Auto,) * n
