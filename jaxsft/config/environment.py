"""What must be known of the place where a run runs, and of what it starts from, to make its config:
plain data, so that JAX is not imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class StartingModel(NamedTuple):
    """The facts that the defaults of a pretrained model depend on: its kind (decoder | encoder |
    encoder-decoder), `embed`, and the options that regularise, by name, as it was trained with
    them."""

    kind: str
    embed: int
    regularised: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Device:
    """The devices of all processes.

    Attributes:
      kind: cpu | gpu | tpu.
      bf16: a CPU has instructions for products of bfloat16.
    """

    kind: str = "cpu"
    count: int = 1
    processes: int = 1
    bf16: bool = False


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts about the place where a run runs, and about what it starts from.

    Attributes:
      device: None: not known, so that what depends on it stays `auto`.
      pretrained: of `model.pretrained`; None: the run starts from nothing, or its defaults are in
        the config already.
      scores: of generated answers, those whose library is installed.
    """

    device: Device | None = Device()
    pretrained: StartingModel | None = None
    scores: Sequence[str] = ("exact_match",)
