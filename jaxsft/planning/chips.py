"""The TPU chips that a program can be compiled for without having them, and the least time that a
step needs on them.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from jaxsft.errors import ConfigError
from jaxsft.planning.costs import NETWORK, Costs
from jaxsft.sharding.device_table import CHIPS, Chip


class Topology(NamedTuple):
    """Slices of chips, as `v5e:16x16`."""

    name: str
    kind: str
    dims: tuple[int, ...]
    slices: int = 1

    @classmethod
    def of(cls, name: str, slices: int = 1) -> Topology:
        """Parses a name. Raises ConfigError where the kind has another number of axes."""
        kind, _, rest = name.partition(":")
        dims = tuple(int(n) for n in rest.split("x"))
        axes = 3 if kind == "v5p" else 2
        if len(dims) != axes or min(dims) < 1:
            raise ConfigError(f"plan.topology={name}: expected {axes} axes of one chip or more")
        return cls(name, kind, dims, slices)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def size(self) -> int:
        """Returns the number of chips of all slices."""
        return math.prod(self.dims) * self.slices

    def wires(self, devices: int) -> float:
        """Returns the bytes a second that leave a chip by the links along the axes of a group.

        A mesh axis lies along whole axes of the slice where some of them have as many chips; else a
        group is taken to lie along the longest.
        """
        axes = sorted(self.dims, reverse=True)
        subsets = (s for n in range(1, len(axes)) for s in itertools.combinations(axes, n))
        chosen = next((one for one in subsets if math.prod(one) == devices), None)
        if chosen is None:
            counts = range(1, len(axes) + 1)
            fit = (n for n in counts if math.prod(axes[:n]) >= devices)
            chosen = axes[: next(fit, len(axes))]
        links = sum(2 if n >= self.chip.wraps_from else 1 for n in chosen)
        return self.chip.link * links


def roofline(costs: Costs, topology: Topology, model_flops: float) -> dict[str, Any]:
    """Returns the least seconds of a step, and the share of the peak that it could reach.

    `bound` takes the longest of products, memory and wires, as if they overlapped wholly; `serial`
    their sum, as if nothing overlapped. The truth lies between.

    Args:
      model_flops: of a step on one chip, without padding and recomputation (`device.model_flops`).
    """
    chip = topology.chip
    seconds = {
        "compute": costs.flops / chip.flops,
        "hbm": costs.hbm_bytes / chip.bandwidth,
        "wires": 0.0,
        "network": 0.0,
    }
    for one in costs.collectives:
        if one.kind == NETWORK:
            seconds["network"] += one.wire_bytes / chip.dcn
        else:  # permutations go by one link
            alone = one.kind == "collective-permute"
            links = chip.link if alone else topology.wires(one.devices)
            seconds["wires"] += one.wire_bytes / links
    bound, serial = max(seconds.values()), sum(seconds.values())
    least = model_flops / chip.flops
    return {
        "seconds": seconds,
        "step_seconds_bound": bound,
        "step_seconds_serial": serial,
        "mfu_bound": least / bound if bound else 0.0,
        "mfu_serial": least / serial if serial else 0.0,
    }
