"""Optuna's side of a search: its study, which is told what the ledger says.

The ledger is the truth. A study that contradicts it, or that is gone, is made anew from it
(`StudyMirror.reconcile`), so that nothing but time is lost with `search.db`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import extras
from jaxsft.config.search_options import SearchConfig
from jaxsft.errors import ConfigError, JaxsftError
from jaxsft.sweeps import search_space
from jaxsft.sweeps.search_outcome import PointResult
from jaxsft.sweeps.search_space import Axis, Setting

FILE, BREACHES = "search.db", "breaches"
Curve = Mapping[int, float]  # the number of a running trial by its step


def needed(options: SearchConfig) -> None:
    """Raises ConfigError where a library or a variable that a search needs is missing."""
    extras.need("optuna", "search", "search")
    url_of(options.storage, Path())
    extra = {"cmaes": ("cmaes", "search"), "gp": ("torch", None)}
    if options.sampler in extra:
        module, name = extra[options.sampler]
        if importlib.util.find_spec(module) is None:
            extras.need(module, f"search.sampler={options.sampler}", name)


def url_of(storage: str | None, folder: Path) -> str:
    """Returns the URL of the database. Raises ConfigError for a variable that is not set."""
    if storage is None:
        return f"sqlite:///{(folder / FILE).resolve()}"
    scheme, _, name = storage.partition(":")
    if scheme != "env":
        return storage
    if not os.environ.get(name):
        raise ConfigError(f"search.storage: found {storage}, but the variable {name} is not set")
    return os.environ[name]


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study is made of.

    Attributes:
      name: in its database.
      grid: the values in their order, of sampler=grid.
    """

    options: SearchConfig
    axes: Sequence[Axis]
    name: str
    url: str
    grid: Sequence[Setting] = ()


