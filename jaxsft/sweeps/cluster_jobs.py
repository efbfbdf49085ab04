"""Trials as jobs of a cluster: how the parent of a sweep submits them, watches them, and finds them
again after it was killed.

What is true stands in the ledger, as for processes of this machine. A job that waits in a queue
while its trial was started by another one finds that its attempt counts no more, and ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxsft import documents, rundir
from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError, DataError, JaxsftError
from jaxsft.sweeps import processes, sweep_plan, work_order
from jaxsft.sweeps.processes import Handle
from jaxsft.sweeps.sweep_plan import PlannedTrial, SweepPlan
from jaxsft.sweeps.trial_ledger import TrialState

CLUSTERS = {
    "submitit": "jaxsft.sweeps.submitit_cluster:SubmititCluster",
    "ray": "jaxsft.sweeps.ray_cluster:RayCluster",
}
JOBS_AT_A_TIME = 100  # that wait or run, where nobody says how many
RUN = "jaxsft.sweeps.cluster_worker:run"  # what a job runs; a parent has no JAX, nor imports this
Call = tuple[str, tuple[int, ...], str, str]  # its arguments


class ClusterJob(Protocol):
    """A job that was submitted.

    Attributes:
      name: by which the cluster knows it; "": it cannot be found again.
    """

    name: str

    def code(self) -> int | None:
        """Returns the exit code, `UNKNOWN` for a job that was lost; None while it waits or runs."""
        ...

    def stop(self) -> None:
        """Asks it to write a checkpoint and end, or takes it out of the queue."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


class Cluster(Protocol):
    """A cluster that takes jobs."""

    about: str

    def submit(self, run: Callable[..., int], calls: Sequence[Call]) -> list[ClusterJob]:
        """Submits a job for each call, as one array where the cluster has them.

        Raises OSError where it takes none.
        """
        ...

    def find(self, name: str) -> ClusterJob | None:
        """Returns a job that an earlier parent submitted; None where it cannot be found."""
        ...


def opened(plan: SweepPlan, options: SweepConfig) -> Cluster | None:
    """Returns the cluster that a sweep runs on; None for the slots of this machine.

    Raises ConfigError where its library is missing or does not know an option of `sweep.job`, or
    where that is asked of no cluster.
    """
    if options.cluster is None:
        if options.job:
            raise ConfigError("sweep.job: is for the jobs of a cluster; see sweep.cluster")
        return None
    return _named(CLUSTERS[options.cluster])(plan.folder.resolve(), options)


def _named(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def slots(options: SweepConfig) -> int:
    """Returns how many jobs wait or run at a time."""
    return JOBS_AT_A_TIME if options.slots == "auto" else int(options.slots)


class ClusterHandle:
    """A job of trials, submitted together with the others when its state is first asked for."""

    queues = True  # it may wait long before it starts

    def __init__(self, starter: ClusterStarter, job: ClusterJob | None = None):
        """Takes the job, or None for one that `starter` submits later."""
        self._starter, self.job = starter, job

    @property
    def name(self) -> str:
        """Returns the name of the job, which its trials share; "": it has none."""
        return "" if self.job is None else self.job.name

    def poll(self) -> int | None:
        if self.job is None:
            self._starter.flush()
        return None if self.job is None else self.job.code()

    def stop(self) -> None:
        if self.job is not None:
            self.job.stop()

    def kill(self) -> None:
        if self.job is not None:
            self.job.kill()


@dataclasses.dataclass
class ClusterStarter:
    """Starts jobs of a cluster for trials of a plan, and finds those of an earlier parent."""

    plan: SweepPlan
    cluster: Cluster

    def __post_init__(self) -> None:
        self._waiting: list[tuple[ClusterHandle, Call, dict[str, Any], list[PlannedTrial]]] = []

    def __call__(
        self, trials: Sequence[PlannedTrial], slot: int, attempts: Mapping[str, int]
    ) -> Handle:
        """Returns the job, which is submitted with all others of this turn."""
        handle = ClusterHandle(self)
        log = work_order.write_all(self.plan, trials, attempts)
        numbers = tuple(one.number for one in trials)
        call = (str(self.plan.folder.resolve()), numbers, str(log.resolve()), str(Path.cwd()))
        self._waiting.append((handle, call, dict(attempts), list(trials)))
        return handle

    def flush(self) -> None:
        """Submits what was started since the last call, and keeps the names of the jobs.

        Raises JaxsftError where the cluster takes none; the trials go on with the next parent.
        """
        waiting, self._waiting = self._waiting, []
        try:
            jobs = self.cluster.submit(_named(RUN), [call for _, call, _, _ in waiting])
        except OSError as error:
            raise JaxsftError(f"{self.cluster.about}: takes no job ({error})") from error
        for (handle, _, attempts, trials), job in zip(waiting, jobs, strict=True):
            handle.job = job
            for one in trials if job.name else ():
                about = {"job": job.name, "attempt": attempts[one.id]}
                rundir.write_json(one.beside(".job"), about)

    def find(self, state: TrialState, trial: PlannedTrial) -> Handle | None:
        """Returns the job, or the process, that an earlier parent left with a trial; None where
        there is none.
        """
        with contextlib.suppress(JaxsftError):
            about = documents.read_json(trial.beside(".job"), DataError, dict)
            job = self.cluster.find(about["job"]) if about["attempt"] == state.attempt else None
            if job is not None:
                return ClusterHandle(self, job) if job.code() is None else None
        return processes.find(state, trial.beside(".alive"))


def planned_options(plan: SweepPlan, options: SweepConfig) -> SweepConfig:
    """Returns options with the cluster of the command that a sweep was planned by, and what it
    asked of a job, where others are not given."""
    words = dict(word.partition("=")[::2] for word in plan.given)
    name = options.cluster or words.get("sweep.cluster") or words.get("hydra/launcher")
    if name not in CLUSTERS:
        return options
    job = options.job
    if not job and "sweep.job" in words:
        job = documents.parse_yaml(words["sweep.job"], f"{plan.folder}/{sweep_plan.NAME}")
    return dataclasses.replace(options, cluster=name, job=job)
