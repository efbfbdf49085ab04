"""A line from the peak to the last rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxsft.config.option import Trace, option
from jaxsft.config.schema import ScheduleConfig
from jaxsft.optim.parts import Schedule

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class LinearDecay(ScheduleConfig):
    name: str = "linear"
    final: float = option(0.0, "as a fraction of the peak", at_least=0, traced=Trace())


def height(step: Array, warmup: Array, total: Array, final: Array) -> Array:
    """Computes a line from 1 at `warmup` to `final` at `total` (optax.linear_schedule)."""
    from jaxsft.optim.schedules import between, remaining

    return between(final, remaining(step, warmup, total))


SCHEDULE = Schedule(LinearDecay, height)
