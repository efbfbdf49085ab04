"""What is installed here, and what JAX finds: versions, devices, CUDA, extras, caches. To be pasted
into a question or a report of a fault.

jaxsft env
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from jaxsft import __version__
from jaxsft.errors import ConfigError, JaxsftError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "hydra-core",
    "numpy",
    "tokenizers",
    "safetensors",
)
ACCELERATORS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin", "libtpu")
# what an extra of JAX brings
NEEDED = {"cuda13": ["jax-cuda13-plugin"], "cuda12": ["jax-cuda12-plugin"], "tpu": ["libtpu"]}
VARIABLES = (
    "JAX_PLATFORMS",
    "CUDA_VISIBLE_DEVICES",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "JAX_COMPILATION_CACHE_DIR",
    "XDG_CACHE_HOME",
)


def main(arguments: list[str]) -> int:
    if arguments:
        raise ConfigError(f"{arguments[0]}: jaxsft env takes no options")
    for name, value in lines():
        print(f"{name:<22}{value}")
    return 0


def lines() -> Iterator[tuple[str, str]]:
    """Yields (name, value) of this installation and machine; what fails says why."""
    yield "jaxsft", f"{__version__} in {Path(__file__).resolve().parents[1]}"
    yield (
        "python",
        f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} processors",
    )
    for name in (*PACKAGES, *ACCELERATORS):
        if found := _version(name):
            yield name, found
    yield "devices", _devices()
    yield "NVIDIA driver", _driver()
    yield (
        "extras installed",
        ", ".join(sorted(name for name, whole in extras().items() if whole)) or "none",
    )
    yield (
        "extras not installed",
        ", ".join(sorted(name for name, whole in extras().items() if not whole)) or "none",
    )
    from jaxsft.data import cache

    yield "cache", str(cache.root(None))
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    from jaxsft.sharding import platforms

    try:
        found = platforms.devices()
    except JaxsftError as error:
        return str(error)
    kinds = dict.fromkeys(f"{device.platform} ({device.device_kind})" for device in found)
    hint = platforms.unused_gpu(found)
    return f"{len(found)}: {', '.join(kinds)}" + (f"; {hint}" if hint else "")


def _driver() -> str:
    """Returns the version of NVIDIA's driver and its GPUs."""
    if (program := shutil.which("nvidia-smi")) is None:
        return "none (there is no nvidia-smi)"
    try:
        query = [program, "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader"]
        return "; ".join(
            subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            .stdout.strip()
            .splitlines()
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi fails: {error}"


def extras() -> dict[str, bool]:
    """Returns whether each extra's packages are installed; empty where jaxsft itself is not."""
    try:
        asked = importlib.metadata.requires("jaxsft") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    out: dict[str, bool] = {}
    for line in asked:
        if match := re.match(r"([\w.-]+)(?:\[([\w,]+)\])?.*extra\s*==\s*['\"]([\w-]+)['\"]", line):
            name, of, extra = match.groups()
            there = _version(name) is not None and all(
                _version(f"{name}-{part}-plugin") or part not in ("cuda13", "cuda12")
                for part in (of or "").split(",")
            )
            out[extra] = out.get(extra, True) and there
    return out
