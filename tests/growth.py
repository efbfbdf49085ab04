"""How the time of a function grows with its input, as a ratio within one run: no machine is too
slow for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

RESOLUTION = 2e-3  # seconds; below it, a reading of the processor's clock says little


def ratio(run: Callable[[int], Any], size: int = 3_000, times: int = 4, tries: int = 2) -> float:
    """Returns how many times as long `run(times * size)` takes as `run(size)`: about `times` where
    it is linear, its square where it is quadratic.
    """

    def seconds(n: int) -> float:
        readings = []
        for _ in range(tries):
            began = time.thread_time()
            run(n)
            readings.append(time.thread_time() - began)
        return min(readings)

    return seconds(times * size) / max(seconds(size), RESOLUTION)


def is_linear(run: Callable[[int], Any], size: int = 3_000) -> bool:
    """Returns whether four times the input takes less than ten times as long (linear: 4, quadratic:
    16).
    """
    return ratio(run, size) < 10
