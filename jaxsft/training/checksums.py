"""Checksums of arrays, computed on the device and equal on every mesh."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxsft.sharding.weight_spec import Flat


def checksums(arrays: Flat) -> dict[str, Array]:
    """Computes two position-weighted sums (modulo 2^32) of the bits of each array, `[2]` uint32.

    They are computed on the device, and are equal on every mesh. The weights are odd, hence
    invertible modulo 2^32, so that no single changed word goes unnoticed.
    """
    return {name: _checksum(x) for name, x in arrays.items()}


def _checksum(x: Array) -> Array:
    words = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = (
        x.astype(jnp.uint8) if x.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(x, words)
    ).astype(jnp.uint32)
    # The place of each word, without a reshape: that would gather a sharded array on every device.
    strides = [math.prod(bits.shape[axis + 1 :]) for axis in range(bits.ndim)]
    place = sum(
        (
            jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(s % 2**32)
            for axis, s in enumerate(strides)
        ),
        jnp.uint32(0),
    )
    odd = 2 * place + 1
    # Knuth's multiplicative hash
    mixed = (odd * jnp.uint32(2654435761)) ^ (odd >> 15) | jnp.uint32(1)
    return jnp.stack([(bits * odd).sum(dtype=jnp.uint32), (bits * mixed).sum(dtype=jnp.uint32)])


def digest(arrays: Flat) -> dict[str, list[int]]:
    if not arrays:
        return {}
    place = next(iter(arrays.values())).sharding
    whole = NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else None
    return {name: np.asarray(v).tolist() for name, v in _compiled(whole)(arrays).items()}


@functools.cache
def _compiled(place: Any) -> Callable[[Flat], dict[str, Array]]:
    return jax.jit(checksums, out_shardings=place)
