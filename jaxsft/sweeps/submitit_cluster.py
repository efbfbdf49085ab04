"""Jobs of SLURM by submitit; on a machine without SLURM, processes of this machine by the same
library.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.extras import need
from jaxsft.sweeps.cluster_jobs import Call, ClusterJob
from jaxsft.sweeps.processes import UNKNOWN

DAY = 24 * 60  # minutes, of a job for which nobody says a time
GRACE = 5  # minutes of a job beside those of its trial: to start, and to write a checkpoint
LATE = 15.0  # seconds after which a result that a shared disk does not show does not come


class SubmititCluster:
    """A cluster of SLURM, or this machine."""

    def __init__(self, folder: Path, options: SweepConfig):
        """Opens it for a sweep. Raises ConfigError for what submitit does not know."""
        submitit = need("submitit", "hydra/launcher=submitit", "submitit")
        place = folder / "submitit"
        place.mkdir(exist_ok=True)
        asked = dict(options.job)
        if asked.get("cluster") not in (None, "slurm", "local"):
            raise ConfigError(
                f"sweep.job={asked}: the cluster is slurm or local; expected one of them"
            )
        try:
            self._executor = submitit.AutoExecutor(place, cluster=asked.pop("cluster", None))
            self.slurm = self._executor.cluster == "slurm"
            minutes = DAY if options.seconds is None else math.ceil(options.seconds / 60) + GRACE
            given: dict[str, Any] = {"name": folder.name, "timeout_min": minutes, **asked}
            if self.slurm:
                # a trial that was preempted is submitted again by us, as another attempt
                more = given.get("slurm_additional_parameters") or {}
                given["slurm_additional_parameters"] = {"no_requeue": True, **more}
            self._executor.update_parameters(**given)
        except (AssertionError, NameError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"sweep.job={dict(options.job)}: {error}") from error
        self._class = submitit.SlurmJob if self.slurm else submitit.LocalJob
        self._place = place
        self.about = "SLURM, by submitit" if self.slurm else "this machine, by submitit"

    def submit(self, run: Callable[..., int], calls: Sequence[Call]) -> list[ClusterJob]:
        """Submits jobs, several as one array. Raises OSError."""
        try:
            with contextlib.nullcontext() if self.slurm else _deaf_children():
                if len(calls) == 1:
                    made = [self._executor.submit(run, *calls[0])]
                else:
                    with self._executor.batch():
                        made = [self._executor.submit(run, *call) for call in calls]
        except (RuntimeError, subprocess.SubprocessError) as error:  # sbatch refused
            raise OSError(" ".join(str(error).split())) from error
        return [SubmititJob(job, self.slurm) for job in made]

    def find(self, name: str) -> ClusterJob | None:
        """Returns a job of SLURM; a process of this machine is known by the ledger."""
        return SubmititJob(self._class(self._place, name), True) if self.slurm else None


class SubmititJob:
    """A job of submitit."""

    def __init__(self, job: Any, slurm: bool):
        self.name, self._job, self._slurm = str(job.job_id), job, slurm
        self._ended: float | None = None

    def code(self) -> int | None:
        if self._job.paths.result_pickle.exists():
            try:
                return int(self._job.result())
            except Exception:  # what was raised stands in the log of the job
                return UNKNOWN
        if not self._job.done():
            return None
        now = time.monotonic()
        self._ended = now if self._ended is None else self._ended
        return UNKNOWN if not self._slurm or now - self._ended > LATE else None

    def stop(self) -> None:
        if self._slurm:
            self._job.cancel(check=False)  # SIGTERM; KillWait later SIGKILL
            return
        with contextlib.suppress(OSError):
            os.kill(int(self.name), signal.SIGTERM)  # handed on to the job

    def kill(self) -> None:
        if self._slurm:
            self._job.cancel(check=False)
            return
        for pid in (int(self.name), *_started_by(int(self.name))):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Starts processes that a terminal does not end by Ctrl-C or when it closes.

    A process of submitit that watches a job would kill it, one second after Ctrl-C.
    """
    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in (signal.SIGINT, signal.SIGHUP):
            before[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _started_by(pid: int) -> list[int]:
    """Returns the processes that one started, and that those started."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for one in found:  # which grows
        found += [child for child, parent in pairs if parent == one]
    return found[1:]
