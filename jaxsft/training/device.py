"""What the machine does with a run: compiled programs kept between runs, traces of some steps,
tokens and model FLOPs per second.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxsft.config import durations
from jaxsft.config.schema import Config
from jaxsft.data import cache
from jaxsft.errors import ConfigError
from jaxsft.sharding import hosts
from jaxsft.sharding.weights import flatten
from jaxsft.tasks.causal import CausalTask
from jaxsft.tasks.task import Task

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
# Dense bfloat16 FLOP/s of one device, from the makers' data sheets; the first name that the
# device's kind has as words counts.
PEAKS = {
    "TPU v6e": 918e12,
    "TPU v6 lite": 918e12,
    "TPU v5p": 459e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v4 lite": 138e12,
    "TPU v4": 275e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
}


def peak_flops(device: Any) -> float | None:
    """Returns the peak FLOPs per second of a device in bfloat16.

    Returns None where it is unknown, as on CPU.
    """
    return next(
        (flops for name, flops in PEAKS.items() if re.search(rf"\b{name}\b", device.device_kind)),
        None,
    )


def room(mesh: Any, held: Any) -> int | None:
    """Returns the bytes that a program may take on a device, `held` among them, which is there.

    A tenth is left for evaluation and checkpoints. On CPU it is what the machine has left; None
    where nothing says so.
    """
    stats = mesh.local_devices[0].memory_stats() or {}  # another process's tells nothing
    if "bytes_limit" in stats:
        here = sum(x.nbytes for x in jax.tree.leaves(held))
        return int(0.9 * stats["bytes_limit"]) - stats.get("bytes_in_use", 0) + here
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
        return int(0.9 * 1024 * int(found[1])) if found else None
    return None


# --- model FLOPs
# --------------------------------------------------------------------------------------------------
def model_flops(config: Config, task: Task, specs: Any, trained: Any, lengths: np.ndarray) -> float:
    """Counts the FLOPs that one training step must compute for texts of these lengths.

    Padding and recomputation are left out (Chowdhery et al., 2022, appendix B); a cached backbone
    costs nothing. Counted are two FLOPs for each weight of a product and token, and `4 x heads x
    head_dim` for each query and key that see each other; as much again for the gradient of the
    inputs, in and above the lowest trained layer, and for the gradient of the weights that are
    trained.

    Args:
      specs, trained: `WeightSpec` trees of all weights, and of those that are trained (cut into
        segments).
      lengths: tokens of each text; of an encoder-decoder model `[texts, 2]`, those of target and
        source.
    """
    if lengths.ndim == 2:
        return _flops_of_pairs(
            config, specs, trained, lengths[:, 0].astype(float), lengths[:, 1].astype(float)
        )
    lowest = _lowest_trained(trained)
    flops = (
        0.0
        if config.train.backbone == "cached"
        else _flops_of_layers(config, specs, trained, lengths)
    )
    head, own = (_head_size(config, task, tree) for tree in (specs, trained))
    # something under the head is trained
    below = lowest < 10**9 or bool(_leaves(trained.get("norm", {})))
    return flops + 2 * task.head_uses(lengths) * (head * (1 + below) + own)


def _flops_of_layers(config: Config, specs: Any, trained: Any, lengths: np.ndarray) -> float:
    """Counts the FLOPs of all layers, adapters included, for texts of these lengths."""
    tokens, pairs = (
        float(lengths.sum()),
        float((lengths * (lengths + 1) // 2 if config.model.causal else lengths**2).sum()),
    )
    lowest, flops = _lowest_trained(trained), 0.0
    uses_of = lambda spec: (
        tokens * (config.model.experts_per_token if "experts" in spec.axes[:2] else 1)
    )
    for spec in _leaves(specs["layers"]["0"]):
        if spec.matrix:
            flops += (
                2
                * math.prod(spec.matrix)
                * uses_of(spec)
                * (config.model.layers + max(config.model.layers - lowest, 0))
            )
    for spec in (
        (s for stack in trained["layers"].values() for s in _leaves(stack))
        if "layers" in trained
        else ()
    ):
        if spec.matrix:
            flops += 2 * math.prod(spec.matrix) * uses_of(spec) * spec.shape[0]
    for spec in _leaves(specs.get("adapters", {})):
        if spec.matrix:  # forward, and the gradients of its input and of itself
            flops += 6 * math.prod(spec.matrix) * tokens * (spec.shape[0] if spec.stacked else 1)
    attention = (
        4 * config.model.heads * config.model.head_dim * pairs
        if config.model.kind == "transformer"
        else 0.0
    )
    return flops + attention * (config.model.layers + 2 * max(config.model.layers - lowest, 0))


def _flops_of_pairs(
    config: Config, specs: Any, trained: Any, target: np.ndarray, source: np.ndarray
) -> float:
    """Counts the FLOPs of a training step of an encoder-decoder model, both halves and the output.

    Counted are the weights and attention scores of each layer, once more for the gradient of its
    inputs where something below it is trained, and once more for each weight that is trained.
    `target` and `source` are tokens of each text, `[texts]`.
    """
    m, flops = config.model, 0.0
    layers = {"encoder": m.layers, "decoder": m.decoder_layers}
    scores = {
        "encoder": (source**2).sum(),
        "decoder": (target * (target + 1) / 2 + target * source).sum(),
    }
    embedded = bool(_leaves(trained.get("embed", {})))
    # something under the first layer is trained
    below = {"encoder": embedded, "decoder": embedded or bool(_leaves(trained.get("encoder", {})))}
    for half, depth in layers.items():
        lowest = 0 if below[half] else _lowest_trained(trained.get(half, {}))
        reached = max(depth - lowest, 0)
        flops += 4 * m.heads * m.head_dim * float(scores[half]) * (depth + 2 * reached)
        of_source = lambda path: half == "encoder" or (path[0] == "cross" and path[1] in ("k", "v"))
        uses = lambda path: float((source if of_source(path) else target).sum())
        for path, spec in flatten(specs[half]["layers"]["0"]).items():
            flops += 2 * math.prod(spec.matrix or (0,)) * uses(path.split("/")) * (depth + reached)
        for stack in trained.get(half, {}).get("layers", {}).values():
            for path, spec in flatten(stack).items():
                flops += 2 * math.prod(spec.matrix or (0,)) * uses(path.split("/")) * spec.shape[0]
    head = specs["embed"]["tokens"]["w"].shape if m.tied else specs["head"]["w"].shape
    own = "embed" if m.tied else "head"
    return flops + 2 * math.prod(head) * float(target.sum()) * (
        1 + bool(_leaves(trained)) + bool(_leaves(trained.get(own, {})))
    )


def _lowest_trained(trained: Any) -> int:
    """Returns the lowest layer that a gradient must reach.

    That is 0 where embeddings are trained, and 10^9, beyond every layer, where no layer is.
    """
    beside = trained.get("adapters", {})
    if _leaves(trained.get("embed", {})) or _leaves(beside.get("embed", {})):
        return 0
    return min(
        (
            int(start)
            for layers in (trained.get("layers", {}), beside.get("layers", {}))
            for start in layers
        ),
        default=10**9,
    )


def _head_size(config: Config, task: Task, specs: Any) -> int:
    """Counts the weights of the head's products in a tree, a tied output matrix among them."""
    own = sum(math.prod(s.matrix) for s in _leaves(specs.get("head", {})) if s.matrix)
    table = (
        specs.get("embed", {}).get("tokens", {}).get("w")
        if isinstance(task, CausalTask) and config.model.tied
        else None
    )
    return own + (0 if table is None else math.prod(table.shape))


