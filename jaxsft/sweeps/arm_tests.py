"""Tests whether the arms of a sweep differ, on the same rows and the same seeds.

The variance of a difference has a part that more seeds do not lessen (an arm that is better on
these rows, and would be less so on others) and one of each run (its seed, and what it does on a row
by chance). The first comes from the bootstrap over rows that all runs share, less what that has of
the second; the second is the variance between the runs as they are. Student's t has degrees of
freedom by Satterthwaite (1946). With two seeds the variance is never taken to be below that of the
rows alone. `jaxsft compare` takes the noise of rows out of the variance between runs and cuts what
is left at 0, which with few seeds tells a null effect more often than it should; here the share
stays below 6 % (tools/study_simulation.py).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special, stats

from jaxsft.errors import JaxsftError
from jaxsft.evaluation import bounds, compared_runs, power
from jaxsft.evaluation.compare import (
    POWER,
    Arm,
    Drawn,
    MetricOfArms,
    Settings,
    holm,
    shared_metrics,
    units_of,
)
from jaxsft.evaluation.replicates import JAX_FROM
from jaxsft.metrics.base import total
from jaxsft.sweeps.seed_groups import SeedGroup

MOST_PAIRS = 6  # arms up to which each is compared with each; above, all with one
MOST_MORE = 20  # seeds beyond those there are, above which arms count as tied
FEWEST = 3  # seeds of an arm from which more are asked for by a power
MOST_SEEDS = 1000
ROUNDING = 1e-12  # differences that are apart by less are equal
SETTINGS = Settings()


@dataclass(frozen=True)
class ArmComparison:
    """The difference of two arms: `b` less `a`.

    Attributes:
      split: whose rows were compared; of seeds alone, whose numbers.
      seeds: of the arm with fewer of them; shared: how many seeds both have.
      p: of the test named `test`; p_holm: the same for all comparisons together.
      p_seeds: of Student's t on the differences of shared seeds, for these rows.
      seeds_better: of how many shared seeds `b` is better.
      row_se, seed_se: the standard error that is due to rows, and to seeds.
      minimum_detectable: the least difference that is told with a probability of 0.8.
      error, freedom: of the difference, of rows and seeds together.
      stays: the part of its variance that more seeds do not lessen; of_runs: the variance of a run.
      more_seeds: how many seeds an arm more would tell a difference of `effect`; None: no number of
        seeds in reach would.
      verdict: better, worse (of `b`), tied, or needs seeds.
    """

    a: str
    b: str
    split: str
    value_a: float
    value_b: float
    difference: float
    seeds: int
    shared: int = 0
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = ""
    p_seeds: float | None = None
    seeds_better: int = 0
    row_se: float | None = None
    seed_se: float | None = None
    minimum_detectable: float | None = None
    error: float | None = None
    freedom: float = math.inf
    stays: float = 0.0
    of_runs: float = 0.0
    effect: float = math.nan
    more_seeds: int | None = None
    verdict: str = "tied"

    def told(self) -> str:
        """Returns the verdict as words."""
        if self.verdict in ("better", "worse"):
            return f"{self.b if self.verdict == 'better' else self.a} is better"
        if self.verdict == "needs seeds":
            more = self.more_seeds or 1
            return f"needs {more} more seed{'' if more == 1 else 's'} an arm"
        return "tied"


@dataclass(frozen=True)
class ArmFamily:
    """The comparisons that share one error rate, which arm they have in common ("" none), and
    notes.
    """

    pairs: Sequence[ArmComparison]
    split: str = ""
    reference: str = ""
    notes: Sequence[str] = ()

    def of(self, name: str) -> list[ArmComparison]:
        """Returns the comparisons that an arm is in."""
        return [pair for pair in self.pairs if name in (pair.a, pair.b)]

    def wins(self, name: str) -> bool:
        """Returns whether an arm is better than each one that it was compared with."""
        mine = self.of(name)
        return bool(mine) and all(
            pair.verdict == ("better" if pair.b == name else "worse") for pair in mine
        )


@dataclass(frozen=True)
class Spread:
    """The variance of a difference of two arms.

    Attributes:
      stays: what more seeds do not lessen.
      of_runs: the variance of a run of each arm, its noise of rows included, with its seeds.
      rows: the variance of the difference over rows, for these runs.
      shared: what `rows` and `of_runs` both have.
    """

    stays: float
    of_runs: tuple[tuple[float, int], tuple[float, int]]
    rows: float
    shared: float
    independent: int

    @property
    def variance(self) -> float:
        """Returns the variance of the difference."""
        found = self.stays + sum(variance / n for variance, n in self.of_runs)
        return max(found, self.rows) if min(n for _, n in self.of_runs) < FEWEST else found

    @property
    def freedom(self) -> float:
        """Returns the degrees of freedom of the variance (Satterthwaite, 1946)."""
        parts = [(variance / n, n - 1) for variance, n in self.of_runs]
        parts.append((self.stays, max(self.independent - 1, 1)))
        below = sum(part**2 / freedom for part, freedom in parts)
        return sum(part for part, _ in parts) ** 2 / below if below > 0 else math.inf

    @property
    def of_seeds(self) -> float:
        """Returns how much of the variance is due to seeds: that of runs less their rows'."""
        return max(sum(variance / n for variance, n in self.of_runs) - self.shared, 0.0)


