"""Durations with units: `60steps`, `3epochs`, `10000examples`, `5%`."""

from __future__ import annotations

import dataclasses
import math
import re

from jaxsft.errors import ConfigError

LARGEST = 2**53  # from here on a float has no half, and no next number
_PATTERN = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*(steps?|epochs?|examples?|%)")


@dataclasses.dataclass(frozen=True)
class Clock:
    """The numbers that turn a duration into steps: steps and examples of one epoch, and the steps
    of the whole training (for percent).
    """

    steps_per_epoch: int
    examples_per_epoch: int
    total: int | None = None


def parse(text: str, option: str) -> tuple[float, str]:
    """Splits a duration into number and unit: `"3epochs"` -> `(3.0, "epoch")`.

    Raises ConfigError for anything else.
    """
    match = _PATTERN.fullmatch(str(text).strip())
    if not match or float(match[1]) >= LARGEST:
        raise ConfigError(
            f"{option}={text}: expected a number with a unit, such as 60steps, 3epochs,"
            " 10000examples or 5%"
        )
    return float(match[1]), match[2].rstrip("s")


def profile_steps(text: str) -> tuple[int, int]:
    """Parses the first and last step of a trace: `"steps:10-15"` -> `(10, 15)`.

    Raises ConfigError for anything else.
    """
    match = re.fullmatch(r"steps:(\d+)-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"profile={text}: expected steps:FIRST-LAST, counted from 1, such as steps:10-15"
        )
    return int(match[1]), int(match[2])


def steps(text: str, clock: Clock, option: str) -> int:
    """Converts a duration to a number of steps, rounded up.

    Raises ConfigError for a percentage without `clock.total`.
    """
    value, unit = parse(text, option)
    if unit == "step":
        return math.ceil(value)
    if unit == "epoch":
        return _up(value * clock.steps_per_epoch)
    if unit == "example":
        return _up(value * clock.steps_per_epoch / max(clock.examples_per_epoch, 1))
    if clock.total is None:
        raise ConfigError(
            f"{option}={text}: a percentage needs a whole; give steps, epochs or examples"
        )
    return _up(value * clock.total / 100)


def _up(steps: float) -> int:
    """Rounds up, but ignores the rounding error of floats: 7% of 100 steps are 7."""
    return math.ceil(round(steps, 6))