def _leaves(tree: Any) -> list[Any]:
    return jax.tree.leaves(tree)


# --- rates
# --------------------------------------------------------------------------------------------------
class Meter:
    """Real tokens and model FLOPs per second since the last reading, without the time of
    evaluations and checkpoints.
    """

    def __init__(self, devices: Any):
        peak = peak_flops(devices.flat[0])
        self._peak = None if peak is None else peak * devices.size
        self._tokens = self._flops = self._seconds = 0.0
        self._since: float | None = None

    def resume(self) -> None:
        self._since = time.monotonic()

    def pause(self) -> None:
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    def add(self, tokens: int, flops: float) -> None:
        self._tokens += tokens
        self._flops += flops

    def read(self) -> dict[str, Any]:
        """Returns the rates since the last call, of all devices together, and starts to count anew.

        `mfu` is the share of the devices' peak in bfloat16, or "unknown".
        """
        self.pause()
        seconds = max(self._seconds, 1e-9)
        out = {
            "tokens_per_second": self._tokens / seconds,
            "model_flops_per_second": self._flops / seconds,
        }
        out["mfu"] = "unknown" if self._peak is None else self._flops / seconds / self._peak
        self._tokens = self._flops = self._seconds = 0.0
        self.resume()
        return out


# --- traces
# --------------------------------------------------------------------------------------------------
class ProfileTrace:
    """`profile=steps:10-15`: what the device did in these steps, for TensorBoard or Perfetto, in
    `profile/` of the run directory.
    """

    def __init__(self, profile: str | None, folder: Path, total: int):
        self.first, self.last = durations.profile_steps(profile) if profile else (0, 0)
        if self.last > total:
            raise ConfigError(f"profile={profile}: training has {total} steps only")
        if profile and jax.default_backend() != "tpu" and _libtpu_is_loaded():
            raise ConfigError(
                f"profile={profile}: this process has compiled for TPU without one, as `plan` does,"
                " and the profiler of that compiler would end it; take it in another process"
            )
        self.folder, self._running = folder, False

    def before(self, step: int) -> None:
        """Starts the profiler before the first step of the trace.

        Called before each step, counted from 1.
        """
        if self.first <= step <= self.last and not self._running:
            jax.profiler.start_trace(str(self.folder))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Stops the profiler after the last step of the trace, once its result is there.

        Called when each step was started.
        """
        if self._running and step >= self.last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False


def _libtpu_is_loaded() -> bool:
    """Returns whether the library is in this process's memory, whoever loaded it."""
    try:
        return b"libtpu.so" in Path("/proc/self/maps").read_bytes()
    except OSError:  # not Linux, where there is no libtpu
        return False