def spread_of(a: Drawn, b: Drawn, independent: int) -> Spread:
    """Returns the variance of a difference of two arms, each of two runs or more."""
    apart = b.replicates.mean(0) - a.replicates.mean(0)
    apart = apart[np.isfinite(apart)]
    rows = float(np.var(apart, ddof=1)) if len(apart) > 1 else math.nan
    shared = sum(x.interaction() / len(x.values) for x in (a, b))
    of_runs = tuple((float(np.var(x.values, ddof=1)), len(x.values)) for x in (a, b))
    return Spread(max(rows - shared, 0.0), of_runs, rows, shared, independent)


# --- a family of comparisons
# --------------------------------------------------------------------------------------------------
def compared(
    groups: Sequence[SeedGroup],
    metric: str,
    lower: bool,
    *,
    reference: str = "",
    effect: float | None = None,
    settings: Settings = SETTINGS,
) -> ArmFamily:
    """Returns the comparisons of arms with numbers, with verdicts.

    Args:
      metric: `validation/number`, by which they were chosen.
      lower: whether less is better.
      reference: the arm that all others are compared with; "": up to `MOST_PAIRS` arms are compared
        each with each, more with the best by `metric`.
      effect: the smallest difference that matters; None: that which is seen.

    A few arms are compared on the rows of the test split where all runs have its statistics: none
    of them was chosen there. Many arms are a search, in which the test split has no part.
    """
    groups = [group for group in groups if group.trials]
    if len(groups) < 2:
        return ArmFamily([], notes=["There are no two arms with numbers to compare."])
    few = len(groups) <= MOST_PAIRS or bool(reference)
    order = {group.label: i for i, group in enumerate(groups)}
    if len(groups) > MOST_PAIRS and reference not in order:
        means = {group.label: group.mean for group in groups}
        reference = (min if lower else max)(means, key=means.__getitem__)
    if reference in order:
        at = order[reference]
        pairs = [(at, i) for i in range(len(groups)) if i != at]
    else:
        reference, pairs = "", list(itertools.combinations(range(len(groups)), 2))
    chosen_on, _, name = metric.partition("/")
    splits = ("test", chosen_on) if few else (chosen_on,)
    arms, split, notes = _arms(groups, splits, name)
    settings = dataclasses.replace(settings, numbers=(name,))
    number = f"{split}/{name}"
    if arms:
        by_label = {group.label: group for group in groups}
        found = [
            _with_seeds(pair, by_label[pair.a], by_label[pair.b], number, lower)
            for pair in tested(arms, name, pairs, split, settings)
        ]
    else:
        found = [_on_seeds(groups[i], groups[j], number, lower, settings.level) for i, j in pairs]
    return ArmFamily(judged(found, lower, settings.level, effect), split, reference, notes)


