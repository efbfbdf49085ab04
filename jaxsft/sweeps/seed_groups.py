"""The arms of a sweep: trials whose options differ in their seeds alone, with their mean, spread
and interquartile mean, and bounds from a bootstrap over the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from jaxsft.evaluation import bounds
from jaxsft.sweeps.sweep_reading import OUT, SweepResults, SweptTrial

DRAWS = 2000
QUARTER = 0.25  # that is cut off at each end of an interquartile mean


@dataclass(frozen=True)
class SeedGroup:
    """One arm.

    Attributes:
      trials: those that have a number, one for each seed.
      planned: how many trials of the arm the plan has, those that were put aside left out.
    """

    label: str
    options: Mapping[str, Any]
    trials: tuple[SweptTrial, ...]
    planned: int
    failed: int

    @property
    def values(self) -> np.ndarray:
        """Returns the numbers that choose, `[seeds]`."""
        return np.array([trial.value for trial in self.trials])

    @property
    def mean(self) -> float:
        """Returns their mean."""
        return float(self.values.mean())

    def by_seed(self) -> dict[tuple[str, ...], SweptTrial]:
        """Returns the trials by their seeds."""
        return {seed_key(trial): trial for trial in self.trials}


def seed_key(trial: SweptTrial) -> tuple[str, ...]:
    """Returns the seeds of a trial as a key."""
    return tuple(f"{name}={value}" for name, value in sorted(trial.seeds.items()))


def seed_groups(results: SweepResults) -> tuple[list[SeedGroup], list[str]]:
    """Returns the arms in the order of the plan, and a sentence for each trial left out of them.

    Trials that confirm what a search chose are in no arm: their seeds had no part in the choice,
    and those of the other arms had. Two trials of an arm with the same seeds, or with the same
    logged numbers, are one measurement: counted twice, they would make the spread between seeds
    look smaller than it is.
    """
    found: dict[tuple[str, str], list[SweptTrial]] = {}
    for trial in results.trials:
        if trial.status not in OUT and not trial.confirms:
            options = repr(sorted((k, repr(v)) for k, v in trial.options.items()))
            found.setdefault((trial.arm, options), []).append(trial)
    groups, notes = [], []
    for (label, _), trials in found.items():
        kept: list[SweptTrial] = []
        for trial in (one for one in trials if one.measured):
            same = [
                other
                for other in kept
                if seed_key(other) == seed_key(trial)
                or (trial.stream and other.stream == trial.stream)
            ]
            if same:
                notes.append(
                    f"Trial {trial.number} of {label} is trial {same[0].number} again (the same"
                    " seeds, or the same logged numbers): the two count once."
                )
            else:
                kept.append(trial)
        failed = sum(trial.status == "failed" for trial in trials)
        groups.append(SeedGroup(label, trials[0].options, tuple(kept), len(trials), failed))
    return groups, notes


@dataclass(frozen=True)
class SeedSummary:
    """The numbers of the seeds of an arm. Bounds are None with a single seed."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    iqm: float
    iqm_low: float | None
    iqm_high: float | None


def summary(values: Sequence[float] | np.ndarray, level: float = 0.95) -> SeedSummary:
    """Returns mean, standard deviation and interquartile mean, with bounds over the seeds."""
    values = np.asarray(values, float)
    n, iqm = len(values), float(stats.trim_mean(values, QUARTER))
    if n < 2:
        return SeedSummary(n, float(values.mean()), None, None, None, iqm, None, None)
    drawn = values[np.random.default_rng(0).integers(0, n, (DRAWS, n))]
    of_mean = bounds.percentile(drawn.mean(1), level, n)
    of_iqm = bounds.percentile(stats.trim_mean(drawn, QUARTER, axis=1), level, n)
    return SeedSummary(
        n, float(values.mean()), float(values.std(ddof=1)), of_mean["low"], of_mean["high"],
        iqm, of_iqm["low"], of_iqm["high"],
    )  # fmt: skip


def pooled_sd(groups: Sequence[SeedGroup]) -> float | None:
    """Returns the standard deviation between seeds over all arms; None where no arm has two."""
    several = [group.values for group in groups if len(group.trials) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    return math.sqrt(sum(float(((v - v.mean()) ** 2).sum()) for v in several) / freedom)
