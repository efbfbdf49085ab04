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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxsft import plugins
from jaxsft.errors import ConfigError


def unit(
    name: str,
    step: ArrayLike,
    warmup: ArrayLike,
    total: ArrayLike,
    *,
    final: ArrayLike = 0.0,
    decay: ArrayLike = 0.0,
) -> Float[Array, ""]:
    """Computes the learning rate as a fraction of its peak, in [0, 1].

    Args:
      name: which schedule, a key of `SCHEDULES`; the only argument that is not traced.
      step: the optimizer step, from 0.
      warmup: the length of the warm-up, in steps.
      total: the length of the run, in steps.
      final: the value at `total`, as a fraction of the peak; for linear, cosine and wsd.
      decay: the length of the decay at the end, in steps; for wsd.

    Returns:
      A float32 scalar.

    Raises:
      ConfigError: `name` is unknown.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"schedule={name}: unknown; choose one of {', '.join(SCHEDULES)}")
    # Steps are exact in float32 up to 2**24, and never in bfloat16, so everything is cast first.
    step, warmup, total, final, decay = (
        jnp.asarray(x).astype(jnp.float32) for x in (step, warmup, total, final, decay)
    )
    return jnp.where(
        step < warmup,
        step / _positive(warmup),
        SCHEDULES[name](step, warmup, total, final, decay),
    )


def constant(
    step: jax.Array, warmup: jax.Array, total: jax.Array, final: jax.Array, decay: jax.Array
) -> jax.Array:
    """Returns 1."""
    del warmup, total, final, decay
    return jnp.ones_like(step)


def linear(
    step: jax.Array, warmup: jax.Array, total: jax.Array, final: jax.Array, decay: jax.Array
) -> jax.Array:
    """Computes a line from 1 at `warmup` to `final` at `total` (optax.linear_schedule)."""
    del decay
    return _between(final, _remaining(step, warmup, total))


def cosine(
    step: jax.Array, warmup: jax.Array, total: jax.Array, final: jax.Array, decay: jax.Array
) -> jax.Array:
    """Computes half a cosine from 1 at `warmup` to `final` at `total`.

    Loshchilov and Hutter 2017, arXiv:1608.03983; optax.cosine_decay_schedule.
    """
    del decay
    # sin(pi r / 2) ** 2 is (1 + cos(pi (1 - r))) / 2 without the cancellation at the end.
    return _between(final, jnp.sin(0.5 * jnp.pi * _remaining(step, warmup, total)) ** 2)


def inverse_sqrt(
    step: jax.Array, warmup: jax.Array, total: jax.Array, final: jax.Array, decay: jax.Array
) -> jax.Array:
    """Computes `sqrt(warmup / step)`; `1 / sqrt(1 + step)` without warm-up.

    Vaswani et al. 2017, arXiv:1706.03762, section 5.3, divided by its peak.
    """
    del total, final, decay
    scale = jnp.maximum(warmup, 1)
    return jnp.sqrt(scale / (scale + jnp.maximum(step - warmup, 0)))


def wsd(
    step: jax.Array, warmup: jax.Array, total: jax.Array, final: jax.Array, decay: jax.Array
) -> jax.Array:
    """Computes warm-up, 1, then a line over the last `decay` steps to `final` at `total`.

    Hu et al. 2024, arXiv:2404.06395; the linear form is that of Haegele et al. 2024,
    arXiv:2405.18392. A decay longer than what the warm-up leaves starts at its end; `decay=0`
    is `constant`.
    """
    start = jnp.maximum(total - decay, warmup)
    return jnp.where(decay > 0, _between(final, _remaining(step, start, total)), 1)


@dataclass(frozen=True)
class Schedule:
    """A schedule of a plug-in.

    Attributes:
      options: the class of `schedule.*`, a `jaxsft.config.schema.ScheduleConfig`; of its fields
        `warmup`, `final` and `decay` reach `height`.
      height: `(step, warmup, total, final, decay) -> factor` behind the warm-up, all traced.
      preset: options where it is chosen, as in a file of `conf/schedule/`.
    """

    options: type
    height: Callable[..., jax.Array]
    preset: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


_OWN: dict[str, Callable[..., jax.Array]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse_sqrt": inverse_sqrt,
    "wsd": wsd,
}
SCHEDULES = plugins.Registry("schedules", _OWN, read=lambda schedule: schedule.height)


def _remaining(step: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Returns 1 at `start`, falling to 0 at `end` and after; 0 everywhere between equal ends.

    It is counted from the end, so that the last rates are exact.
    """
    return jnp.where(end > start, jnp.clip((end - step) / _positive(end - start), 0, 1), 0)


def _between(final: jax.Array, height: jax.Array) -> jax.Array:
    """Interpolates from `final` at height 0 to 1 at height 1, exact at both."""
    return height + final * (1 - height)


def _positive(x: jax.Array) -> jax.Array:
    """Returns x, or 1 where it is not positive: a safe divisor where the quotient is not used."""
    return jnp.where(x > 0, x, 1)
