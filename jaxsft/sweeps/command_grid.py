"""From the words of `jaxsft train -m ...` to the jobs that they stand for, each with its config:
the product of all swept options, as Hydra's basic sweeper makes it, in the same order.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

from jaxsft.config import composer, overrides
from jaxsft.config.composer import Composer
from jaxsft.config.schema import Config
from jaxsft.errors import ConfigError
from jaxsft.sweeps import preflight
from jaxsft.sweeps.study_file import Study

FOLDERS = ("-cd", "--config-dir")
MULTIRUN = ("-m", "--multirun")
HYDRA = re.compile(r"[+~]*hydra[./@]")


@dataclasses.dataclass(frozen=True)
class GridJob:
    """One job: all its overrides, and those of them that differ between jobs."""

    words: tuple[str, ...]
    swept: tuple[str, ...]

    @property
    def name(self) -> str:
        return ",".join(self.swept)


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """What the words of a command say.

    Attributes:
      words: overrides of the task, in Hydra's grammar, some of which sweep.
      folders: of the user's presets.
      hydra: overrides of Hydra itself, but for launcher and sweeper.
      launcher, sweeper: what was chosen; None: nothing.
      place: the folder of the sweep, of a command that does not say it in a word.
    """

    words: tuple[str, ...]
    folders: tuple[str, ...] = ()
    hydra: tuple[str, ...] = ()
    launcher: str | None = None
    sweeper: str | None = None
    place: str | None = None

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> SweepCommand:
        """Sorts the words of a command. Raises ConfigError for a flag without its folder."""
        words, folders, own, chosen = [], [], [], {}
        rest = iter(a for a in arguments if a not in MULTIRUN)
        for argument in rest:
            flag, _, value = argument.partition("=")
            if flag in FOLDERS:
                folder = value or next(rest, "")
                if not folder:
                    raise ConfigError(f"{flag}: expected a folder behind it")
                folders.append(folder)
            elif flag in ("hydra/launcher", "hydra/sweeper"):
                chosen[flag] = value
            elif flag == "hydra.searchpath":
                listed = re.split(r"[\[\],'\"\s]+", value.replace("file://", ""))
                folders += [one for one in listed if one]
            elif argument.startswith("-"):
                flags = ", ".join((*MULTIRUN, *FOLDERS))
                raise ConfigError(f"{argument}: unknown flag; there are {flags}")
            elif not re.match(overrides.OVERRIDE, argument):
                raise ConfigError(f"{argument}: expected key=value")
            elif HYDRA.match(argument):
                own.append(argument)
            else:
                words.append(overrides.quote(argument, True))
        return cls(
            tuple(words),
            tuple(folders),
            tuple(own),
            chosen.get("hydra/launcher"),
            chosen.get("hydra/sweeper"),
        )


@dataclasses.dataclass(frozen=True)
class ComposedGrid:
    """All jobs of a command, with their configs.

    Attributes:
      swept: the options that differ between the jobs.
      place: the folder that `hydra.sweep.dir` or `run_dir` names; None: a new one.
    """

    jobs: tuple[GridJob, ...]
    configs: tuple[Config, ...]
    swept: tuple[str, ...]
    place: str | None


def composed(command: SweepCommand, differing: Sequence[str] = ()) -> ComposedGrid:
    """Composes and checks the config of every job.

    Args:
      differing: options that count as swept, though they have one value here.

    Raises:
      ConfigError: as `grid`; or some jobs are faulty, and were told one by one before.
    """
    with composer.opened(command.folders) as maker:
        jobs, swept = grid(maker, command.words, differing)
        words = [word for word in jobs[0].words if not word.lstrip("+~").startswith("run_dir=")]
        settings = maker.hydra([*words, *command.hydra])
        if given := settings.sweeper.get("params"):
            theirs = [f"{key}={value}" for key, value in given.items()]
            jobs, swept = grid(maker, [*theirs, *command.words], differing)
        configs = preflight.checked(
            (job.name, lambda words=job.words: maker.config(words)) for job in jobs
        )
    place = command.place or place_of(settings, configs)
    return ComposedGrid(tuple(jobs), tuple(configs), tuple(swept), place)


def of_study(command: SweepCommand, study: Study) -> ComposedGrid:
    """Composes and checks the config of every trial of a study; the words of the command take the
    place of its options.

    Raises ConfigError; faulty trials are told one by one before.
    """
    with composer.opened(command.folders) as maker:
        given, swept = grid(maker, command.words)
        if swept:
            raise ConfigError(f"{swept[0]}: a study says itself what differs between its trials")
        if twice := [_key(word) for word in given[0].words if _key(word) in study.swept]:
            raise ConfigError(f"{twice[0]}: the study has values of its own for it")
        settings = maker.hydra([*command.hydra])
        jobs = []
        for setting in study.settings:
            own = [overrides.unquoted(word) for word in overrides.from_values(setting)]
            common = [overrides.unquoted(word) for word in overrides.from_values(study.options)]
            words = {_key(word): word for word in common}
            words |= {_key(word): word for word in [*given[0].words, *own]}
            jobs.append(GridJob(tuple(words.values()), tuple(word.lstrip("+") for word in own)))
        configs = preflight.checked(
            (job.name, lambda words=job.words: maker.config(words)) for job in jobs
        )
    return ComposedGrid(
        tuple(jobs), tuple(configs), tuple(study.swept), place_of(settings, configs)
    )


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def grid(
    maker: Composer, words: Sequence[str], differing: Sequence[str] = ()
) -> tuple[list[GridJob], list[str]]:
    """Returns the jobs of some overrides, and the options that they sweep or that differ.

    Raises ConfigError where they cannot be read.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with overrides.as_config_error(maker.root):
        parsed = OverridesParser.create(config_loader=maker.loader).parse_overrides(list(words))
        # the last word of an option counts
        last = {one.get_key_element(): one.is_sweep_override() for one in parsed}
        swept = [key for key, sweeps in last.items() if sweeps or key in differing]
        if "run_dir" in swept:
            raise ConfigError(
                "run_dir: names the folder of the whole sweep, and cannot be swept; each trial has"
                " a folder in it"
            )
        (batch,) = BasicSweeper.split_arguments(parsed, None)
    jobs = [
        GridJob(tuple(job), tuple(w.lstrip("+") for w in job if w.partition("=")[0] in swept))
        for job in batch
    ]
    return jobs, [key.lstrip("+") for key in swept]


