"""The options of every optimizer. An option that does not apply to an optimizer does not exist in its class.

Learning rates are peaks, which the schedule multiplies; `weight_decay` is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101): a step subtracts
`learning_rate * weight_decay * w`, for every optimizer that has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass(frozen=True)
class Group:
    """The parameters whose whole path (`layers/3/attention/q/w`) the regex matches, and what their rate is multiplied by."""

    pattern: str = "???"
    factor: float = 1.0


@dataclass(frozen=True)
class OptimConfig:
    name: str = "???"
    learning_rate: float = 3e-4
    clip_norm: Optional[float] = 1.0  # the largest global norm of the gradient; null: no clipping
    lr_groups: list[Group] = field(default_factory=list)  # first match wins; elsewhere the factor is 1


@dataclass(frozen=True)
class SGD(OptimConfig):
    name: str = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.9  # 0: none, and no state
    nesterov: bool = False


@dataclass(frozen=True)
class Adam(OptimConfig):
    """Kingma and Ba 2015, arXiv:1412.6980."""

    name: str = "adam"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class AdamW(OptimConfig):
    """Loshchilov and Hutter 2019, arXiv:1711.05101."""

    name: str = "adamw"
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_groups: list[Group] = field(default_factory=list)  # first match wins; elsewhere 1 for matrices and embeddings, 0 for norms and biases


@dataclass(frozen=True)
class Adagrad(OptimConfig):
    """Duchi et al. 2011, JMLR 12."""

    name: str = "adagrad"
    learning_rate: float = 1e-2
    initial_accumulator: float = 0.1
    eps: float = 1e-7


@dataclass(frozen=True)
class Adafactor(OptimConfig):
    """Shazeer and Stern 2018, arXiv:1804.04235. With `scale_by_parameter` the learning rate is relative to the size of each weight."""

    name: str = "adafactor"
    learning_rate: float = 1e-3
    decay_rate: float = 0.8  # the second moment's decay at step t is 1 - t^-decay_rate
    update_clip: float = 1.0  # the largest root mean square of the update of one matrix
    scale_by_parameter: bool = True
    min_size_to_factor: int = 128  # a matrix with a side below this keeps its whole second moment
    eps: float = 1e-30
    weight_decay: float = 0.0
    decay_groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Lion(OptimConfig):
    """Chen et al. 2023, arXiv:2302.06675: a rate three to ten times smaller, and a decay as many times larger, than AdamW's."""

    name: str = "lion"
    learning_rate: float = 1e-4
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.03
    decay_groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Lamb(OptimConfig):
    """You et al. 2020, arXiv:1904.00962. The trust ratio is that of one weight of one layer."""

    name: str = "lamb"
    learning_rate: float = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    decay_groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Muon(OptimConfig):
    """Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Matrices, but for the head; AdamW takes everything else."""

    name: str = "muon"
    learning_rate: float = 0.02
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5  # Newton-Schulz iterations
    eps: float = 1e-8
    consistent_rms: Optional[float] = None  # 0.2: updates as large as AdamW's (arXiv:2502.16982), to be used with its learning rates
    weight_decay: float = 0.01
    decay_groups: list[Group] = field(default_factory=list)
    adam_learning_rate_factor: float = 0.015  # AdamW's learning rate, as a factor of Muon's
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_eps: float = 1e-8


OPTIMIZERS: dict[str, type[OptimConfig]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "adagrad": Adagrad,
    "adafactor": Adafactor,
    "lion": Lion,
    "lamb": Lamb,
    "muon": Muon,
}
