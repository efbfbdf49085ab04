"""Adagrad: gradients over the root of the sum of all their squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import COEFFICIENT, OptimConfig
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Adagrad(OptimConfig):
    """Duchi et al. 2011, JMLR 12."""

    name: str = "adagrad"
    learning_rate: float = option(1e-2, "the peak, which `schedule` multiplies", at_least=0)
    initial_accumulator: float = option(0.1, "what the sums of squares start from", at_least=0)
    eps: float = option(1e-7, "added to the root of these sums", at_least=0, traced=COEFFICIENT)


def adagrad(options: Adagrad, specs: Any) -> optax.GradientTransformation:
    """Builds Adagrad's direction (Duchi et al. 2011, JMLR 12; optax.scale_by_rss)."""
    import optax

    del specs
    return optax.scale_by_rss(options.initial_accumulator, options.eps)


OPTIMIZER = Optimizer(Adagrad, adagrad)
