"""The devices that take part in a collective of a compiled program, and the mesh axes along which
they lie.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from jaxsft.planning.compiled_text import Instruction

_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\](?:<=\[([\d,]+)\](?:T\(([\d,]+)\))?)?")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}")


def group_size(one: Instruction) -> int:
    """Returns how many devices take part in a collective; 1 where the text does not tell."""
    if slices := re.search(r'_xla_megascale_target="\{([\d,]+)\}', one.text):
        return len(slices[1].split(","))
    if named := _NAMED.search(one.text):
        return len(_along(*named.groups()))
    if counted := _COUNTED.search(one.text):
        return int(counted[2])
    if "replica_groups={{" in one.text and (listed := _LISTED.search(one.text)):
        return len(listed[1].split(","))
    return 1


def axes_of(one: Instruction, mesh: Mapping[str, int]) -> str:
    """Returns the axes of the mesh along which the devices of the first group differ.

    `data x fsdp` where there are several; "" where the text does not tell, or nobody differs.

    Args:
      mesh: sizes of the axes, in the order in which devices are numbered: the last runs fastest.
    """
    if (group := _first_group(one.text)) is None or max(group) >= math.prod(mesh.values()):
        return ""
    places = np.array(np.unravel_index(group, tuple(mesh.values())))
    return " x ".join(axis for axis, at in zip(mesh, places, strict=True) if len(set(at)) > 1)


def _first_group(text: str) -> list[int] | None:
    """Returns the numbers of the devices of a group; of a permutation, a sender and a receiver."""
    if named := _NAMED.search(text):
        return _along(*named.groups())
    if counted := _COUNTED.search(text):
        groups, each, dims, order = counted.groups()
        if dims is None:
            return None
        numbers = lambda part: tuple(map(int, part.split(",")))
        devices = np.arange(int(groups) * int(each)).reshape(numbers(dims))
        devices = devices.transpose(numbers(order)) if order else devices
        return devices.reshape(-1)[: int(each)].tolist()
    listed = _LISTED.search(text)
    return [int(n) for n in listed[1].split(",")] if listed and listed[1] else None


def _along(mesh: str, axes: str) -> list[int]:
    """Returns the devices along some axes of a mesh in the compiler's words, from the first one.

    It names its axes itself (`'axis_0'=4, 'axis_1'=4`, from the slowest to the fastest).
    """
    plain = lambda word: word.strip(" '\"")
    sizes = {plain(name): int(size) for name, size in (p.split("=") for p in mesh.split(","))}
    chosen = [plain(axis) for axis in axes.split(",")]
    devices = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
    return devices[tuple(slice(None if name in chosen else 1) for name in sizes)].ravel().tolist()
