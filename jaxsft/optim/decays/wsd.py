"""The peak, and a line to the last rate in the end: warm-up, stable, decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxsft.config.option import Trace, option
from jaxsft.config.schema import ScheduleConfig
from jaxsft.optim.parts import Schedule

if TYPE_CHECKING:
    from jaxtyping import Array


@dataclass(frozen=True)
class WSD(ScheduleConfig):
    name: str = "wsd"
    decay: str = option(
        "20%",
        "a duration, at the end, in which the rate falls",
        duration=True,
        traced=Trace(kind="steps"),
    )
    final: float = option(
        0.0, "the last rate, as a fraction of the peak", at_least=0, traced=Trace()
    )


def height(step: Array, warmup: Array, total: Array, final: Array, decay: Array) -> Array:
    """Computes warm-up, 1, then a line over the last `decay` steps to `final` at `total`.

    Hu et al. 2024, arXiv:2404.06395; the linear form is that of Haegele et al. 2024,
    arXiv:2405.18392. A decay longer than what the warm-up leaves starts at its end; `decay=0`
    is `constant`.
    """
    import jax.numpy as jnp

    from jaxsft.optim.schedules import between, remaining

    start = jnp.maximum(total - decay, warmup)
    return jnp.where(decay > 0, between(final, remaining(step, start, total)), 1)


SCHEDULE = Schedule(WSD, height)
