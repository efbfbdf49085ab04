"""The TPU chips that a program can be compiled for without having them, and the least time that a
step needs on them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jaxsft.errors import ConfigError
from jaxsft.planning.costs import Costs


class Chip(NamedTuple):
    """A kind of chip, by its data sheet.

    Attributes:
      flops: of products in bfloat16 a second. hbm: bytes of memory. bandwidth: of that memory, in
        bytes a second. link: bytes a second of one link to another chip, one way.
      wraps_from: chips of an axis from which on it is a ring: each axis has two links then.
    """

    flops: float
    hbm: float
    bandwidth: float
    link: float
    wraps_from: int


# cloud.google.com/tpu/docs: v5e, v5p and v6e, system architecture
CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 45e9, 16),
    "v5p": Chip(459e12, 95e9, 2765e9, 90e9, 4),
    "v6e": Chip(918e12, 32e9, 1640e9, 90e9, 16),
}


class Topology(NamedTuple):
    """A slice of chips, as `v5e:16x16`."""

    name: str
    kind: str
    dims: tuple[int, ...]

    @classmethod
    def of(cls, name: str) -> Topology:
        """Parses a name. Raises ConfigError where the kind has another number of axes."""
        kind, _, rest = name.partition(":")
        dims = tuple(int(n) for n in rest.split("x"))
        axes = 3 if kind == "v5p" else 2
        if len(dims) != axes or min(dims) < 1:
            raise ConfigError(f"plan.topology={name}: expected {axes} axes of one chip or more")
        return cls(name, kind, dims)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def size(self) -> int:
        """Returns the number of chips."""
        return math.prod(self.dims)

    @property
    def wires(self) -> float:
        """Returns the bytes a second that leave a chip by all its links."""
        links = 2 if min(self.dims) >= self.chip.wraps_from else 1
        return self.chip.link * links * len(self.dims)


def roofline(costs: Costs, topology: Topology, model_flops: float) -> dict[str, Any]:
    """Returns the least seconds of a step, and the share of the peak that it could reach.

    `bound` takes the longest of products, memory and wires, as if they overlapped wholly; `serial`
    their sum, as if nothing overlapped. The truth lies between.

    Args:
      model_flops: of a step on one chip, without padding and recomputation (`device.model_flops`).
    """
    chip = topology.chip
    # permutations go by one link
    wires = sum(
        one.wire_bytes / (chip.link if one.kind == "collective-permute" else topology.wires)
        for one in costs.collectives
    )
    seconds = {
        "compute": costs.flops / chip.flops,
        "hbm": costs.hbm_bytes / chip.bandwidth,
        "wires": wires,
    }
    bound, serial = max(seconds.values()), sum(seconds.values())
    least = model_flops / chip.flops
    return {
        "seconds": seconds,
        "step_seconds_bound": bound,
        "step_seconds_serial": serial,
        "mfu_bound": least / bound if bound else 0.0,
        "mfu_serial": least / serial if serial else 0.0,
    }
