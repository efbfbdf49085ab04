"""Shares a machine between the trials of a sweep: cores, GPUs and their memory, or chips of a TPU
for each slot, as an environment that must stand before JAX is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft.errors import ConfigError

# what reads how many threads a process may have, each in its own way
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "NPROC",
)
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
SHARE = 0.9  # of a GPU's memory, for all trials on it
# how the chips of one process lie, by their number
CHIP_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
TPU_PORT = 8476  # of the first slot, as libtpu has it


@dataclasses.dataclass(frozen=True)
class DeviceSlot:
    """The cores and the environment that the processes of one slot are given.

    Attributes:
      env: variables beside those of the parent.
      cores: the cores that a process may use; empty: all.
    """

    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()


def shared(
    slots: Any,
    gpus: int,
    env: Mapping[str, str],
    cores: Sequence[int],
    devices: Sequence[str],
    chips: Sequence[str] = (),
) -> list[DeviceSlot]:
    """Returns the slots of a machine.

    One slot has the machine as it is. Several share the cores evenly, the first ones have one more;
    with more slots than GPUs (`gpus` for each), some share a GPU and its memory. A chip of a TPU
    takes one process, so that there each slot has `gpus` chips of its own.

    Args:
      slots: how many, or `auto`: as many as there are GPUs for, else one.
      env: of the parent; what the user has set there stays.
      devices: the GPUs of the machine; chips: those of its TPU.

    Raises:
      ConfigError: a slot needs more GPUs or chips than there are.

    >>> [slot.cores for slot in shared(2, 1, {}, [0, 1, 2], [])]
    [(0, 1), (2,)]
    """
    if devices and gpus > len(devices):
        raise ConfigError(f"sweep.gpus={gpus}: this machine has {len(devices)} GPUs")
    groups = [tuple(devices[i * gpus : (i + 1) * gpus]) for i in range(len(devices) // gpus)]
    count = (len(groups) or 1) if slots == "auto" else int(slots)
    out = []
    for i in range(count):
        mine = tuple(cores[i * len(cores) // count : (i + 1) * len(cores) // count])
        mine = () if count == 1 else mine or (cores[i % len(cores)],)
        added = dict.fromkeys(THREADS, str(len(mine))) if mine else {}
        if groups and (count > 1 or len(groups) > 1):
            added["CUDA_VISIBLE_DEVICES"] = ",".join(groups[i % len(groups)])
        if groups and count > len(groups):
            here = len(range(i % len(groups), count, len(groups)))
            added[FRACTION] = f"{SHARE / here:.3f}"
        if chips and count > 1:
            added |= _chips(chips, i, count, gpus)
        devices_of = ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
        own = {k: v for k, v in added.items() if k not in env or k in devices_of}
        out.append(DeviceSlot(own, mine))
    return out


def _chips(chips: Sequence[str], slot: int, slots: int, each: int) -> dict[str, str]:
    """Returns the environment of a process that has some chips of a TPU for itself, and knows of
    no other process. Raises ConfigError.
    """
    if each not in CHIP_BOUNDS or slots * each > len(chips):
        raise ConfigError(
            f"sweep.slots={slots}: this machine has {len(chips)} TPU chips, and a chip takes one"
            f" process; expected at most {len(chips) // each}, with sweep.gpus="
            f"{'|'.join(map(str, CHIP_BOUNDS))} chips for each (found {each})"
        )
    port = str(TPU_PORT + slot)
    return {
        "TPU_VISIBLE_CHIPS": ",".join(chips[slot * each : (slot + 1) * each]),
        "TPU_CHIPS_PER_PROCESS_BOUNDS": CHIP_BOUNDS[each],
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
        "TPU_PROCESS_PORT": port,
        "CLOUD_TPU_TASK_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def tpu_chips(env: Mapping[str, str], root: Path = Path("/dev")) -> list[str]:
    """Returns the TPU chips of this machine that JAX would see, by number."""
    platforms = env.get("JAX_PLATFORMS", "")
    if platforms and "tpu" not in platforms.split(","):
        return []
    if importlib.util.find_spec("libtpu") is None:
        return []
    if "TPU_VISIBLE_CHIPS" in env:
        return [one.strip() for one in env["TPU_VISIBLE_CHIPS"].split(",") if one.strip()]
    found = [path.name.removeprefix("accel") for path in root.glob("accel[0-9]*")]
    found = found or [path.name for path in root.glob("vfio/[0-9]*")]
    return [str(i) for i in range(len(found))]


def cores() -> list[int]:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus(env: Mapping[str, str]) -> list[str]:
    """Returns the GPUs that JAX would see, by the names that CUDA_VISIBLE_DEVICES takes.

    JAX is not imported for it: it would take their memory.
    """
    platforms = env.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    if "CUDA_VISIBLE_DEVICES" in env:
        return [one.strip() for one in env["CUDA_VISIBLE_DEVICES"].split(",") if one.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return [line.strip() for line in asked.stdout.splitlines() if line.strip()]
    return []


def use(own: Sequence[int]) -> None:
    """Keeps this process, and threads that it starts later, on some cores."""
    if own and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a core that this machine does not give
            os.sched_setaffinity(0, own)
