"""The run directories of a sweep (`jaxsft train -m`), and their comparison."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxsft import remote, rundir
from jaxsft.config.schema import Config
from jaxsft.errors import JaxsftError


class Sweep:
    """The shared state of a sweep's jobs: their folder, and which of them were run."""

    def __init__(self, given: Sequence[str]):
        """Stores which words of the command line, `given`, have a fixed value; others are swept."""
        self._fixed = {
            word.partition("=")[0] for word in given if "=" in word and not _sweeps(word)
        }
        self._names: dict[str, int] = {}
        self._folder: Path | None = None
        # one for all jobs, in whatever process they run
        self._stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"

    def placed(self, config: Config, overrides: Sequence[str]) -> Config:
        """Returns the config with a run directory of its own.

        It lies in `run_dir`, or in a new folder of `runs/`.
        """
        if config.run_dir is not None and remote.is_remote(config.run_dir):
            return config
        if self._folder is None:
            self._folder = Path(config.run_dir or f"runs/{config.task.name}-sweep-{self._stamp}")
        name = (
            re.sub(
                r"[^\w.=,+-]+",
                "-",
                ",".join(self.swept(overrides)),
            )[:120].strip("-.")
            or "run"
        )
        self._names[name] = count = self._names.get(name, 0) + 1
        return dataclasses.replace(
            config, run_dir=str(self._folder / (name if count == 1 else f"{name}-{count}"))
        )

    def swept(self, overrides: Sequence[str]) -> list[str]:
        """Returns those overrides of a job that were swept."""
        return [o for o in overrides if o.partition("=")[0] not in self._fixed]

    def run_dir(self, config: Config) -> str | None:
        """Returns the run directory of a finished job; None where it has none on this machine."""
        if remote.is_remote(str(config.run_dir)):
            return None
        return config.run_dir if Path(config.run_dir or "", "result.json").is_file() else None

    def result(self, config: Config) -> float | None:
        """Returns the number by which a finished job is judged; NaN of one that failed.

        None where the job has no validation data or lies in an object store.
        """
        if remote.is_remote(str(config.run_dir)):
            return None
        run_dir = Path(config.run_dir or "")
        if not (run_dir / "result.json").is_file():
            return math.nan
        numbers: dict[str, Any] = rundir.read_json(run_dir / "result.json")
        metric = _metric(run_dir)
        return rundir.number(numbers[metric]) if metric in numbers else None

    def tell(self, runs: Sequence[Path]) -> None:
        """Prints the finished runs side by side, and writes the page."""
        from jaxsft.reports import run_comparison

        if len(runs) < 2:
            return
        try:
            print("\n" + "\n".join(run_comparison.compare(runs).lines()))
            page = runs[0].parent / "comparison.html"
            print(f"comparison: {run_comparison.write(runs, page)}")
        except JaxsftError as error:  # the runs are whole all the same
            print(f"jaxsft: {error}", file=sys.stderr)


def _sweeps(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except OverrideParseException:  # told by Hydra itself
        return False


def _metric(run_dir: Path) -> str:
    from jaxsft.reports import facts

    return str((facts.config_or_empty(run_dir).get("evaluation") or {}).get("metric"))
