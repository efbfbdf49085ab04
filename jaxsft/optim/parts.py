"""What an optimizer and a schedule are, and the tables of them. Each is one file, in `rules/` or
`decays/`, named as `optim=` or `schedule=` names it; it holds its options and what it computes.

The options are read where JAX is not imported (`--help`, the parent of a sweep), so such a file
imports it inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxsft import plugins
from jaxsft.config.optim import OptimConfig

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array


@dataclass(frozen=True)
class Optimizer:
    """An optimizer.

    Attributes:
      options: the class of `optim.*`.
      direction: `(options, specs) -> GradientTransformation`: the direction alone; weight decay,
        where the options have it, and the learning rate follow.
      after_decay: likewise; what follows the decay, and comes before the learning rate.
      preset: options where it is chosen, as in a file of `conf/optim/`; of plug-ins.
    """

    options: type[OptimConfig]
    direction: Callable[[Any, Any], optax.GradientTransformation]
    after_decay: Callable[[Any, Any], optax.GradientTransformation] | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class Schedule:
    """A schedule.

    Attributes:
      options: the class of `schedule.*`, a `jaxsft.config.schema.ScheduleConfig`.
      height: `(step, warmup, total, **scalars) -> factor` behind the warm-up, in [0, 1]; the
        scalars are the options that are declared as traced.
      preset: options where it is chosen, as in a file of `conf/schedule/`; of plug-ins.
    """

    options: type
    height: Callable[..., Array]
    preset: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


OPTIMIZERS = plugins.Registry("optimizers", plugins.files("jaxsft.optim.rules", "OPTIMIZER"))
SCHEDULES = plugins.Registry("schedules", plugins.files("jaxsft.optim.decays", "SCHEDULE"))
