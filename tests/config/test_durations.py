"""Durations become steps, rounded up, and everything else is refused."""

import pytest

from jaxsft.config import durations
from jaxsft.errors import ConfigError

CLOCK = durations.Clock(steps_per_epoch=10, examples_per_epoch=95, total=30)


@pytest.mark.parametrize(
    "text, steps",
    [
        ("60steps", 60),
        ("1step", 1),
        ("3epochs", 30),
        ("0.25epochs", 3),
        ("1e2examples", 11),
        ("95 examples", 10),
        ("5%", 2),
        ("100%", 30),
        ("0steps", 0),
    ],
)
def test_steps(text, steps):
    assert durations.steps(text, CLOCK, "train.duration") == steps


@pytest.mark.parametrize("percent", [7, 14, 28, 55, 56])
def test_a_percentage_is_not_rounded_up_by_what_a_float_lacks(percent):
    assert (
        durations.steps(f"{percent}%", durations.Clock(10, 95, 100), "schedule.warmup") == percent
    )


NONE = ["5", "-1steps", "3 weeks", "", "steps", "nansteps", "1.steps", "1e400epochs", "1e16steps"]


@pytest.mark.parametrize("text", NONE)
def test_without_a_unit_it_is_refused(text):
    with pytest.raises(ConfigError, match=r"schedule\.warmup=.*: expected a number with a unit"):
        durations.steps(text, CLOCK, "schedule.warmup")


def test_a_percentage_needs_a_whole():
    with pytest.raises(ConfigError, match="a percentage needs a whole"):
        durations.steps("5%", durations.Clock(10, 95), "train.duration")
