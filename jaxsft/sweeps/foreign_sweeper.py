"""Sweepers of Hydra that are not ours, such as that of hydra-optuna-sweeper: Hydra asks them for
batches of jobs, and each batch becomes trials of one sweep, on the launcher `slots`
(`hydra_plugins/jaxsft_sweeps`).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxsft.config import composer, hydra_schema, overrides
from jaxsft.config.schema import Config
from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.rundir import create
from jaxsft.sweeps import command_grid, preflight, sweep_parent, sweep_plan
from jaxsft.sweeps.command_grid import GridJob, SweepCommand
from jaxsft.sweeps.sweep_parent import WantedSweep, WantedTrial
from jaxsft.sweeps.trial_ledger import TrialLedger


def run(command: SweepCommand, arguments: Sequence[str], options: SweepConfig) -> int:
    """Runs what a sweeper asks for, batch by batch; returns the worst exit code.

    Raises ConfigError where Hydra does not know the sweeper, or a job cannot run.
    """
    batches = SweeperBatches(command, arguments, options)
    words = [*command.words, *command.hydra, f"hydra/sweeper={command.sweeper}"]
    words += [f"--config-dir={folder}" for folder in command.folders]
    _through_hydra(["-m", "hydra/launcher=slots", *words], batches)
    if batches.raised is not None:
        raise batches.raised
    return max(batches.codes, default=0)


class SweeperBatches:
    """The batches of one sweep.

    Attributes:
      codes: the exit code of each.
      raised: what ended the sweep: it is raised again behind Hydra, which would tell of it in lines
        of its own.
    """

    def __init__(self, command: SweepCommand, arguments: Sequence[str], options: SweepConfig):
        self._command, self._arguments, self._options = command, arguments, options
        self._fixed = set(command.words)
        self._place: str | None = None
        self.codes: list[int] = []
        self.raised: Exception | None = None

    def __call__(self, jobs: Sequence[Sequence[str]]) -> list[float]:
        """Runs some jobs; returns the number that each is judged by, NaN where it has none."""
        if self.raised is not None:
            return [math.nan] * len(jobs)
        try:
            return self._ran(jobs)
        except Exception as error:
            self.raised = error
            return [math.nan] * len(jobs)

    def _ran(self, jobs: Sequence[Sequence[str]]) -> list[float]:
        made = [self._job(words) for words in jobs]
        with composer.opened(self._command.folders) as maker:
            settings = maker.hydra([*made[0].words, *self._command.hydra])
            configs = preflight.checked(
                (job.name, lambda words=job.words: maker.config(words)) for job in made
            )
        place = self._place or command_grid.place_of(settings, configs)
        self._place = place or str(create(None, stem=f"{configs[0].task.name}-sweep"))
        trials = [
            WantedTrial(job.swept, command_grid.without_place(config))
            for job, config in zip(made, configs, strict=True)
        ]
        swept = dict.fromkeys(word.partition("=")[0] for job in made for word in job.swept)
        given = ("jaxsft", "train", *self._arguments)
        fixed = tuple(command_grid.fixed(made))
        wanted = WantedSweep(self._place, given, fixed, tuple(swept), tuple(trials))
        options = sweep_parent.adding(self._options)
        self.codes.append(sweep_parent.begin(wanted, options))
        return [self._value(one.config) for one in trials]

    def _job(self, words: Sequence[str]) -> GridJob:
        words = [word for word in words if not command_grid.HYDRA.match(word)]
        own = [word.lstrip("+") for word in words if word not in self._fixed]
        return GridJob(tuple(words), tuple(word for word in own if not word.startswith("run_dir=")))

    def _value(self, config: Config) -> float:
        data = sweep_parent.fingerprints([config])
        name = sweep_plan.trial_id(config, data, sweep_plan.code_now())
        state = TrialLedger(str(self._place)).states().get(name)
        value = None if state is None or state.status != "done" else state.value
        return math.nan if value is None else value


def _through_hydra(words: Sequence[str], batches: SweeperBatches) -> None:
    """Lets Hydra run its sweeper over the config of `jaxsft train`. Raises ConfigError."""
    import hydra

    def task(node: Any) -> None:
        raise ConfigError("hydra/launcher=slots is not installed: install jaxsft again")

    task.batch = batches  # type: ignore[attr-defined]
    hydra_schema.register()
    before, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"
    argv, sys.argv = sys.argv, ["jaxsft", *words]
    try:
        with overrides.as_config_error():
            folder = str(overrides.config_folder())
            hydra.main(version_base="1.3", config_path=folder, config_name="config")(task)()
    finally:
        sys.argv = argv
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR")
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
