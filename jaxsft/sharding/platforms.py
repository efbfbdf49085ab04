"""The devices that JAX finds, with one clear sentence where a requested platform is missing."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxsft.config.environment import Device
from jaxsft.errors import ConfigError

BF16_FLAGS = {"amx_bf16", "avx512_bf16"}
INSTALL = {
    "cuda": "jaxsft[cuda] and a driver of NVIDIA",
    "gpu": "jaxsft[cuda] and a driver of NVIDIA",
    "rocm": "JAX for ROCm",
    "tpu": "jaxsft[tpu]",
}


def devices() -> list[Any]:
    """Returns the devices of all processes.

    Raises ConfigError where JAX cannot start what `JAX_PLATFORMS` names, or anything.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = _asked()
        names = [name.strip() for name in asked.split(",") if name.strip()]
        needs = " and ".join(dict.fromkeys(INSTALL[name] for name in names if name in INSTALL))
        help_with = (
            f"it needs {needs} (see docs/install.md)" if needs else "expected cpu, cuda or tpu"
        )
        why = " ".join(str(error).split())
        raise ConfigError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device on this machine; {help_with};"
            " JAX_PLATFORMS=cpu runs without it"
            + (f" ({why[:200]})" if why and names and not needs else "")
        ) from error


def facts() -> Device:
    """Returns what the config must know of the devices of all processes."""
    kind = {"cuda": "gpu", "rocm": "gpu"}.get(jax.default_backend(), jax.default_backend())
    return Device(kind, jax.device_count(), jax.process_count(), kind == "cpu" and has_bf16())


@functools.cache
def has_bf16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Returns whether this CPU has bfloat16 products; False where Linux does not tell."""
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not BF16_FLAGS.isdisjoint(flags.split())


def unused_gpu(found: Sequence[Any]) -> str:
    """Returns a note where the machine has an NVIDIA GPU but JAX chose the CPU; else ""."""
    if (
        all(device.platform == "cpu" for device in found)
        and not _asked()
        and shutil.which("nvidia-smi")
    ):
        return (
            "this machine has an NVIDIA GPU that JAX does not use; jaxsft[cuda] brings what it"
            " needs"
        )
    return ""


def _asked() -> str:
    """Returns the platforms that the user names, with commas; "" leaves the choice to JAX."""
    return jax.config.jax_platforms or ""
