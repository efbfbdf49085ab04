"""The options of every optimizer. An option that does not apply to an optimizer does not exist in
its class.

Learning rates are peaks, which the schedule multiplies; `weight_decay` is decoupled (Loshchilov and
Hutter 2019, arXiv:1711.05101): a step subtracts `learning_rate * weight_decay * w`, for every
optimizer that has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

from jaxsft import plugins
from jaxsft.config.option import option


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
        3e-4, "the peak, which `schedule` multiplies", at_least=0, common="Training"
    )
    clip_norm: Optional[float] = option(
        1.0, "the largest global norm of the gradient; null: no clipping", above=0, at_most=math.inf
    )
    lr_groups: list[Group] = option([], "first match wins; elsewhere the factor is 1")


@dataclass(frozen=True)
class SGD(OptimConfig):
    name: str = "sgd"
    learning_rate: float = option(1e-2, "the peak, which `schedule` multiplies", at_least=0)
    momentum: float = option(0.9, "0: none, and no state", at_least=0, below=1)
    nesterov: bool = option(False, "look ahead along the momentum")


@dataclass(frozen=True)
class Adam(OptimConfig):
    """Kingma and Ba 2015, arXiv:1412.6980."""

    name: str = "adam"
    b1: float = option(0.9, "decay of the mean of gradients", at_least=0, below=1)
    b2: float = option(0.999, "decay of the mean of their squares", at_least=0, below=1)
    eps: float = option(1e-8, "added to the root of the second mean", at_least=0)


@dataclass(frozen=True)
class AdamW(OptimConfig):
    """Loshchilov and Hutter 2019, arXiv:1711.05101."""

    name: str = "adamw"
    learning_rate: float = option(1e-3, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(0.9, "decay of the mean of gradients", at_least=0, below=1)
    b2: float = option(0.98, "decay of the mean of their squares", at_least=0, below=1)
    eps: float = option(1e-8, "added to the root of the second mean", at_least=0)
    weight_decay: float = option(
        0.01, "decoupled, of a step: learning_rate * weight_decay * w", at_least=0
    )
    decay_groups: list[Group] = option(
        [], "first match wins; elsewhere 1 for matrices and embeddings, 0 for norms and biases"
    )


@dataclass(frozen=True)
class Adagrad(OptimConfig):
    """Duchi et al. 2011, JMLR 12."""

    name: str = "adagrad"
    learning_rate: float = option(1e-2, "the peak, which `schedule` multiplies", at_least=0)
    initial_accumulator: float = option(0.1, "what the sums of squares start from", at_least=0)
    eps: float = option(1e-7, "added to the root of these sums", at_least=0)


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
    weight_decay: float = option(
        0.0, "decoupled, of a step: learning_rate * weight_decay * w", at_least=0
    )
    decay_groups: list[Group] = option([], "as of adamw")


@dataclass(frozen=True)
class Lion(OptimConfig):
    """Chen et al. 2023, arXiv:2302.06675: a rate three to ten times smaller, and a decay as many
    times larger, than AdamW's.
    """

    name: str = "lion"
    learning_rate: float = option(1e-4, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(
        0.9, "share of the momentum in the sign that is stepped along", at_least=0, below=1
    )
    b2: float = option(0.99, "decay of the momentum", at_least=0, below=1)
    weight_decay: float = option(
        0.03, "decoupled, of a step: learning_rate * weight_decay * w", at_least=0
    )
    decay_groups: list[Group] = option([], "as of adamw")


@dataclass(frozen=True)
class Lamb(OptimConfig):
    """You et al. 2020, arXiv:1904.00962. The trust ratio is that of one weight of one layer."""

    name: str = "lamb"
    learning_rate: float = option(1e-3, "the peak, which `schedule` multiplies", at_least=0)
    b1: float = option(0.9, "decay of the mean of gradients", at_least=0, below=1)
    b2: float = option(0.999, "decay of the mean of their squares", at_least=0, below=1)
    eps: float = option(1e-6, "added to the root of the second mean", at_least=0)
    weight_decay: float = option(
        0.01, "decoupled, of a step: learning_rate * weight_decay * w", at_least=0
    )
    decay_groups: list[Group] = option([], "as of adamw")


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
        0.95, "decay of the mean of gradients of matrices", at_least=0, below=1
    )
    nesterov: bool = option(True, "look ahead along the momentum")
    ns_steps: int = option(5, "Newton-Schulz iterations", at_least=1)
    eps: float = option(1e-8, "added to the norm by which a matrix is divided first", at_least=0)
    consistent_rms: Optional[float] = option(
        None,
        "0.2: updates as large as AdamW's (arXiv:2502.16982), to be used with its learning rates",
    )
    weight_decay: float = option(
        0.01, "decoupled, of a step: learning_rate * weight_decay * w", at_least=0
    )
    decay_groups: list[Group] = option([], "as of adamw")
    adam_learning_rate_factor: float = option(0.015, "AdamW's learning rate, as a factor of Muon's")
    adam_b1: float = option(0.9, "of AdamW: decay of the mean of gradients", at_least=0, below=1)
    adam_b2: float = option(
        0.999, "of AdamW: decay of the mean of their squares", at_least=0, below=1
    )
    adam_eps: float = option(1e-8, "of AdamW: added to the root of the second mean", at_least=0)


_OWN: dict[str, type[OptimConfig]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "adagrad": Adagrad,
    "adafactor": Adafactor,
    "lion": Lion,
    "lamb": Lamb,
    "muon": Muon,
}
OPTIMIZERS = plugins.Registry("optimizers", _OWN, read=lambda optimizer: optimizer.options)
