"""Gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import OptimConfig
from jaxsft.config.option import Trace, option
from jaxsft.errors import ConfigError
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class SGD(OptimConfig):
    name: str = "sgd"
    learning_rate: float = option(1e-2, "the peak, which `schedule` multiplies", at_least=0)
    momentum: float = option(
        0.9,
        "0: none, and no state",
        at_least=0,
        below=1,
        traced=Trace(when="above 0", kind="coefficient"),
    )
    nesterov: bool = option(False, "look ahead along the momentum")


def sgd(options: SGD, specs: Any) -> optax.GradientTransformation:
    """Builds gradient descent with momentum `m <- momentum m + g` (optax.sgd).

    Sutskever et al. 2013.
    """
    import optax

    del specs
    if options.nesterov and not options.momentum:
        raise ConfigError("optim.nesterov=true needs optim.momentum above 0")
    return optax.trace(options.momentum, options.nesterov) if options.momentum else optax.identity()


OPTIMIZER = Optimizer(SGD, sgd)
