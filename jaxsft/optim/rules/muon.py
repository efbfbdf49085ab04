"""Muon: orthogonalised momentum of matrices, and AdamW for everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from jaxsft.config.optim import COEFFICIENT, Group, OptimConfig, decay_option
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer

if TYPE_CHECKING:
    import optax

    from jaxsft.sharding.weight_spec import WeightSpec


@dataclass(frozen=True)
class Muon(OptimConfig):
    """Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Matrices, but for the head;
    AdamW takes everything else.
    """

    name: str = "muon"
    learning_rate: float = option(
        0.02, "the peak of matrices, which `schedule` multiplies", at_least=0
    )
    momentum: float = option(
        0.95, "decay of the mean of gradients of matrices", at_least=0, below=1, traced=COEFFICIENT
    )
    nesterov: bool = option(True, "look ahead along the momentum")
    ns_steps: int = option(5, "Newton-Schulz iterations", at_least=1)
    eps: float = option(
        1e-8, "added to the norm by which a matrix is divided first", at_least=0, traced=COEFFICIENT
    )
    consistent_rms: Optional[float] = option(
        None,
        "0.2: updates as large as AdamW's (arXiv:2502.16982), to be used with its learning rates",
    )
    weight_decay: float = decay_option(0.01)
    decay_groups: list[Group] = option([], "as of adamw")
    adam_learning_rate_factor: float = option(0.015, "AdamW's learning rate, as a factor of Muon's")
    adam_b1: float = option(
        0.9, "of AdamW: decay of the mean of gradients", at_least=0, below=1, traced=COEFFICIENT
    )
    adam_b2: float = option(
        0.999,
        "of AdamW: decay of the mean of their squares",
        at_least=0,
        below=1,
        traced=COEFFICIENT,
    )
    adam_eps: float = option(
        1e-8, "of AdamW: added to the root of the second mean", at_least=0, traced=COEFFICIENT
    )


def muon(options: Muon, specs: Any) -> optax.GradientTransformation:
    """Builds Muon's direction on matrices (optax.contrib.scale_by_muon), Adam's on the rest.

    Jordan et al. 2024.

    The update of a matrix is multiplied by `sqrt(max(1, outputs / inputs))`; with `consistent_rms`,
    by `consistent_rms * sqrt(max(inputs, outputs))` instead (Liu et al. 2025, arXiv:2502.16982).
    """
    import jax
    import optax

    from jaxsft.optim.per_layer import ADAM, MUON, muon_dimensions, muon_labels, scaled

    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=options.ns_steps,
        beta=options.momentum,
        eps=options.eps,
        nesterov=options.nesterov,
        weight_dimension_numbers=muon_dimensions(specs),
    )
    labels = muon_labels(specs)

    def scale(spec: WeightSpec, label: str) -> float:
        if label != MUON:
            return 1.0
        inputs, outputs = spec.matrix
        if options.consistent_rms is not None:
            return options.consistent_rms * math.sqrt(max(inputs, outputs))
        return math.sqrt(max(1.0, outputs / inputs))

    both = optax.partition(
        {
            MUON: orthogonal,
            ADAM: optax.scale_by_adam(options.adam_b1, options.adam_b2, options.adam_eps),
        },
        labels,
    )
    return optax.chain(both, scaled(jax.tree.map(scale, specs, labels)))


def adam_rate(options: Muon, specs: Any) -> optax.GradientTransformation:
    """Scales the updates that Muon leaves to AdamW, decay included, by their rate factor."""
    import jax

    from jaxsft.optim.per_layer import ADAM, muon_labels, scaled

    return scaled(
        jax.tree.map(
            lambda label: options.adam_learning_rate_factor if label == ADAM else 1.0,
            muon_labels(specs),
        )
    )


OPTIMIZER = Optimizer(Muon, muon, after_decay=adam_rate)