# --- compiled programs
# --------------------------------------------------------------------------------------------------
_told: str | None = None  # the folder that JAX had from somebody else
_kept: str | None = None  # the one that it has since our last call


def keep_programs(folder: str) -> None:
    """Keeps compiled programs on disk, so that the next run of the same shapes starts at once.

    Args:
      folder: `auto` is the user's cache, unless JAX was told of a folder by somebody else; `none`
        keeps nothing, but where JAX was told to.
    """
    global _told, _kept
    now = jax.config.jax_compilation_cache_dir
    if now != _kept:  # somebody else has spoken since
        _told = now
    # what an earlier call of ours kept ends here
    theirs = folder == "none" or (folder == "auto" and _told)
    _kept = place = _told if theirs else str(_own_programs() if folder == "auto" else Path(folder))
    if place == now:
        return
    # JAX looks for a folder once, when it compiles for the first time
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", place)
    if place != _told:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _own_programs() -> Path:
    # A program for this processor may not run on the next one that shares the home directory.
    return cache.root(None) / "programs" / _processor()


def _processor() -> str:
    try:
        flags = next(
            line
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        flags = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def keep_memory() -> None:
    """Makes glibc keep the large arrays of a step for the next one, on CPU.

    By default each is given back to the system and its pages are taken anew. Measured: 6 to 16 %
    faster steps of a model of 14 M parameters.
    """
    if jax.default_backend() != "cpu":
        return
    with contextlib.suppress(OSError, AttributeError):  # another libc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_weights(specs: Any, devices: Sequence[Any]) -> None:
    """Raises ConfigError where new weights alone are more than all memory of the devices.

    Of CPU devices, which share it, that is the memory and swap of the machine. Nothing is allocated
    yet: without this, a size with a digit too many ends in a process that the system kills.
    """
    local = [device for device in devices if device.process_index == jax.process_index()]
    here = sum((device.memory_stats() or {}).get("bytes_limit", 0) for device in local)
    with contextlib.suppress(OSError):
        told = re.findall(r"(?:MemTotal|SwapTotal):\s*(\d+) kB", Path("/proc/meminfo").read_text())
        here = here or 1024 * sum(map(int, told))
    # those of other processes tell nothing, and are taken to be alike
    limit = here * len(devices) / max(len(local), 1)
    sizes = {
        path: math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        for path, spec in flatten(specs).items()
    }
    if limit and (needed := sum(sizes.values())) > limit:
        path = max(sizes, key=sizes.__getitem__)
        raise ConfigError(
            f"the weights need {needed / 1e9:,.1f} GB, and there are {limit / 1e9:,.1f}; the"
            f" largest, {path}, is {list(flatten(specs)[path].shape)}; set less of model.*"
        )


def check_memory(compiled: Any, devices: Sequence[Any]) -> None:
    """Raises ConfigError where a compiled step needs more memory than a device has.

    Of a device that tells nothing of its memory, as a CPU, nothing is known.

    Args:
      devices: of this process; another's tell nothing.
    """
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    memory = compiled.memory_analysis()
    if not limit or memory is None:
        return
    sizes = {
        name: int(getattr(memory, f"{name}_size_in_bytes"))
        for name in ("argument", "output", "alias", "temp")
    }
    needed = sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"]
    if needed > limit:
        raise ConfigError(
            f"a training step needs {needed / 1e9:.1f} GB of each device, which has"
            f" {limit / 1e9:.1f} ({sizes['temp'] / 1e9:.1f} of them for one step's activations);"
            " set model.remat=true, or less train.batch_size with train.accumulate, or spread the"
            " weights by mesh.fsdp; jaxsft plan shows what each of them brings"
        )


def describe(devices: Any) -> str:
    """Describes the devices of a mesh, as in `8 x TPU v5e in 2 processes`."""
    return f"{devices.size} x {devices.flat[0].device_kind}" + (
        f" in {jax.process_count()} processes" if hosts.many() else ""
    )
