"""How the trials of a sweep are started, and how they are chosen: the names of `hydra/launcher` and
`hydra/sweeper` that are ours, and what to use in place of those that are not.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxsft.config import search_options, sweep_options
from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.sweeps import command_grid, search_book, search_runs, study_file, sweep_parent
from jaxsft.sweeps.command_grid import ComposedGrid, SweepCommand
from jaxsft.sweeps.sweep_parent import WantedSweep, WantedTrial
from jaxsft.sweeps.sweep_plan import SweepPlan

# name -> module:function, which takes what was asked for and the options, and returns the exit code
LAUNCHERS = {
    "slots": "jaxsft.sweeps.sweep_parent:begin",
    "stacked": "jaxsft.sweeps.launchers:stacked",
    "submitit": "jaxsft.sweeps.launchers:submitit",
    "ray": "jaxsft.sweeps.launchers:ray",
}
# name -> module:function, which takes a SweepCommand, the words and the options
SWEEPERS = {"basic": "jaxsft.sweeps.launchers:product"}
OTHER_SWEEPERS = "jaxsft.sweeps.foreign_sweeper:run"
_SLOTS = "hydra/launcher=slots, the default, runs sweep.slots=N trials at a time"
_SUBMITIT = "hydra/launcher=submitit runs trials as jobs of SLURM, or of this machine"
_RAY = "hydra/launcher=ray runs trials on the Ray cluster of RAY_ADDRESS"
INSTEAD = {
    "basic": "sweep.slots=1, the default, runs one trial after the other",
    "joblib": _SLOTS,
    "submitit_local": _SUBMITIT,
    "submitit_slurm": _SUBMITIT,
    "ray_aws": _RAY,
    "rq": f"{_SUBMITIT}; {_RAY}",
}


def run(arguments: Sequence[str]) -> int:
    """Runs `jaxsft train -m ...` and returns the exit code.

    Raises:
      ConfigError: a word is wrong, some jobs cannot run (each of them is told), or the directory
        holds another sweep.
      JaxsftError: anything else that the user can mend.
    """
    options, words = sweep_options.taken(arguments)
    searched, words = search_options.taken(words)
    command = SweepCommand.of_arguments(words)
    launcher(command.launcher)
    if searched:
        return search_runs.of_words(command, arguments, options)
    place = SWEEPERS.get(command.sweeper or "basic", OTHER_SWEEPERS)
    return _function(place)(command, arguments, options)


def product(command: SweepCommand, arguments: Sequence[str], options: SweepConfig) -> int:
    """Runs all combinations of the swept options; returns the exit code."""
    found = command_grid.composed(command)
    return launcher(command.launcher)(wanted(found, arguments), options)


def study(place: Path, words: Sequence[str]) -> int:
    """Runs the study of an experiment; returns the exit code.

    Args:
      words: options that take the place of those of the study, and how the sweep is run.

    Raises:
      ConfigError: the study or a word is wrong, or some trials cannot run (each is told before).
    """
    options, others = sweep_options.taken(words)
    mine, others = search_options.taken(others)
    command, found = SweepCommand.of_arguments(others), study_file.read(place)
    if found.search is not None:
        return search_runs.of_study(place, found, command, words, options)
    if mine:
        raise ConfigError(f"search.{next(iter(mine))}: the study has no search")
    asked = dataclasses.replace(
        wanted(command_grid.of_study(command, found), ()),
        given=("jaxsft", "sweep", "run", str(place), *words),
        study=found.about,
        stem=found.about["name"],
    )
    return launcher(command.launcher)(asked, options)


def resume(place: Path, options: SweepConfig, again: Sequence[int] | None = None) -> int:
    """Goes on with a sweep, or a search; as `sweep_parent.resume`."""
    searched = search_book.is_search(SweepPlan.read(place))
    return (search_runs if searched else sweep_parent).resume(place, options, again)


def add(place: Path, words: Sequence[str]) -> int:
    """Plans the trials that some words stand for beside those of a sweep, and runs what is left;
    returns the exit code. Raises ConfigError.
    """
    options, others = sweep_options.taken(words)
    more = SweepCommand.of_arguments(others)
    with sweep_parent.at_home(SweepPlan.read(place)) as plan:
        if search_book.is_search(plan):
            raise ConfigError(
                f"{plan.folder}: holds a search, which chooses its trials itself; search.trials="
                " behind the same command tries more"
            )
        before = SweepCommand.of_arguments(_words(plan))
        command = dataclasses.replace(
            more,
            words=(*plan.fixed, *more.words),
            folders=(*before.folders, *more.folders),
            place=str(plan.folder),
        )
        differing = [word.partition("=")[0] for word in more.words]
        found = command_grid.composed(command, differing)
        asked = dataclasses.replace(wanted(found, _words(plan)), fixed=plan.fixed)
        return launcher(None)(asked, sweep_parent.adding(options))


def _words(plan: SweepPlan) -> tuple[str, ...]:
    """Returns the options of the command that a sweep was planned by, without those of a study's
    file."""
    study = plan.given[1:3] == ("sweep", "run")
    return tuple(plan.given[4:] if study else plan.given[2:])


def wanted(found: ComposedGrid, arguments: Sequence[str]) -> WantedSweep:
    """Returns the sweep of a composed grid."""
    trials = [
        WantedTrial(job.swept, command_grid.without_place(config))
        for job, config in zip(found.jobs, found.configs, strict=True)
    ]
    return WantedSweep(
        found.place,
        ("jaxsft", "train", *arguments),
        tuple(command_grid.fixed(found.jobs)),
        found.swept,
        tuple(trials),
    )


def stacked(asked: WantedSweep, options: SweepConfig) -> int:
    """Runs a sweep whose trials train together where they can be one program."""
    return sweep_parent.begin(asked, dataclasses.replace(options, stack=True))


def submitit(asked: WantedSweep, options: SweepConfig) -> int:
    """Runs a sweep whose trials are jobs of SLURM."""
    return sweep_parent.begin(asked, dataclasses.replace(options, cluster="submitit"))


def ray(asked: WantedSweep, options: SweepConfig) -> int:
    """Runs a sweep whose trials are tasks of a Ray cluster."""
    return sweep_parent.begin(asked, dataclasses.replace(options, cluster="ray"))


def launcher(name: str | None) -> Callable[[WantedSweep, SweepConfig], int]:
    """Returns the function of a launcher; None is the default. Raises ConfigError."""
    name = name or "slots"
    if name in LAUNCHERS:
        return _function(LAUNCHERS[name])
    instead = INSTEAD.get(name, _SLOTS)
    raise ConfigError(
        f"hydra/launcher={name}: would not keep the account of a sweep; {instead} (there are"
        f" {', '.join(LAUNCHERS)})"
    )


def _function(place: str) -> Callable[..., int]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
