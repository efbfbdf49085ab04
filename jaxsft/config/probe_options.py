"""The options of `jaxsft probe`, which measures what rate, batch and memory suit a run:
`probe.NAME=value`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from jaxsft.config.option import option

PREFIX = "probe."


@dataclass(frozen=True)
class ProbeConfig:
    """The options of a probe."""

    output: str = option("probe", "a folder for the figure and the numbers")
    low: float = option(1e-6, "the lowest of the learning rates", above=0)
    high: float = option(1.0, "the highest of them", above=0)
    count: int = option(24, "how many, at equal ratios; all are one program", at_least=3)
    steps: int = option(
        30, "that are trained: at each rate, and up to the last measure of the noise", at_least=1
    )
    points: int = option(3, "how often the noise is measured in these steps", at_least=1)
    batches: int = option(8, "of which the noise is measured each time", at_least=2)
    parts: int = option(4, "small batches into which each of them is cut", at_least=2)
    memory: Optional[float] = option(
        None, "GiB of a device that a step may take; null: what it has left", above=0
    )
