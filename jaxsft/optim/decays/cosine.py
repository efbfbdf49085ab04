"""Half a cosine from the peak to the last rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxsft.config.option import Trace, option
from jaxsft.config.schema import ScheduleConfig
from jaxsft.optim.parts import Schedule

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class Cosine(ScheduleConfig):
    name: str = "cosine"
    final: float = option(
        0.0, "the last rate, as a fraction of the peak", at_least=0, traced=Trace()
    )


def height(step: Array, warmup: Array, total: Array, final: Array) -> Array:
    """Computes half a cosine from 1 at `warmup` to `final` at `total`.

    Loshchilov and Hutter 2017, arXiv:1608.03983; optax.cosine_decay_schedule.
    """
    import jax.numpy as jnp

    from jaxsft.optim.schedules import between, remaining

    # sin(pi r / 2) ** 2 is (1 + cos(pi (1 - r))) / 2 without the cancellation at the end.
    return between(final, jnp.sin(0.5 * jnp.pi * remaining(step, warmup, total)) ** 2)


SCHEDULE = Schedule(Cosine, height)
