"""Learning-rate schedules in [0, 1] of traced step, warm-up and length.

Trials with different values share one compiled program.

Step k is the k-th optimizer step, counted from 0; a run of `total` steps uses the values at 0 ...
total - 1. Every schedule warms up linearly, `lr(step) = step / warmup` for `step < warmup`. Its
values, as fractions of the peak:

  schedule        lr(0)   lr(warmup)   lr(total)
  constant        0       1            1
  linear          0       1            final
  cosine          0       1            final
  inverse_sqrt    0       1            sqrt(warmup / total)
  wsd             0       1            final

Without warm-up (`warmup=0`) there is really none: lr(0) = 1. After `total`, the value at `total`
stays (inverse_sqrt goes on falling). If `warmup >= total`, all `total` steps are warm-up. The
linear, cosine and warm-up forms agree with Optax's schedules of the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsft.config.option import declarations
from jaxsft.config.schema import ScheduleConfig
from jaxsft.errors import ConfigError
from jaxsft.optim.parts import SCHEDULES


def rate(schedule: ScheduleConfig, step: ArrayLike, hyper: Mapping[str, Any]) -> Float[Array, ""]:
    """Computes the learning rate of a step; `hyper` are the traced values of the run."""
    scalars = {name: hyper[name] for name in scalars_of(schedule.name)}
    return hyper["learning_rate"] * unit(
        schedule.name, step, hyper["warmup"], hyper["total"], **scalars
    )


def scalars_of(name: str) -> list[str]:
    """Returns the traced options of a schedule beside its warm-up. Raises ConfigError."""
    if name not in SCHEDULES:
        raise ConfigError(f"schedule={name}: unknown; choose one of {', '.join(SCHEDULES)}")
    own = declarations(SCHEDULES[name].options).items()
    return [key for key, one in own if one.accepts.traced and key != "warmup"]


def unit(
    name: str, step: ArrayLike, warmup: ArrayLike, total: ArrayLike, **scalars: ArrayLike
) -> Float[Array, ""]:
    """Computes the learning rate as a fraction of its peak, in [0, 1].

    Args:
      name: which schedule, a key of `SCHEDULES`; the only argument that is not traced.
      step: the optimizer step, from 0.
      warmup: the length of the warm-up, in steps.
      total: the length of the run, in steps.
      scalars: the traced options of the schedule, by name, durations in steps; 0 where one is not
        given. Those of other schedules are not read.

    Returns:
      A float32 scalar.

    Raises:
      ConfigError: `name` is unknown.
    """
    own = {key: scalars.get(key, 0.0) for key in scalars_of(name)}
    # Steps are exact in float32 up to 2**24, and never in bfloat16, so everything is cast first.
    step, warmup, total, own = jax.tree.map(
        lambda x: jnp.asarray(x).astype(jnp.float32), (step, warmup, total, own)
    )
    height = SCHEDULES[name].height(step, warmup, total, **own)
    return jnp.where(step < warmup, step / _positive(warmup), height)


def remaining(step: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns 1 at `start`, falling to 0 at `end` and after; 0 everywhere between equal ends.

    It is counted from the end, so that the last rates are exact.
    """
    return jnp.where(end > start, jnp.clip((end - step) / _positive(end - start), 0, 1), 0)


def between(final: jax.Array, height: jax.Array) -> jax.Array:
    """Interpolates from `final` at height 0 to 1 at height 1, exact at both."""
    return height + final * (1 - height)


def _positive(x: jax.Array) -> jax.Array:
    """Returns x, or 1 where it is not positive: a safe divisor where the quotient is not used."""
    return jnp.where(x > 0, x, 1)
