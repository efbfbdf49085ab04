"""Begins a search, or goes on with one: `jaxsft sweep run` of a study with `search`, and
`jaxsft train -m 'optim.learning_rate=interval(1e-5,1e-3)' search.trials=40`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.config import compose, composer, overrides, search_options, sweep_options
from jaxsft.config.composer import Composer
from jaxsft.config.schema import Config
from jaxsft.config.search_options import COSTS, SearchConfig
from jaxsft.config.sweep_options import SweepConfig
from jaxsft.errors import ConfigError
from jaxsft.runlock import RunLock
from jaxsft.sweeps import (
    command_grid,
    preflight,
    search_book,
    search_outcome,
    search_space,
    search_study,
    sweep_parent,
    sweep_plan,
)
from jaxsft.sweeps.command_grid import SweepCommand
from jaxsft.sweeps.search import OptunaSource
from jaxsft.sweeps.search_book import SearchBook
from jaxsft.sweeps.search_space import Axis, Setting
from jaxsft.sweeps.search_study import StudyMirror
from jaxsft.sweeps.study_file import Study
from jaxsft.sweeps.sweep_parent import BUSY_TEXT, WantedTrial
from jaxsft.sweeps.sweep_plan import SweepPlan
from jaxsft.sweeps.trial_ledger import TrialLedger
from jaxsft.sweeps.worse_rows import of_rows

# what a search that was begun may be continued with
CHANGEABLE = ("trials", "confirm", "prune", "storage")


@dataclasses.dataclass(frozen=True)
class WantedSearch:
    """The search that a command asks for.

    Attributes:
      where: the file and key of its options, for messages.
      given: the words of the command, as it can be typed again.
      words: the overrides that all trials have.
      seeds: what each set of values is trained with; one empty one: nothing.
      about: what the plan keeps of a study.
      stem: of the name of a new folder; None: by the task.
    """

    options: SearchConfig
    where: str
    given: tuple[str, ...]
    words: tuple[str, ...]
    folders: tuple[str, ...]
    hydra: tuple[str, ...] = ()
    seeds: tuple[Setting, ...] = ({},)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stem: str | None = None


def of_study(
    place: Path, study: Study, command: SweepCommand, given: Sequence[str], options: SweepConfig
) -> int:
    """Runs the search of a study; returns the exit code.

    Args:
      given: the words behind the study, of which those of `search.` take the place of its own.

    Raises ConfigError.
    """
    file = place / "study.yaml" if not place.suffix else place
    mine, _ = search_options.taken(given)
    wanted = {**study.search, **mine}
    if "metric" in study.about:
        wanted.setdefault("metric", study.about["metric"])
    common = overrides.from_values(study.options)
    words = {_key(word): word for word in map(overrides.unquoted, common)}
    words |= {_key(word): word for word in command.words}
    asked = WantedSearch(
        search_options.read(wanted, f"{file}: search"),
        f"{file}: search",
        ("jaxsft", "sweep", "run", str(place), *given),
        tuple(words.values()),
        command.folders,
        command.hydra,
        study.settings,
        study.about,
        study.about["name"],
    )
    return begin(asked, options)


def of_words(command: SweepCommand, arguments: Sequence[str], options: SweepConfig) -> int:
    """Runs the search of `jaxsft train -m ... search.NAME=value`; returns the exit code.

    Raises ConfigError.
    """
    mine, _ = search_options.taken(arguments)
    with overrides.as_config_error():
        space, words = search_space.of_words(command.words)
    if command.sweeper is not None:
        raise ConfigError(f"hydra/sweeper={command.sweeper}: goes without search.*; leave one out")
    if not space:
        raise ConfigError(
            "search: no option has several values, as optim.learning_rate=interval(1e-5,1e-3)"
        )
    asked = WantedSearch(
        search_options.read({**mine, "space": space}, "search"),
        "search",
        ("jaxsft", "train", *arguments),
        tuple(words),
        command.folders,
        command.hydra,
    )
    return begin(asked, options)


def begin(wanted: WantedSearch, options: SweepConfig, worker: Sequence[str] = ()) -> int:
    """Begins a search, or goes on with it where its folder holds it; returns the exit code.

    Raises:
      ConfigError: an option is wrong, a value cannot be trained with, or the folder holds another
        sweep. Nothing was started.
      JaxsftError: another process runs this search, or its database cannot be used.
    """
    search_study.needed(wanted.options)
    axes = search_space.read(wanted.options.space, f"{wanted.where}.space")
    with composer.opened(wanted.folders) as maker:
        maker_of = lambda setting: _words(wanted.words, setting)
        settings = [{**edge, **wanted.seeds[0]} for edge in search_space.edges(axes)]
        configs = preflight.checked(
            (_name(one), lambda one=one: maker.config(maker_of(one))) for one in settings
        )
        place = command_grid.place_of(maker.hydra([*wanted.hydra]), configs)
        search = resolved(wanted, axes, configs[0])
        _check_numbers(search, maker, maker_of(settings[0]), wanted.where)
    folder = rundir.create(place, stem=wanted.stem or f"{configs[0].task.name}-search")
    with RunLock(folder, BUSY_TEXT):
        if (folder / "config.yaml").exists():
            raise ConfigError(f"{folder}: holds a run, not a search; choose another directory")
        if (folder / sweep_plan.NAME).exists():
            plan = _same(SweepPlan.read(folder), wanted, search, options)
        else:
            plan = _new(folder, wanted, search, axes, configs)
        return _run(plan, options, wanted.folders, worker)


def resume(
    place: Path,
    options: SweepConfig,
    again: Sequence[int] | None = None,
    worker: Sequence[str] = (),
) -> int:
    """Goes on with a search as it was planned; returns the exit code.

    Args:
      again: failed trials that are run once more: these numbers, empty for all.

    Raises ConfigError where data or code are others; JaxsftError as `begin`.
    """
    with sweep_parent.at_home(SweepPlan.read(place)) as plan, RunLock(plan.folder, BUSY_TEXT):
        sweep_parent.check_unchanged(plan, options)
        search_study.needed(search_book.options_of(plan))
        if again is not None:
            for number in again:
                plan.by_number(number)
            sweep_parent.retry(plan, TrialLedger(plan.folder), again)
        # behind jaxsft train, or jaxsft sweep run NAME
        words = plan.given[4 if plan.given[1] == "sweep" else 2 :]
        _, others = sweep_options.taken(search_options.taken(words)[1])
        folders = SweepCommand.of_arguments(others).folders
        return _run(plan, options, folders, worker)


def resolved(wanted: WantedSearch, axes: Sequence[Axis], config: Config) -> SearchConfig:
    """Returns the options with metric and directions of the task in place of `auto`.

    Raises ConfigError where they do not fit each other, or the task.
    """
    search, where = wanted.options, wanted.where
    chooses = config.evaluation.metric
    if "auto" not in (chooses, search.metrics[0]) and chooses not in search.metrics:
        raise ConfigError(
            f"{where}.metric: found {search.metric}, but evaluation.metric={chooses} chooses the"
            " checkpoints; leave one of the two out"
        )
    if search.metrics == ["auto"]:
        metric = config.evaluation.metric
        if metric == "auto" and config.task.spec.metric is not None:
            metric = f"validation/{config.task.spec.metric}"
        if metric == "auto":
            raise ConfigError(f"{where}.metric: task={config.task.name} chooses by its data; name"
                              " a number, as validation/loss")  # fmt: skip
        search = dataclasses.replace(search, metric=metric)
    auto = lambda name: "minimize" if search_outcome.less_is_better(config, name) else "maximize"
    directions = [
        auto(name) if given == "auto" else given
        for name, given in zip(search.metrics, search.directions, strict=True)
    ]
    if search.prune == "wilcoxon" and len(wanted.seeds) < 2:
        raise ConfigError(
            f"{where}.prune: wilcoxon compares rows of finished trainings, seed by seed; give seeds"
            " of the study, such as seeds: [0, 1, 2]"
        )
    if search.prune == "wilcoxon" and not of_rows(config, search.metrics[0]):
        raise ConfigError(
            f"{where}.prune: wilcoxon compares rows, and {search.metrics[0]} is no mean over rows"
        )
    if search.prune in ("median", "halving") and len(wanted.seeds) > 1:
        raise ConfigError(
            f"{where}.prune: {search.prune} looks at one training for each set of values; found"
            f" {len(wanted.seeds)} seeds (wilcoxon needs several)"
        )
    count = math.inf
    if search.sampler == "grid":
        count = len(search_space.grid(axes, f"{where}.space"))
    return dataclasses.replace(search, direction=directions, trials=min(search.trials, count))


def _check_numbers(search: SearchConfig, maker: Composer, words: Sequence[str], where: str) -> None:
    """Raises ConfigError for a number that trainings do not have, with those that there are."""
    for name in dict.fromkeys([*search.metrics, *search.constraints]):
        if name in COSTS:
            continue
        try:
            preflight.check(maker.config([*words, f"evaluation.metric={name}"]))
        except ConfigError as error:
            told = str(error)
            if "evaluation.metric=" not in told:
                raise
            raise ConfigError(f"{where}: {told}") from error


# --- the plan
# --------------------------------------------------------------------------------------------------
def _new(
    folder: Path,
    wanted: WantedSearch,
    search: SearchConfig,
    axes: Sequence[Axis],
    configs: Sequence[Config],
) -> SweepPlan:
    """Returns the plan of a search that has no points yet, written."""
    seeded = [key for one in wanted.seeds for key in one]
    study = {
        **wanted.about,
        search_book.KEY: _plain(search, axes),
        "with_each": [dict(one) for one in wanted.seeds],
        "points": [],
        "confirmations": [],
    }
    plan = SweepPlan(
        folder,
        wanted.given,
        tuple(dict.fromkeys([*(axis.option for axis in axes), *seeded])),
        study,
        (),
        sweep_plan.code_now(),
        sweep_parent.fingerprints(configs),
        str(Path.cwd()),
        sweep_plan.moment(),
        tuple(_fixed(wanted, search)),
    )
    plan.write()
    return plan


def _plain(search: SearchConfig, axes: Sequence[Axis]) -> dict[str, Any]:
    """Returns the options as the plan holds them."""
    values = compose.to_dict(search)
    return {**values, "space": {axis.option: axis.plain() for axis in axes}}


def _same(
    plan: SweepPlan, wanted: WantedSearch, search: SearchConfig, options: SweepConfig
) -> SweepPlan:
    """Returns the plan that a folder holds, if it is of the search that is asked for.

    Raises ConfigError where it is not.
    """
    if not search_book.is_search(plan):
        raise ConfigError(f"{plan.folder}: holds a sweep that is no search; choose another one")
    axes = search_space.read(search.space, f"{wanted.where}.space")
    new, now = _plain(search, axes), plan.study[search_book.KEY]
    fresh = _fixed(wanted, search)
    if list(plan.fixed) != fresh:
        differs = [w for w in fresh if w not in plan.fixed] or [
            w for w in plan.fixed if w not in fresh
        ]
        raise ConfigError(
            f"{plan.folder}: holds a search with other options ({differs[0] if differs else ''});"
            " choose another directory"
        )
    for key, value in new.items():
        if key not in CHANGEABLE and now.get(key) != value:
            raise ConfigError(
                f"{wanted.where}.{key}: found {value!r:.60}, but {plan.folder} holds a search with"
                f" {now.get(key)!r:.60}; choose another directory"
            )
    if [dict(one) for one in wanted.seeds] != search_book.seeds_of(plan):
        raise ConfigError(f"{plan.folder}: holds a search with other seeds; choose another one")
    sweep_parent.check_unchanged(plan, options)
    study = {**plan.study, search_book.KEY: new}
    plan = dataclasses.replace(plan, study=study)
    plan.write()
    return plan


def _fixed(wanted: WantedSearch, search: SearchConfig) -> list[str]:
    """Returns the overrides that all trials have."""
    metric = search.metrics[0]
    chosen = [] if metric in COSTS else [f"evaluation.metric={metric}"]
    kept = [w for w in wanted.words if not w.startswith(("run_dir=", "evaluation.metric="))]
    return [*kept, *chosen]


def _words(common: Sequence[str], setting: Setting) -> list[str]:
    """Returns the overrides of a trial, where values take the place of common options."""
    own = [overrides.unquoted(word) for word in overrides.from_values(setting)]
    words = {_key(word): word for word in [*common, *own]}
    return list(words.values())


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _name(setting: Setting) -> str:
    return ",".join(f"{key}={value}" for key, value in setting.items())


# --- running
# --------------------------------------------------------------------------------------------------
def _run(
    plan: SweepPlan, options: SweepConfig, folders: Sequence[str], worker: Sequence[str]
) -> int:
    """Runs what is left of a search, and tells its outcome; the caller holds its lock."""
    ledger = TrialLedger(plan.folder)
    sweep_parent.write_missing(plan, ledger)
    if options.failed == "retry":
        sweep_parent.retry(plan, ledger)
    with source_of(plan, ledger, folders, options.retries) as source:
        try:
            code = sweep_parent.run(source.book.plan, options, source, worker)
        finally:
            search_outcome.write(source.book.plan, ledger.states())
    found = search_outcome.outcome(source.book.plan, ledger.states())
    print("\n".join(search_outcome.lines(found)), flush=True)
    print(f"search: {plan.folder / search_outcome.NAME}", file=sys.stderr, flush=True)
    return code


@contextlib.contextmanager
def source_of(
    plan: SweepPlan, ledger: TrialLedger, folders: Sequence[str] = (), retries: int = 2
) -> Iterator[OptunaSource]:
    """Yields the source of the trials of a search. Raises JaxsftError."""
    search, axes = search_book.options_of(plan), search_book.axes_of(plan)
    name = f"{plan.study.get('name') or plan.folder.name} {plan.created}"
    mirror = StudyMirror(search_study.settings_of(search, axes, name, plan.folder))
    with composer.opened(folders) as maker:

        def composed(setting: Setting) -> WantedTrial:
            config = command_grid.without_place(maker.config(_words(plan.fixed, setting)))
            preflight.check(config)
            own = tuple(w.lstrip("+") for w in _words((), setting))
            return WantedTrial(own, config)

        yield OptunaSource(SearchBook(plan, ledger, composed), mirror, retries)
