"""Adafactor: the second moment of a matrix as a product of two vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxsft.config.optim import Group, OptimConfig, decay_option
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class Adafactor(OptimConfig):
    """Shazeer and Stern 2018, arXiv:1804.04235. With `scale_by_parameter` the learning rate is
    relative to the size of each weight.
    """

    name: str = "adafactor"
    learning_rate: float = option(1e-3, "the peak, which `schedule` multiplies", at_least=0)
    decay_rate: float = option(0.8, "the second moment's decay at step t is 1 - t^-decay_rate")
    update_clip: float = option(1.0, "the largest root mean square of the update of one matrix")
    scale_by_parameter: bool = option(
        True, "a step is relative to the root mean square of its weight"
    )
    min_size_to_factor: int = option(
        128, "a matrix with a side below this keeps its whole second moment"
    )
    eps: float = option(1e-30, "added to the squares of gradients", at_least=0)
    weight_decay: float = decay_option(0.0)
    decay_groups: list[Group] = option([], "as of adamw")


def adafactor(options: Adafactor, specs: Any) -> optax.GradientTransformation:
    """Builds Adafactor's direction on the [inputs, outputs] matrix of each layer.

    Shazeer and Stern 2018, arXiv:1804.04235.

    The chain is optax.adafactor's, but for the decay, which is multiplied by the learning rate as
    everywhere here, and momentum, which would give up the memory that Adafactor is chosen for.
    """
    import optax

    from jaxsft.optim.per_layer import matrix_first

    one = [
        optax.scale_by_factored_rms(
            decay_rate=options.decay_rate,
            min_dim_size_to_factor=options.min_size_to_factor,
            epsilon=options.eps,
        ),
        optax.clip_by_block_rms(options.update_clip),
    ]
    if options.scale_by_parameter:
        one.append(optax.scale_by_param_block_rms())
    return matrix_first(optax.chain(*one), specs)


OPTIMIZER = Optimizer(Adafactor, adafactor)