def _arms(
    groups: Sequence[SeedGroup], splits: Sequence[str], name: str
) -> tuple[list[Arm], str, list[str]]:
    """Returns the arms with the statistics of their rows, the split, and why there are none."""
    notes = []
    for split in dict.fromkeys(splits):
        trials = [trial for group in groups for trial in group.trials]
        files = [(t.run_dir or Path()) / "predictions" / f"{split}.npz" for t in trials]
        if not all(file.is_file() for file in files):
            lacking = sum(not file.is_file() for file in files)
            if lacking < len(files):
                notes.append(
                    f"{lacking} of {len(files)} runs have no predictions/{split}.npz: the rows of"
                    f" {split} are not compared."
                )
            continue
        try:
            runs = iter(compared_runs.read([str(trial.run_dir) for trial in trials], split))
            arms = [Arm(group.label, tuple(next(runs) for _ in group.trials)) for group in groups]
            (metric,) = (pair[0] for pair in shared_metrics(arms, [name]).values())
        except (JaxsftError, ValueError) as error:
            notes.append(f"The rows of {split} are not compared: {error}")
            continue
        if metric.reduce is not total and len(arms[0].runs[0].content.rows) >= JAX_FROM:
            notes.append(
                f"{name} ranks {len(arms[0].runs[0].content.rows):,} rows of {split}, which takes a"
                " compiled program: jaxsft compare has it. Here seeds alone are compared."
            )
            continue
        return arms, split, notes
    return [], splits[-1], [*notes, "No statistics of rows are compared: the seeds alone are."]


def tested(
    arms: Sequence[Arm],
    name: str,
    pairs: Sequence[tuple[int, int]],
    split: str = "test",
    settings: Settings = SETTINGS,
) -> list[ArmComparison]:
    """Returns the comparisons of pairs of arms on the rows that all runs share."""
    ((of_metric, (metric, _)),) = shared_metrics(arms, [name]).items()
    rows = units_of(arms[0].runs[0].content, of_metric)
    of = MetricOfArms(arms, of_metric, metric, rows, settings)
    out = []
    for i, j in pairs:
        a, b = of.drawn[i][name], of.drawn[j][name]
        seeds = min(len(a.values), len(b.values))
        base = ArmComparison(
            arms[i].name, arms[j].name, split, a.value, b.value, b.value - a.value, seeds
        )
        if not math.isfinite(base.difference):
            out.append(base)
        elif seeds < 2:
            out.append(_of_one_run(base, of.pair(i, j, name)))
        else:
            out.append(_of_spread(base, spread_of(a, b, of.independent), settings.level))
    return out


def _of_one_run(base: ArmComparison, entry: dict[str, Any]) -> ArmComparison:
    """Returns what `compare` says of two runs: how their rows differ, and nothing of seeds."""
    return dataclasses.replace(
        base, low=entry["low"], high=entry["high"], p=entry["p"], row_se=entry.get("se"),
        test=f"{entry['test']}, these runs alone",
    )  # fmt: skip


def _of_spread(base: ArmComparison, spread: Spread, level: float) -> ArmComparison:
    variance, freedom = spread.variance, spread.freedom
    if not variance > 0:
        return dataclasses.replace(base, test="no spread")
    of_runs = float(np.mean([of_one for of_one, _ in spread.of_runs]))
    return dataclasses.replace(
        _with_bounds(base, math.sqrt(variance), freedom, level), test="t of rows and seeds",
        row_se=math.sqrt(spread.rows), seed_se=math.sqrt(spread.of_seeds), stays=spread.stays,
        of_runs=of_runs,
    )  # fmt: skip


def _with_bounds(base: ArmComparison, error: float, freedom: float, level: float) -> ArmComparison:
    half = bounds.t_of(level, freedom) * error
    p = float(2 * special.stdtr(freedom, -abs(base.difference) / error))
    low, high = base.difference - half, base.difference + half
    return dataclasses.replace(base, low=low, high=high, p=p, error=error, freedom=freedom)


# --- the same seeds
# --------------------------------------------------------------------------------------------------
def _shared(a: SeedGroup, b: SeedGroup, number: str) -> np.ndarray:
    """Returns by how much `b` is above `a` with each seed that both have, `[seeds]`."""
    one, other = a.by_seed(), b.by_seed()
    apart = [
        other[seed].numbers.get(number, math.nan) - trial.numbers.get(number, math.nan)
        for seed, trial in one.items()
        if seed in other
    ]
    found = np.array(apart, float)
    return found[np.isfinite(found)]


