"""The launcher `slots`, for sweepers of Hydra that are not ours: each batch of jobs that a sweeper
gives is added to one sweep of jaxsft and run on the slots of this machine.

`jaxsft train -m` without such a sweeper does not come by here: it plans all jobs itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher

for _name in ("slots", "stacked"):  # which of them it is, is read from the command
    ConfigStore.instance().store(
        group="hydra/launcher",
        name=_name,
        node={"_target_": "hydra_plugins.jaxsft_sweeps.slots_launcher.SlotsLauncher"},
        provider="jaxsft",
    )


class SlotsLauncher(Launcher):
    """Runs batches of jobs as trials of one sweep."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Keeps the function that runs a batch: that of the application, if it is ours."""
        self._batch = getattr(task_function, "batch", None)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Runs jobs; returns for each the number that it is judged by, NaN where it failed.

        Raises RuntimeError outside `jaxsft train -m`.
        """
        from hydra.core.utils import JobReturn, JobStatus

        if self._batch is None:
            raise RuntimeError("hydra/launcher=slots belongs to jaxsft train -m")
        out = []
        for overrides, value in zip(job_overrides, self._batch(job_overrides), strict=True):
            done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            done.return_value = value
            out.append(done)
        return out
