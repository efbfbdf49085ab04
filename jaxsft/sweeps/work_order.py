"""What a parent tells the process of a trial: `jobs/NNN-ID8.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxsft import documents, rundir
from jaxsft.errors import DataError
from jaxsft.sweeps import sweep_plan
from jaxsft.sweeps.sweep_plan import PlannedTrial, SweepPlan


@dataclasses.dataclass(frozen=True)
class WorkOrder:
    """The work of a worker on a trial.

    Attributes:
      attempt: the one that it may claim.
      words: the command that trains this trial alone, for its manifest.
      cores: that it may use; empty: all.
    """

    trial: PlannedTrial
    attempt: int
    words: tuple[str, ...]
    cores: tuple[int, ...] = ()

    def write(self) -> None:
        """Writes the order beside the run directory. Raises JaxsftError."""
        one = self.trial
        own = {"number": one.number, "id": one.id, "overrides": one.overrides, "asked": one.asked}
        values = {**own, "config": one.config, "attempt": self.attempt, "words": self.words}
        one.run_dir.parent.mkdir(parents=True, exist_ok=True)
        rundir.write_json(one.beside(".json"), {**values, "cores": self.cores})

    @classmethod
    def read(cls, folder: Path, number: int) -> WorkOrder:
        """Reads the order for a trial. Raises DataError where there is none."""
        found = sorted((folder / sweep_plan.JOBS).glob(f"{number:03d}-????????.json"))
        if not found:
            raise DataError(f"{folder}: has no order for trial {number}")
        values = documents.read_json(max(found, key=_changed_at), DataError, dict)
        trial = PlannedTrial(
            number,
            values["id"],
            tuple(values["overrides"]),
            values["config"],
            sweep_plan.run_dir(folder, number, values["id"]),
            tuple(values["asked"]),
        )
        return cls(trial, values["attempt"], tuple(values["words"]), tuple(values["cores"]))


def write_all(
    plan: SweepPlan,
    trials: Sequence[PlannedTrial],
    attempts: Mapping[str, int],
    cores: tuple[int, ...] = (),
) -> Path:
    """Writes the orders for trials that share a process, and the heading of its log; returns the
    log. Raises JaxsftError or OSError.
    """
    for one in trials:
        place = f"run_dir={plan.folder}/{sweep_plan.JOBS}/{one.run_dir.name}"
        WorkOrder(one, attempts[one.id], (*plan.fixed, *one.overrides, place), cores).write()
    log = trials[0].beside(".log")
    about = " ".join(f"trial {one.number}, attempt {attempts[one.id]}" for one in trials)
    with open(log, "ab") as file:
        file.write(f"--- {sweep_plan.moment()} {about}\n".encode())
    return log


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns
