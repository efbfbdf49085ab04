"""Adam: the mean of gradients over the root of the mean of their squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import COEFFICIENT, OptimConfig
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Adam(OptimConfig):
    """Kingma and Ba 2015, arXiv:1412.6980."""

    name: str = "adam"
    b1: float = option(
        0.9, "decay of the mean of gradients", at_least=0, below=1, traced=COEFFICIENT
    )
    b2: float = option(
        0.999, "decay of the mean of their squares", at_least=0, below=1, traced=COEFFICIENT
    )
    eps: float = option(
        1e-8, "added to the root of the second mean", at_least=0, traced=COEFFICIENT
    )


def adam(options: Any, specs: Any) -> optax.GradientTransformation:
    """Builds Adam's direction of the options b1, b2 and eps (optax.scale_by_adam).

    Kingma and Ba 2015, arXiv:1412.6980.
    """
    import optax

    del specs
    return optax.scale_by_adam(options.b1, options.b2, options.eps)


OPTIMIZER = Optimizer(Adam, adam)
