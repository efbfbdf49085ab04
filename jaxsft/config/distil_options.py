"""The options of distillation: another model whose outputs are a target beside the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import Trace, option

_READ = "distil.teacher"


@dataclass(frozen=True)
class DistilConfig:
    teacher: Optional[str] = option(
        None,
        "a run directory of task=classify, or a folder of such a model: what it thinks of the"
        " training rows is a target beside their labels; it reads them with its own tokenizer",
        read_if="task=classify",
        hub="folder",
    )
    weight: float = option(
        1.0,
        "of this target in the loss, beside 1 of the labels",
        above=0,
        read_if=_READ,
        traced=Trace(when="term"),
    )
    temperature: float = option(
        2.0,
        "by which both models' logits are divided",
        above=0,
        read_if=_READ,
        traced=Trace(name="distil_temperature", when="read"),
    )
    direction: str = option(
        "forward",
        "forward: KL(teacher | student), which covers all that the teacher thinks possible |"
        " reverse: KL(student | teacher), which keeps to what it thinks likely (arXiv:2306.08543)",
        choices=("forward", "reverse"),
        read_if=_READ,
    )
