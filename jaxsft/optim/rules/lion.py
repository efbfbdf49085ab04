"""Lion: the sign of a momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import COEFFICIENT, Group, OptimConfig, decay_option
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Lion(OptimConfig):
    """Chen et al. 2023, arXiv:2302.06675: a rate three to ten times smaller, and a decay as many
    times larger, than AdamW's.
    """

    name: str = "lion"
    learning_rate: float = option(1e-4, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(
        0.9,
        "share of the momentum in the sign that is stepped along",
        at_least=0,
        below=1,
        traced=COEFFICIENT,
    )
    b2: float = option(0.99, "decay of the momentum", at_least=0, below=1, traced=COEFFICIENT)
    weight_decay: float = decay_option(0.03)
    decay_groups: list[Group] = option([], "as of adamw")


def lion(options: Lion, specs: Any) -> optax.GradientTransformation:
    """Builds Lion's direction (Chen et al. 2023, arXiv:2302.06675; optax.scale_by_lion)."""
    import optax

    del specs
    return optax.scale_by_lion(options.b1, options.b2)


OPTIMIZER = Optimizer(Lion, lion)
