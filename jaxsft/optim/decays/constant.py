"""The peak, to the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxsft.config.schema import ScheduleConfig
from jaxsft.optim.parts import Schedule

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class Constant(ScheduleConfig):
    name: str = "constant"


def height(step: Array, warmup: Array, total: Array) -> Array:
    """Returns 1."""
    import jax.numpy as jnp

    del warmup, total
    return jnp.ones_like(step)


SCHEDULE = Schedule(Constant, height)
