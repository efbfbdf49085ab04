"""The options that all optimizers have; those of one are in its file, `jaxsft/optim/rules/`. An
option that does not apply to an optimizer does not exist in its class.

Learning rates are peaks, which the schedule multiplies; `weight_decay` is decoupled (Loshchilov and
Hutter 2019, arXiv:1711.05101): a step subtracts `learning_rate * weight_decay * w`, for every
optimizer that has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

from jaxsft import plugins
from jaxsft.config.option import Trace, option

# of betas, momenta and epsilons: traced, so that another value is no other program
COEFFICIENT = Trace(kind="coefficient")


@dataclass(frozen=True)
class Group:
    """The parameters whose whole path (`layers/3/attention/q/w`) the regex matches, and what their
    rate is multiplied by.
    """

    pattern: str = option("???", "a regex for the whole path of a parameter")
    factor: float = option(
        1.0, "what the rate, or the decay, of these parameters is multiplied by", at_least=0
    )


@dataclass(frozen=True)
class OptimConfig:
    name: str = "???"
    learning_rate: float = option(
        3e-4,
        "the peak, which `schedule` multiplies",
        at_least=0,
        common="Training",
        traced=Trace(),
    )
    clip_norm: Optional[float] = option(
        1.0,
        "the largest global norm of the gradient; null: no clipping",
        above=0,
        at_most=math.inf,
        traced=Trace(),
    )
    lr_groups: list[Group] = option([], "first match wins; elsewhere the factor is 1")


def decay_option(default: float) -> Any:
    """Returns the option of an optimizer with decoupled weight decay."""
    return option(
        default,
        "decoupled, of a step: learning_rate * weight_decay * w",
        at_least=0,
        traced=Trace(),
    )


OPTIMIZERS = plugins.OfTable("optimizers", "options")  # the class of options of each optimizer
