"""Jobs as tasks of a Ray cluster: that of RAY_ADDRESS, one that runs on this machine, or a new one
of this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.extras import need
from jaxsft.sweeps.cluster_jobs import Call, ClusterJob
from jaxsft.sweeps.processes import UNKNOWN


class RayCluster:
    """A Ray cluster."""

    def __init__(self, folder: Path, options: SweepConfig):
        """Connects to it, or starts one. Raises ConfigError."""
        self._ray = need("ray", "hydra/launcher=ray", "ray")
        # a process for each job: JAX keeps devices and memory until its process ends
        self._options = {"num_cpus": 1, **options.job, "max_retries": 0, "max_calls": 1}
        try:
            if not self._ray.is_initialized():
                self._connect()
            self._ray.remote(**self._options)(need)  # it says which option it does not know
        except (TypeError, ValueError, ConnectionError) as error:
            raise ConfigError(f"hydra/launcher=ray: {' '.join(str(error).split())}") from error
        self.about = f"Ray at {self._ray.get_runtime_context().gcs_address}"

    def _connect(self) -> None:
        common = {"log_to_driver": False, "logging_level": "error"}
        if os.environ.get("RAY_ADDRESS"):
            self._ray.init(**common)
            return
        try:
            self._ray.init(address="auto", **common)
        except ConnectionError:
            try:
                self._ray.init(include_dashboard=False, **common)
            except Exception as error:  # Ray has no class for a node that does not come up
                message = " ".join(str(error).split())
                raise JaxsftError(f"hydra/launcher=ray: Ray does not start ({message})") from error

    def submit(self, run: Callable[..., int], calls: Sequence[Call]) -> list[ClusterJob]:
        """Submits a task for each call."""
        task = self._ray.remote(**self._options)(run)
        return [RayJob(self._ray, task.remote(*call)) for call in calls]

    def find(self, name: str) -> ClusterJob | None:
        """Returns None: tasks end with their parent, and a worker that goes on is found by the
        ledger."""
        return None


class RayJob:
    """A task of Ray."""

    name = ""

    def __init__(self, ray: Any, task: Any):
        self._ray, self._task = ray, task

    def code(self) -> int | None:
        done, _ = self._ray.wait([self._task], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._task))
        except Exception:  # its process or machine was lost, or it was cancelled
            return UNKNOWN

    def stop(self) -> None:
        self._ray.cancel(self._task, force=False)

    def kill(self) -> None:
        self._ray.cancel(self._task, force=True)
