"""Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass

from jaxsft.config.optim import COEFFICIENT, Group, OptimConfig, decay_option
from jaxsft.config.option import option
from jaxsft.optim.parts import Optimizer
from jaxsft.optim.rules.adam import adam


@dataclass(frozen=True)
class AdamW(OptimConfig):
    """Loshchilov and Hutter 2019, arXiv:1711.05101."""

    name: str = "adamw"
    learning_rate: float = option(1e-3, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(
        0.9, "decay of the mean of gradients", at_least=0, below=1, traced=COEFFICIENT
    )
    b2: float = option(
        0.98, "decay of the mean of their squares", at_least=0, below=1, traced=COEFFICIENT
    )
    eps: float = option(
        1e-8, "added to the root of the second mean", at_least=0, traced=COEFFICIENT
    )
    weight_decay: float = decay_option(0.01)
    decay_groups: list[Group] = option(
        [], "first match wins; elsewhere 1 for matrices and embeddings, 0 for norms and biases"
    )


OPTIMIZER = Optimizer(AdamW, adam)
