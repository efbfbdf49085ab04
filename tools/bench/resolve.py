"""How many configs a second the parent of a sweep can make ready to run, without JAX.

python -m tools.bench.resolve [seconds=5]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from jaxsft.config import compose, overrides
from jaxsft.config.environment import Device, Facts
from jaxsft.config.resolve import resolve
from jaxsft.config.schema import Config

TASKS = ("chat", "classify", "lm")
FACTS = Facts(Device("gpu", 8))


def measure(seconds: float) -> dict[str, float]:
    """Returns configs a second of one core by task, each a trial of its own rate and seed: given as
    overrides and resolved, and resolved alone; and whether JAX was imported on the way.
    """
    out: dict[str, float] = {}
    share = seconds / len(TASKS) / 2
    for name in TASKS:
        base = overrides.composed([f"task={name}", "data.train=FILE", "data.validation=HELD"])

        def asked(trial: int, base: Config = base) -> Config:
            rate = f"optim.learning_rate={1e-4 * (trial + 1)}"
            return compose.override(base, [rate, f"seed={trial}"])

        def ready(config: Config) -> None:
            config = resolve(config, FACTS)
            assert config.seeds.data == config.seed and config.precision == "bf16"

        given = asked(0)
        out[f"{name}, from overrides"] = _rate(lambda trial: ready(asked(trial)), share)
        out[f"{name}, resolved"] = _rate(lambda trial: ready(given), share)
    out["jax imported"] = float("jax" in sys.modules)
    return out


def _rate(make: Callable[[int], None], seconds: float) -> float:
    """Returns how many are made in a second of the processor's time."""
    make(0)
    began, count = time.process_time(), 0
    while time.process_time() - began < seconds:
        count += 1
        make(count)
    return count / (time.process_time() - began)


def main() -> None:
    given = dict(argument.split("=") for argument in sys.argv[1:])
    for name, value in measure(float(given.get("seconds", 5))).items():
        print(f"{name:<28}{value:,.1f}")


if __name__ == "__main__":
    main()
