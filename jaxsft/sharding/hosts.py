"""Many processes, one program: start-up, the first one's duties, agreement, and lost processes.

Every process runs the same code on the same config and reads the same files; arrays on the device
are global. Only the first process writes to the run directory, but for checkpoints, to which each
writes its own shards: the directory must lie where all of them see it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxsft.config.schema import HostsConfig
from jaxsft.errors import ConfigError, JaxsftError, first_line

_TEXT = 2000  # bytes of a text that all processes are told
_started: HostsConfig | None = None


def start(config: HostsConfig) -> None:
    """Joins the processes of a run; does nothing where there is one only, and the second time. Must
    come before JAX sees its devices.

    Raises:
      ConfigError: the options are incomplete, or contradict an earlier start in this process.
      JaxsftError: the others were not found in time.
    """
    global _started
    if config.count == 1:  # alone, whatever a cluster says
        return
    given = (config.coordinator, config.count, config.index)
    if None in given and any(v is not None for v in given):
        raise ConfigError(
            "hosts.coordinator, hosts.count and hosts.index belong together: give all three, or"
            " none to have them detected"
        )
    if config.count is not None and not 0 <= config.index < config.count:
        raise ConfigError(
            f"hosts.index={config.index}: expected 0 to {config.count - 1}"
            f" (hosts.count={config.count})"
        )
    if config.count is None and not detected():
        return
    if _started is not None:
        if _started != config:
            raise ConfigError("hosts.*: this process has joined a run with other options already")
        return
    # Only the CPU backend reads it: its default has no collectives between processes in some
    # versions.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        patience = {
            "heartbeat_timeout_seconds": config.timeout,
            "initialization_timeout": config.wait,
        }
        jax.distributed.initialize(config.coordinator, config.count, config.index, **patience)
    except (RuntimeError, ValueError) as error:
        raise JaxsftError(
            f"the {config.count or ''} processes of hosts.coordinator={config.coordinator} did not"
            f" meet ({first_line(error)})"
        ) from error
    _started = config


def detected() -> bool:
    """Returns whether a cluster runs several processes: tasks of a SLURM step, or a TPU pod."""
    # SLURM_NTASKS is set in the batch script too, where one process runs
    slurm = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    return slurm or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "") or _has_tpu()


def _has_tpu() -> bool:
    """Returns whether there are TPU chips and their library.

    JAX then asks the machine who the others are, and one that is alone starts alone.
    """
    chips = any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
    return (
        chips
        and importlib.util.find_spec("libtpu") is not None
        and os.environ.get("TPU_SKIP_MDS_QUERY") is None
    )


def many() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Returns whether this is the process that writes and logs."""
    return jax.process_index() == 0


def sync(name: str) -> None:
    """Waits until every process is here."""
    if many():
        multihost_utils.sync_global_devices(name)


def leave() -> None:
    """Ends the connection to other processes in order, so that none takes this end for a loss."""
    if _started is not None:
        jax.distributed.shutdown()


def from_first_process(make: Callable[[], Any]) -> str:
    """Broadcasts `str(make())` from process 0 and raises its JaxsftError on all."""
    if not many():
        return str(make())
    text, error = "", None
    if first():
        try:
            text = str(make())
        except JaxsftError as caught:
            text, error = str(caught), caught
    content = text.encode()
    size, failed = np.asarray(
        multihost_utils.broadcast_one_to_all(np.array([len(content), error is not None], np.int32))
    )
    told = multihost_utils.broadcast_one_to_all(
        np.frombuffer(content.ljust(int(size), b"\0"), np.uint8)
    )
    if failed:
        raise error or JaxsftError(bytes(np.asarray(told, np.uint8)).decode())
    return bytes(np.asarray(told, np.uint8)).decode()


def max_over_processes(rank: int, text: str) -> tuple[int, str]:
    """Returns the largest rank of all processes and the text of the first that has it.

    The text is cut at 2,000 bytes; the result is the same on all processes.
    """
    if not many():
        return rank, text
    content = text.encode()[:_TEXT].ljust(_TEXT, b"\0")
    ranks = np.ravel(multihost_utils.process_allgather(np.int32(rank)))
    texts = np.asarray(
        multihost_utils.process_allgather(np.frombuffer(content, np.uint8)), np.uint8
    )
    at = int(ranks.argmax())
    return int(ranks[at]), texts[at].tobytes().rstrip(b"\0").decode(errors="ignore")


def check_same(facts: dict[str, Any]) -> None:
    """Raises ConfigError where another process found other data, another tokenizer, another number
    of steps ... than the first.
    """
    if not many():
        return
    # [processes, values, 2]
    gather = lambda values: np.asarray(
        multihost_utils.process_allgather(np.stack([_hash(value) for value in values]))
    )
    told = "than process 0: all of them must read the same files with the same options"
    # first whether they speak of the same things: arrays of other shapes cannot be compared
    names = gather([sorted(facts)])
    for index, theirs in enumerate(names):
        if (theirs != names[0]).any():
            raise ConfigError(f"process {index} has other options or splits of data {told}")
    for index, theirs in enumerate(everyone := gather(facts.values())):
        for name, mine, other in zip(facts, everyone[0], theirs, strict=True):
            if (mine != other).any():
                raise ConfigError(f"process {index} has another {name} {told}")


def _hash(value: Any) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(repr(value).encode()).digest()[:8], np.uint32)


class Agreement:
    """The largest number of all processes, the same on all of them.

    With several processes it is that of the call before, so that nothing waits for the device.

    Every process must call it equally often.
    """

    def __init__(self, mesh: jax.sharding.Mesh):
        spec = jax.sharding.PartitionSpec
        self._places = jax.sharding.NamedSharding(mesh, spec(mesh.axis_names))
        self._largest = jax.jit(
            lambda x: x.max(), out_shardings=jax.sharding.NamedSharding(mesh, spec())
        )
        self._late: Any = None

    def __call__(self, value: int) -> int:
        if not many():
            return value
        late = 0 if self._late is None else int(self._late)
        shape = (self._places.mesh.size,)
        mine = np.full(len(self._places.addressable_devices), value, np.int32)
        self._late = self._largest(
            jax.make_array_from_process_local_data(self._places, mine, shape)
        )
        return late


@contextlib.contextmanager
def collective_errors() -> Iterator[None]:
    """Raises JaxsftError, in one sentence, where a collective fails because a process is gone."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, JaxsftError) as error:
        # a save that failed for it says so in a sentence of its own
        causes = [error, error.__cause__, error.__context__]
        if not many() or not any(isinstance(e, jax.errors.JaxRuntimeError) for e in causes):
            raise
        raise JaxsftError(
            f"process {jax.process_index()} of {jax.process_count()}: another process of this run"
            f" was lost ({first_line(error)}); the newest checkpoint is intact: start all of them"
            " again with the same run_dir="
        ) from error
