"""What became of the jobs of a multirun, one small file a job: they may run in other processes, of
which a launcher of Hydra brings back a number at most.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
from pathlib import Path

from jaxsft import rundir

STARTED = -1  # the code of a job that has not ended; where nothing runs any more, it was lost


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A job: its number in the sweep, the options that were swept, its exit code, and where its run
    lies.
    """

    number: int
    swept: str
    code: int = STARTED
    run_dir: str | None = None

    @property
    def failed(self) -> bool:
        """Returns whether the job ended with an error, or never."""
        return self.code != 0


class Outcomes:
    """A folder with the outcomes of one multirun, in the working directory, which its processes
    share; it is removed in the end.
    """

    def __init__(self) -> None:
        stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        self._folder = Path.cwd() / f".jaxsft-sweep-{stamp}"
        self._folder.mkdir()

    def note(self, outcome: Outcome) -> None:
        """Writes, or replaces, the outcome of a job."""
        rundir.write_json(self._folder / f"{outcome.number}.json", dataclasses.asdict(outcome))

    def all(self) -> list[Outcome]:
        """Returns the outcomes of all jobs that have started, by number."""
        found = (Outcome(**rundir.read_json(file)) for file in self._folder.glob("*.json"))
        return sorted(found, key=lambda outcome: outcome.number)

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def exit_code(outcomes: list[Outcome]) -> int:
    """Returns the worst code of all jobs; 1 for a job that was lost."""
    return max((1 if one.code == STARTED else one.code for one in outcomes), default=0)


def summary(outcomes: list[Outcome]) -> str:
    """Returns a line that names the jobs that failed, or nothing."""
    failed = [
        f"{one.swept or f'job {one.number}'}{' (lost)' if one.code == STARTED else ''}"
        for one in outcomes
        if one.failed
    ]
    return f"{len(failed)} of {len(outcomes)} jobs failed: {'; '.join(failed)}" if failed else ""