def _with_seeds(
    pair: ArmComparison, a: SeedGroup, b: SeedGroup, number: str, lower: bool
) -> ArmComparison:
    """Returns a comparison with what the seeds say that both arms have."""
    apart = _shared(a, b, number)
    p = None
    if len(apart) > 1 and np.ptp(apart) > ROUNDING:
        p = float(stats.ttest_1samp(apart, 0.0).pvalue)
    better = int((apart < 0).sum() if lower else (apart > 0).sum())
    return dataclasses.replace(pair, shared=len(apart), seeds_better=better, p_seeds=p)


def _on_seeds(a: SeedGroup, b: SeedGroup, number: str, lower: bool, level: float) -> ArmComparison:
    """Returns a comparison by the seeds that both arms have: Student's t of their differences."""
    apart = _shared(a, b, number)
    base = ArmComparison(
        a.label, b.label, number.partition("/")[0], a.mean, b.mean, b.mean - a.mean,
        min(len(a.trials), len(b.trials)),
    )  # fmt: skip
    base = _with_seeds(base, a, b, number, lower)
    if len(apart) < 2:
        return dataclasses.replace(base, seeds=min(base.seeds, max(len(apart), 1)))
    base = dataclasses.replace(base, seeds=len(apart), difference=float(apart.mean()))
    if not np.ptp(apart) > ROUNDING:
        return dataclasses.replace(base, test="no spread")
    variance = float(np.var(apart, ddof=1))
    error = math.sqrt(variance / len(apart))
    found = _with_bounds(base, error, len(apart) - 1, level)
    return dataclasses.replace(found, test="t of shared seeds", seed_se=error, of_runs=variance)


# --- verdicts
# --------------------------------------------------------------------------------------------------
def judged(
    found: Sequence[ArmComparison], lower: bool, level: float, effect: float | None = None
) -> list[ArmComparison]:
    """Returns comparisons with p values that hold for all of them, and verdicts."""
    of_family = 1 - (1 - level) / max(len(found), 1)
    return [
        _judged(dataclasses.replace(pair, p_holm=p), lower, (level, of_family), effect)
        for pair, p in zip(found, holm([pair.p for pair in found]), strict=True)
    ]


def _judged(
    pair: ArmComparison, lower: bool, levels: tuple[float, float], asked: float | None
) -> ArmComparison:
    level, of_family = levels
    effect = asked or abs(pair.difference)
    pair = dataclasses.replace(pair, effect=effect)
    if pair.error is not None:
        quantiles = bounds.t_of(of_family, pair.freedom) + special.stdtrit(pair.freedom, POWER)
        pair = dataclasses.replace(pair, minimum_detectable=float(quantiles * pair.error))
    if pair.seeds < 2:  # of two runs nobody knows what another seed would do
        return dataclasses.replace(pair, more_seeds=FEWEST - pair.seeds, verdict="needs seeds")
    if pair.p_holm is None or pair.error is None:
        return pair if pair.difference == 0 else dataclasses.replace(
            pair, more_seeds=1, verdict="needs seeds"
        )  # fmt: skip
    if pair.p_holm < 1 - level:
        verdict = "better" if (pair.difference < 0) == lower else "worse"
        return dataclasses.replace(pair, verdict=verdict)
    if asked and -asked < pair.low and pair.high < asked:
        return pair
    needed = seeds_needed(pair, effect, of_family)
    more = None if needed is None else max(needed - pair.seeds, 1)
    verdict = "tied" if more is None or more > MOST_MORE else "needs seeds"
    return dataclasses.replace(pair, more_seeds=more, verdict=verdict)


def power_with(pair: ArmComparison, effect: float, seeds: int, level: float) -> float:
    """Returns the probability that a difference is told with so many seeds an arm."""
    if pair.test == "t of shared seeds":
        return power.power_at(effect, pair.of_runs / seeds, level, seeds - 1)
    return power.power_of_seeds(effect, pair.stays, pair.of_runs, seeds, level)


def seeds_needed(pair: ArmComparison, effect: float, level: float) -> int | None:
    """Returns the fewest seeds an arm with which a difference is told with a power of 0.8; None
    where `MOST_SEEDS` are too few.
    """
    if not effect > 0 or power_with(pair, effect, MOST_SEEDS, level) < POWER:
        return None
    low, high = 1, MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        if power_with(pair, effect, middle, level) < POWER:
            low = middle
        else:
            high = middle
    return high
