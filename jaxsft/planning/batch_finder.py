"""How many rows a step may have: the memory of compiled steps, and none of them is run.

The memory of a step is a constant (weights, optimizer) and a part for each row, nearly; so two
compilations say where it ends, and a third one whether that is true.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxsft import planning
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError
from jaxsft.planning.chips import Topology

TRIES = 4  # compilations behind the first two


class RowsThatFit(NamedTuple):
    """The steps that were compiled.

    Attributes:
      rows: the most that fit, a power of two times the least; 0 where none do.
      limit: bytes that a step may take on a device.
      compiled: bytes of a step and of an evaluation, by rows.
    """

    rows: int
    limit: float
    compiled: dict[int, tuple[float, float]]


def find(
    config: Config,
    memory: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
    measured: Callable[[Config, int], tuple[dict[str, Any], float, float]] | None = None,
) -> RowsThatFit:
    """Returns the most rows whose steps fit on a device.

    Args:
      memory: bytes; None: of the chip of `plan.topology`, else what the device has left.
      tell: is given a line for each compilation.
      measured: compiles with so many rows, and returns facts and the bytes of both steps.

    Raises ConfigError where it cannot be compiled, or nothing says how much memory there is.
    """
    found: dict[int, tuple[float, float]] = {}
    limit, least, asked = memory, 1, config.train.batch_size

    def compile_rows(rows: int) -> float:
        nonlocal limit, least
        facts, step, evaluation = (measured or _measured)(config, rows)
        found[rows] = step, evaluation
        limit = limit if limit is not None else facts.get("room")
        shards = facts["mesh"]["data"] * facts["mesh"]["fsdp"]
        least = shards * config.train.accumulate
        tell(f"train.batch_size={rows}: {max(step, evaluation) / 2**30:.3f} GiB a device")
        return max(step, evaluation)

    here = compile_rows(asked)
    if limit is None:
        raise ConfigError("nothing says how much memory the device has; give probe.memory=GiB")
    other = 4 * asked if here <= limit else least
    each = (compile_rows(other) - here) / (other - asked) if other != asked else math.inf
    guess = _power(((limit - here) / max(each, 1.0) + asked) / least)
    for _ in range(TRIES):
        if guess < 1 or least * guess in found:
            break
        guess = guess if compile_rows(least * guess) <= limit else guess // 2
    fitting = [rows for rows, sizes in found.items() if max(sizes) <= limit]
    return RowsThatFit(max(fitting, default=0), limit, dict(sorted(found.items())))


def _power(number: float) -> int:
    """Returns the power of two that is not more; 0 below 1."""
    return 2 ** int(math.log2(number)) if number >= 1 else 0


def _measured(config: Config, rows: int) -> tuple[dict[str, Any], float, float]:
    topology = Topology.of(config.plan.topology) if config.plan.topology else None
    evaluation = dataclasses.replace(config.evaluation, batch_size=None)
    train = dataclasses.replace(config.train, batch_size=rows)
    # a pretrained model has another size of its own where nobody asked for one
    unasked = tuple(one for one in config.unasked if one[0] != "train.batch_size")
    config = dataclasses.replace(config, evaluation=evaluation, train=train, unasked=unasked)
    step = planning.compiled(config, topology, "step")
    facts = step["facts"]
    if topology is not None:
        facts["room"] = topology.chip.hbm
    return (
        facts,
        step["memory_bytes"],
        planning.compiled(config, topology, "evaluate")["memory_bytes"],
    )
