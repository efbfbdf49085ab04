"""The findings of a sweep: its arms, their comparisons and effects, the best one, and warnings."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxsft.errors import JaxsftError
from jaxsft.evaluation.compare import Settings
from jaxsft.rundir import number
from jaxsft.sweeps.arm_tests import ArmFamily, compared
from jaxsft.sweeps.option_effects import Effects, effects
from jaxsft.sweeps.search_section import SearchAccount, account_of
from jaxsft.sweeps.seed_groups import SeedGroup, SeedSummary, seed_groups, summary
from jaxsft.sweeps.sweep_reading import SweepResults
from jaxsft.sweeps.sweep_warnings import warnings

LEVEL = 0.95
COSTS = ("seconds", "tokens", "flops")
TRAIN = ("jaxsft", "train")


@dataclass(frozen=True)
class SweepAnalysis:
    """The findings of a sweep.

    Attributes:
      groups: the arms, in the order of the plan; those without a number too.
      summaries: of the arms with numbers, on the split that chose.
      of_test: of the same, on the test split, where they have numbers there.
      search: what a search came to; None of other sweeps.
      best: the arm with the best mean on the split that chose; "" where no trial has a number.
      warnings: sentences, the gravest first.
    """

    results: SweepResults
    groups: Sequence[SeedGroup]
    summaries: Mapping[str, SeedSummary]
    of_test: Mapping[str, SeedSummary]
    family: ArmFamily
    effects: Effects
    best: str
    warnings: Sequence[str]
    search: SearchAccount | None = None

    @property
    def baseline(self) -> str:
        """Returns the arm that a study holds the others against; "" where it names none."""
        return baseline_of(self.results)

    def group(self, label: str) -> SeedGroup:
        """Returns an arm by its name."""
        return next(group for group in self.groups if group.label == label)

    def ranked(self) -> list[SeedGroup]:
        """Returns the arms with numbers, the best first."""
        sign = 1 if self.results.lower_is_better else -1
        return sorted((g for g in self.groups if g.trials), key=lambda group: sign * group.mean)

    def command(self) -> str:
        """Returns the command that trains the best arm; "" where there is none."""
        if not self.best:
            return ""
        trial = self.group(self.best).trials[0]
        return shlex.join([*TRAIN, *self.results.fixed, *trial.overrides])

    def costs(self, kind: str) -> dict[str, float]:
        """Returns the mean cost of a trial of each arm, of those that have one."""
        found = {}
        for group in self.groups:
            values = [getattr(trial, kind) for trial in group.trials]
            if values and all(value is not None for value in values):
                found[group.label] = sum(values) / len(values)
        return found

    def front(self, kind: str) -> list[str]:
        """Returns the arms that no other beats in both cost and number, the cheapest first."""
        sign, costs = (1 if self.results.lower_is_better else -1), self.costs(kind)
        best, out = math.inf, []
        for label in sorted(costs, key=lambda name: (costs[name], sign * self._mean(name))):
            if sign * self._mean(label) < best:
                best = sign * self._mean(label)
                out.append(label)
        return out

    def _mean(self, label: str) -> float:
        return self.summaries[label].mean


def baseline_of(results: SweepResults) -> str:
    """Returns the arm that a study holds the others against; "" where it names none."""
    named = results.study.get("baseline") or results.study.get("reference") or ""
    return str(named) if named in {trial.arm for trial in results.trials} else ""


def analyse(results: SweepResults, level: float = LEVEL, replicates: int = 1000) -> SweepAnalysis:
    """Returns the arms of a sweep with their tests, effects and warnings."""
    groups, repeated = seed_groups(results)
    measured = [group for group in groups if group.trials]
    summaries = {group.label: summary(group.values, level) for group in measured}
    test = f"test/{results.metric.partition('/')[2]}"
    of_test = {}
    for group in measured:
        values = [trial.numbers.get(test, math.nan) for trial in group.trials]
        if all(map(math.isfinite, values)):
            of_test[group.label] = summary(values, level)
    search, broken = _search(results)
    family = compared(
        groups,
        results.metric,
        results.lower_is_better,
        reference=baseline_of(results),
        effect=_smallest_effect(results),
        settings=Settings(level=level, replicates=replicates),
    )
    best = results.best({label: one.mean for label, one in summaries.items()}) if measured else ""
    told = [*broken, *warnings(results, groups), *repeated]
    effect = effects(results, level)
    return SweepAnalysis(results, groups, summaries, of_test, family, effect, best, told, search)


def _search(results: SweepResults) -> tuple[SearchAccount | None, list[str]]:
    """Returns what a search came to, and what a reader should know of it first."""
    try:
        found = account_of(results.folder) if "search" in results.study else None
    except (JaxsftError, KeyError, TypeError, ValueError) as error:
        return None, [f"The account of the search cannot be read: {error}"]
    told = "" if found is None else found.warning()
    return found, [told] if told else []


def _smallest_effect(results: SweepResults) -> float | None:
    """Returns the smallest difference that a study says matters."""
    value = results.study.get("effect")
    return number(value) if isinstance(value, int | float) and value > 0 else None
