"""One over the root of the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxsft.config.schema import ScheduleConfig
from jaxsft.optim.parts import Schedule

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class InverseSqrt(ScheduleConfig):
    name: str = "inverse_sqrt"


def height(step: Array, warmup: Array, total: Array) -> Array:
    """Computes `sqrt(warmup / step)`; `1 / sqrt(1 + step)` without warm-up.

    Vaswani et al. 2017, arXiv:1706.03762, section 5.3, divided by its peak.
    """
    import jax.numpy as jnp

    del total
    scale = jnp.maximum(warmup, 1)
    return jnp.sqrt(scale / (scale + jnp.maximum(step - warmup, 0)))


SCHEDULE = Schedule(InverseSqrt, height)