def without_place(config: Config) -> Config:
    """Returns a config without a run directory, which the plan of a sweep gives it."""
    return dataclasses.replace(config, run_dir=None)


def place_of(settings: Any, configs: Sequence[Config]) -> str | None:
    """Returns the folder of a sweep that Hydra's settings or the configs name; None: neither does.

    Raises ConfigError where both do, or it is no folder.
    """
    named = {"hydra.sweep.dir": settings.sweep.dir, "run_dir": configs[0].run_dir}
    given = {key: str(value) for key, value in named.items() if value not in (None, ".")}
    if len(given) > 1:
        raise ConfigError("run_dir and hydra.sweep.dir both name the folder of the sweep; give one")
    place = next(iter(given.values()), None)
    if place is not None and "://" in place:
        raise ConfigError(
            f"{next(iter(given))}={place}: a sweep is kept account of on a disk; give a folder of"
            " this machine, or of one that all see"
        )
    return place


def fixed(jobs: Sequence[GridJob]) -> list[str]:
    """Returns the overrides that all jobs have, without the folder of the sweep."""
    found = itertools.chain.from_iterable(job.words for job in jobs[:1])
    swept = set(jobs[0].swept)
    return [w for w in found if w.lstrip("+") not in swept and not w.startswith("run_dir=")]
