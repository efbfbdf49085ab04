"""LAMB: Adam whose update of each weight is as long as the weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import COEFFICIENT, Group, OptimConfig, decay_option
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer
from jaxsft.optim.rules.adam import adam

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Lamb(OptimConfig):
    """You et al. 2020, arXiv:1904.00962. The trust ratio is that of one weight of one layer."""

    name: str = "lamb"
    learning_rate: float = option(1e-3, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(
        0.9, "decay of the mean of gradients", at_least=0, below=1, traced=COEFFICIENT
    )
    b2: float = option(
        0.999, "decay of the mean of their squares", at_least=0, below=1, traced=COEFFICIENT
    )
    eps: float = option(
        1e-6, "added to the root of the second mean", at_least=0, traced=COEFFICIENT
    )
    weight_decay: float = decay_option(0.01)
    decay_groups: list[Group] = option([], "as of adamw")


def trust_ratio(options: Lamb, specs: Any) -> optax.GradientTransformation:
    """Builds LAMB's factor `|w| / |update|` of each weight of each layer; 1 where either is 0.

    You et al. 2020, arXiv:1904.00962; optax.scale_by_trust_ratio.
    """
    import optax

    from jaxsft.optim.per_layer import per_layer

    del options
    return per_layer(optax.scale_by_trust_ratio(), specs)


OPTIMIZER = Optimizer(Lamb, adam, after_decay=trust_ratio)