class StudyMirror:
    """A study of Optuna that mirrors the points of a plan: its trial N is point N."""

    def __init__(self, settings: StudySettings):
        """Opens the study, or makes it. Raises JaxsftError where its database is not to be had."""
        self._settings, self.options = settings, settings.options
        self._optuna = extras.need("optuna", "search", "search")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._trials: dict[int, Any] = {}  # those that run, by point
        self._orphans: deque[Any] = deque()  # proposed, but never planned
        self._reported: dict[int, set[int]] = {}
        # since version 5 a trial is given its constraints; before, a sampler asked for them
        self._given = hasattr(self._optuna.trial.Trial, "set_constraint")
        with self._guarded():
            self._storage = self._optuna.storages.RDBStorage(settings.url)
            self._study = self._made()

    def _made(self) -> Any:
        directions = self.options.directions
        return self._optuna.create_study(
            storage=self._storage,
            study_name=self._settings.name,
            directions=directions,
            load_if_exists=True,
            sampler=self._sampler(0),
            pruner=self._pruner(),
        )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns errors of the database into a JaxsftError."""
        from sqlalchemy.exc import SQLAlchemyError

        failures = (SQLAlchemyError, self._optuna.exceptions.OptunaError, ImportError)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except failures as error:
            what = "search.storage" if self.options.storage else self._settings.url[10:]
            first = (str(error).splitlines() or [""])[0][:200]
            raise JaxsftError(
                f"{what}: Optuna cannot use it ({type(error).__name__}: {first}); the study"
                " can be made anew from the ledger, in another database or without the file"
            ) from error

    # --- what proposes and prunes
    # ----------------------------------------------------------------------------------------------
    def _sampler(self, point: int) -> Any:
        """Returns the sampler for a point; its draws depend on what is known, the seed and the
        point, and not on when a process was killed.
        """
        options, samplers = self.options, self._optuna.samplers
        seed = options.seed * 1_000_003 + point
        asked = {"constraints_func": _breaches} if options.limits and not self._given else {}
        start = {"n_startup_trials": options.start}
        if options.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True, **start, **asked)
        if options.sampler == "cmaes":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False, **start)
        if options.sampler == "gp":
            return samplers.GPSampler(seed=seed, **start, **asked)
        if options.sampler == "nsga2":
            size = max(2, min(50, options.trials // 4))
            return samplers.NSGAIISampler(seed=seed, population_size=size, **asked)
        return samplers.RandomSampler(seed=seed)

    def _pruner(self) -> Any:
        pruners, start = self._optuna.pruners, self.options.start
        if self.options.prune == "median":
            return pruners.MedianPruner(n_startup_trials=start)
        if self.options.prune == "halving":
            return pruners.SuccessiveHalvingPruner()
        return pruners.NopPruner()

    # --- asking and telling
    # ----------------------------------------------------------------------------------------------
    def ask(self, point: int) -> Setting:
        """Returns the values of the next point, whose number is `point`."""
        with self._guarded():
            self._study.sampler = self._sampler(point)
            if self._orphans:
                trial = self._orphans.popleft()
            else:
                if self.options.sampler == "grid":
                    self._study.enqueue_trial(self._settings.grid[point])
                trial = self._study.ask()
            values = {axis.option: axis.suggested(trial) for axis in self._settings.axes}
        if trial.number != point:
            raise JaxsftError(
                f"{self._settings.name}: Optuna's trial {trial.number} is not point {point};"
                " another process writes to its database"
            )
        self._trials[point] = trial
        return values

    def tell(self, result: PointResult) -> None:
        """Tells what a point came to, once."""
        states = self._optuna.trial.TrialState
        with self._guarded():
            number = result.point.number
            self._study.sampler = self._sampler(number)
            if result.breaches:
                trial = self._running(number)
                trial.set_user_attr(BREACHES, list(result.breaches))
                if self._given:
                    for limit, breach in zip(self.options.limits, result.breaches, strict=True):
                        trial.set_constraint(f"{limit[0]} {limit[1]}", breach)
            ends = {"done": states.COMPLETE, "pruned": states.PRUNED}
            state = ends.get(result.status, states.FAIL)
            values = list(result.values) if result.status == "done" else None
            self._study.tell(number, values, state=state, skip_if_finished=True)
        self._trials.pop(number, None)

    def report(self, point: int, curve: Curve) -> None:
        """Tells the numbers of a point that runs, by their steps."""
        seen = self._reported.setdefault(point, set())
        new = {step: value for step, value in curve.items() if step not in seen}
        if not new:
            return
        with self._guarded():
            trial = self._running(point)
            for step, value in sorted(new.items()):
                trial.report(value, step)
        seen |= new.keys()

    def to_prune(self, point: int) -> bool:
        """Returns whether a point is not worth going on, by what was reported."""
        if point < self.options.start:
            return False
        with self._guarded():
            return bool(self._running(point).should_prune())

    def _running(self, point: int) -> Any:
        """Returns the live trial of a point, which an earlier parent may have asked for."""
        if point not in self._trials:
            self._study.sampler = self._optuna.samplers.RandomSampler()
            found = self._study.get_trials(deepcopy=False)[point]
            self._trials[point] = self._optuna.trial.Trial(self._study, found._trial_id)
        return self._trials[point]

    # --- the ledger is the truth
    # ----------------------------------------------------------------------------------------------
    def reconcile(
        self, results: Sequence[PointResult], curve: Callable[[PointResult], Curve]
    ) -> None:
        """Makes the study say what the results of all points say, by the ledger.

        Args:
          curve: the numbers of a point by their steps.
        """
        with self._guarded():
            trials = self._study.get_trials(deepcopy=False)
        known = trials[: len(results)]
        fits = all(self._fits(t, r) for t, r in zip(known, results, strict=False))
        rest = trials[len(results) :]
        if not fits or any(trial.state.is_finished() for trial in rest):
            with self._guarded():
                self._optuna.delete_study(study_name=self._settings.name, storage=self._storage)
                self._study = self._made()
            known, rest = [], []
            self._trials.clear()
            self._reported.clear()
        for result in results[len(known) :]:
            self._enter(result.point.number, result.point.values)
        for i, result in enumerate(results):
            if i < len(known) and known[i].state.is_finished():
                continue
            if i < len(known):
                self._reported[i] = set(known[i].intermediate_values)
            if self.options.prune in ("median", "halving"):
                self.report(i, curve(result))
            if result.status != "open":
                self.tell(result)
        with self._guarded():
            self._orphans = deque(
                self._optuna.trial.Trial(self._study, trial._trial_id)
                for trial in self._study.get_trials(deepcopy=False)[len(results) :]
                if not trial.state.is_finished()
            )

    def _enter(self, point: int, values: Mapping[str, Any]) -> None:
        """Adds a point that the study does not have."""
        with self._guarded():
            self._study.sampler = self._optuna.samplers.RandomSampler()
            self._study.enqueue_trial(dict(values))
            trial = self._study.ask()
            for axis in self._settings.axes:
                axis.suggested(trial)
        self._trials[point] = trial

    def _fits(self, trial: Any, result: PointResult) -> bool:
        """Returns whether a trial of the study can be that of a point."""
        states = self._optuna.trial.TrialState
        if {**trial.params} != {**result.point.values}:
            return False
        if not trial.state.is_finished():
            return trial.state == states.RUNNING
        if trial.state == states.COMPLETE:
            breaches = trial.user_attrs.get(BREACHES, [])
            same = list(trial.values) == list(result.values) and breaches == list(result.breaches)
            return result.status == "done" and same
        return result.status == ("pruned" if trial.state == states.PRUNED else "failed")


def _breaches(trial: Any) -> list[float]:
    """Returns how far a trial of Optuna is from what it must keep; 0 of a pruned one."""
    return trial.user_attrs.get(BREACHES) or [0.0]


def settings_of(
    options: SearchConfig, axes: Sequence[Axis], name: str, folder: Path
) -> StudySettings:
    """Returns the settings of a study. Raises ConfigError."""
    grid = search_space.grid(axes, "search.space") if options.sampler == "grid" else ()
    return StudySettings(options, axes, name, url_of(options.storage, folder), grid)
