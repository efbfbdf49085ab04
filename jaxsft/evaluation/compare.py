"""Compares runs on the rows that all of them were evaluated on.

Two runs see the same replicates of the rows, so that what makes a row hard for both is no noise of
their difference. An arm may have several runs, one a seed: then the bound of a difference carries
the rows and the seeds.

The test of a difference: exact by McNemar (1947) where the number is the mean of 0 or 1;
permutation, which exchanges what two runs did on a row, where it is a function of sums; else the
share of replicates on the other side of 0. With several seeds it is Student's t on the variance
of rows and seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds
from jaxsft.evaluation.compared_runs import RunRows
from jaxsft.evaluation.replicates import BLOCK, chunks, mapped, replicated, state_of, tables
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.evaluation.unit_counts import Units, uniform, units
from jaxsft.metrics.base import Metric, total

POWER = 0.8  # of the smallest difference that is told
_FLIPS = 0x5F1E_7A11  # another stream of the counts


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[RunRows, ...]


@dataclass(frozen=True)
class Settings:
    """The options of a comparison.

    Attributes:
      level: of the bounds; a difference counts where its p is below 1 - level.
      numbers: those that are compared; empty: all that have bounds.
    """

    level: float = 0.95
    replicates: int = 1000
    seed: int = 0
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Drawn:
    """One number of one arm: of each run its value `[runs]` and replicates `[runs, B]`."""

    values: np.ndarray
    replicates: np.ndarray

    @property
    def value(self) -> float:
        """Returns the mean over the runs."""
        return float(self.values.mean())

    def interaction(self) -> float:
        """Returns how much of the variance between runs is due to these rows."""
        runs = len(self.values)
        if runs < 2:
            return 0.0
        apart = self.replicates - self.replicates.mean(0)
        return float(np.var(apart, axis=1, ddof=1).sum() / (runs - 1))

    def seed_variance(self) -> float:
        """Returns the variance between seeds on all rows there could be; 0 of a single run."""
        if len(self.values) < 2:
            return 0.0
        return max(0.0, float(np.var(self.values, ddof=1)) - self.interaction())


@dataclass(frozen=True)
class Compared:
    """The result: what `as_json` gives, and the tables on the screen show."""

    arms: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    tied: dict[str, list[list[str]]]
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Returns the content of compare.json."""
        return {
            **self.facts,
            "arms": self.arms,
            "comparisons": self.pairs,
            "tied": self.tied,
            "notes": self.notes,
        }


def compare(arms: Sequence[Arm], settings: Settings) -> Compared:
    """Compares each arm with each other one; a difference is the second less the first.

    Raises ConfigError where a number is not there, or fewer than two arms are given.
    """
    bounds.check(settings.level, settings.replicates)
    if len(arms) < 2:
        raise ConfigError("give two runs at least: jaxsft compare RUN_A RUN_B [...]")
    metrics = shared_metrics(arms, settings.numbers)
    content = arms[0].runs[0].content
    told, pairs, tied, notes = [{"name": a.name, "numbers": {}} for a in arms], [], {}, []
    for metric_name, (metric, numbers) in metrics.items():
        arms_of = MetricOfArms(arms, metric_name, metric, units_of(content, metric_name), settings)
        drawn = arms_of.drawn
        for number in numbers:
            for arm, entry, of_arm in zip(arms, told, drawn, strict=True):
                entry["runs"] = [run.name for run in arm.runs]
                entry["numbers"][number] = arm_numbers(
                    of_arm[number], arms_of.independent, settings
                )
            if any(not np.isfinite(of_arm[number].values).all() for of_arm in drawn):
                notes.append(f"{number}: is not finite in every run, and is not compared")
                continue
            family = [
                arms_of.pair(i, j, number) for i, j in itertools.combinations(range(len(arms)), 2)
            ]
            for entry, p in zip(family, holm([entry["p"] for entry in family]), strict=True):
                entry["p_holm"] = p
                entry["verdict"] = _verdict(entry, settings.level)
            pairs += family
            means = {
                arm.name: of_arm[number].value for arm, of_arm in zip(arms, drawn, strict=True)
            }
            tied[number] = ties(means, family, number in metric.lower_is_better)
    for _, group in itertools.groupby(
        sorted(pairs, key=lambda e: (e["a"], e["b"])), key=lambda e: (e["a"], e["b"])
    ):
        entries = list(group)
        for entry, p in zip(entries, benjamini_hochberg([e["p"] for e in entries]), strict=True):
            entry["p_bh"] = p
    if any(len(arm.runs) == 1 for arm in arms) and any(len(arm.runs) > 1 for arm in arms):
        notes.append("an arm with one run has no variance between seeds in its bounds")
    facts = {
        "rows": len(content.rows),
        "clusters": None if content.clusters is None else len(np.unique(content.clusters)),
        "level": settings.level,
        "replicates": settings.replicates,
        "seed": settings.seed,
        "chosen": content.chosen,
        "first_row_digest": f"{int(content.digests[0]):016x}" if len(content.rows) else "",
    }
    return Compared(told, pairs, tied, facts, notes)


def units_of(content: RowStatistics, metric: str) -> Units:
    """Returns what is drawn as a whole for a metric, which may have some of the rows only."""
    return units(content.rows_of(metric), content.clusters_of(metric))


def shared_metrics(
    arms: Sequence[Arm], numbers: Sequence[str]
) -> dict[str, tuple[Metric, list[str]]]:
    """Returns the metrics that all runs have, with those of their numbers that are compared.

    A number that two metrics give is compared once. Raises ConfigError for one that none has.
    """
    runs = [run for arm in arms for run in arm.runs]
    first, out, seen = runs[0].metrics, {}, set()
    for name, metric in first.items():
        if all(name in run.metrics for run in runs):
            mine = [n for n in metric.names if n not in metric.counts and n not in seen]
            seen.update(mine)
            if mine := [n for n in mine if not numbers or n in numbers]:
                out[name] = metric, mine
    if missing := [n for n in numbers if n not in seen]:
        raise ConfigError(
            f"metrics={missing[0]}: is no number of all runs; there are {', '.join(sorted(seen))}"
        )
    return out


def arm_draws(
    arm: Arm, name: str, metric: Metric, of: Units, settings: Settings
) -> dict[str, Drawn]:
    """Returns each number of an arm: of its runs the values and the replicates."""
    points, replicates = [], []
    for run in arm.runs:
        statistics = run.content.metrics[name]
        points.append(bounds.point(metric, statistics, of.rows))
        replicates.append(replicated(metric, statistics, of, settings.replicates, settings.seed))
    return {
        number: Drawn(
            np.array([p[number] for p in points]), np.stack([r[number] for r in replicates])
        )
        for number in metric.names
    }


def arm_numbers(drawn: Drawn, independent: int, settings: Settings) -> dict[str, Any]:
    """Returns the mean over the runs of an arm with its bounds, and how the runs vary."""
    out = {"value": drawn.value}
    if len(drawn.values) == 1:
        return out | bounds.percentile(drawn.replicates[0], settings.level, independent)
    rows = _variance(drawn.replicates.mean(0))
    return out | {
        **_carried(drawn.value, rows, independent, [drawn], settings.level),
        "runs": drawn.values.tolist(),
        "seed_sd": math.sqrt(drawn.seed_variance()),
        "row_se": math.sqrt(rows),
    }


def _variance(x: np.ndarray) -> float:
    finite = x[np.isfinite(x)]
    return float(np.var(finite, ddof=1)) if len(finite) > 1 else math.nan


def _carried(
    value: float, rows: float, independent: int, arms: Sequence[Drawn], level: float
) -> dict[str, Any]:
    """Returns bounds that carry the variance of rows and of seeds, with degrees of freedom by
    Satterthwaite (1946).
    """
    parts = [(rows, max(independent - 1, 1))]
    parts += [
        (arm.seed_variance() / len(arm.values), len(arm.values) - 1)
        for arm in arms
        if len(arm.values) > 1
    ]
    variance = sum(part for part, _ in parts)
    below = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / below if below > 0 else float(independent - 1)
    half = bounds.t_of(level, freedom) * math.sqrt(variance)
    return {
        "low": value - half,
        "high": value + half,
        "se": math.sqrt(variance),
        "freedom": freedom,
    }


# --- a pair
# --------------------------------------------------------------------------------------------------
class MetricOfArms:
    """One metric of all arms, and what its pairs share: each is computed once."""

    def __init__(
        self, arms: Sequence[Arm], name: str, metric: Metric, of: Units, settings: Settings
    ):
        """Draws the replicates of all runs."""
        self.arms, self.name, self.metric, self.of = arms, name, metric, of
        self.settings = settings
        self.drawn = [arm_draws(arm, name, metric, of, settings) for arm in arms]
        self.independent = of.rows if of.clusters is None else of.clusters
        self._on_rows: dict[int, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
        self._exchanged: dict[tuple[int, int], dict[str, float]] = {}

    def pair(self, i: int, j: int, number: str) -> dict[str, Any]:
        """Returns the difference of a number between two arms: the second less the first."""
        a, b = self.drawn[i][number], self.drawn[j][number]
        lower, difference = number in self.metric.lower_is_better, b.value - a.value
        apart = b.replicates.mean(0) - a.replicates.mean(0)
        level = self.settings.level
        out = {
            "a": self.arms[i].name,
            "b": self.arms[j].name,
            "number": number,
            "metric": self.name,
            "rows": self.of.rows,
            "lower_is_better": lower,
            "value_a": a.value,
            "value_b": b.value,
            "difference": difference,
        }
        if max(len(a.values), len(b.values)) > 1:
            rows = _variance(apart)
            out |= _carried(difference, rows, self.independent, [a, b], level)
            out |= {
                "row_se": math.sqrt(rows),
                "seed_se": math.sqrt(sum(x.seed_variance() / len(x.values) for x in (a, b))),
                "test": "t of rows and seeds",
                "p": _p_of_t(difference, out["se"], out["freedom"]),
                # the share of pairs of seeds that agree with the mean
                "sign_agreement": _agreement(a.values, b.values, difference),
            }
        else:
            out |= bounds.percentile(apart, level, self.independent)
            out |= self._tested(i, j, number, apart)
            out["sign_agreement"] = float(np.mean(np.sign(apart) == np.sign(difference)))
        if out.get("se") is not None:
            quantiles = bounds.z_of(level) + bounds.z_of(2 * POWER - 1)
            out["minimum_detectable"] = quantiles * out["se"]
        return out

    def _tested(self, i: int, j: int, number: str, apart: np.ndarray) -> dict[str, Any]:
        """Returns p, the test that it is of, and on how many rows the second run is better."""
        if self.metric.reduce is not total:
            return {"test": "bootstrap", "p": _p_of_replicates(apart)}
        (of_one, plain_one), (of_other, plain_other) = self.on_rows(i), self.on_rows(j)
        x, y = of_one[number], of_other[number]
        both = np.isfinite(x) & np.isfinite(y)
        better = (y < x if number in self.metric.lower_is_better else y > x) & both
        equal = (x == y) & both
        out: dict[str, Any] = {
            "rows_better": int(better.sum()),
            "rows_worse": int(both.sum() - better.sum() - equal.sum()),
            "rows_equal": int(equal.sum()),
        }
        labels = [self._run(k).content.labels.get(self.name) for k in (i, j)]
        if labels[0] == labels[1]:
            p = self.exchanged(i, j)[number]
            out |= {"test": "permutation", "p": p, "p_permutation": p}
        else:
            out |= {"test": "bootstrap", "p": _p_of_replicates(apart)}
        same_rows = (np.isfinite(x) == np.isfinite(y)).all()
        if self.of.clusters is None and same_rows and number in plain_one.keys() & plain_other:
            out |= {"test": "McNemar", "p": mcnemar(out["rows_better"], out["rows_worse"])}
        return out

    def _run(self, i: int) -> RunRows:
        return self.arms[i].runs[0]

    def on_rows(self, i: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns each number of each row of an arm's run, and those that are means of 0 or 1."""
        if i not in self._on_rows:
            statistics, rows = self._run(i).content.metrics[self.name], self.of.rows
            values = bounds.row_values(self.metric, statistics, rows)
            plain = bounds.plain_means(self.metric, statistics, rows, values)
            self._on_rows[i] = values, plain
        return self._on_rows[i]

    def exchanged(self, i: int, j: int) -> dict[str, float]:
        """Returns p of each number by the permutation test of the runs of two arms."""
        if (i, j) not in self._exchanged:
            one, other = (self._run(k).content.metrics[self.name] for k in (i, j))
            found = permutation(self.metric, one, other, self.of, self.settings)
            self._exchanged[i, j] = found
        return self._exchanged[i, j]


def _agreement(a: np.ndarray, b: np.ndarray, difference: float) -> float:
    signs = np.sign(b[:, None] - a[None])
    return float(np.mean(signs == np.sign(difference)))


def _p_of_t(difference: float, se: float, freedom: float) -> float:
    if se == 0:
        return float(difference == 0)
    return float(2 * special.stdtr(freedom, -abs(difference) / se))


def mcnemar(b: int, c: int) -> float:
    """Returns the exact two-sided p of b rows on one side and c on the other."""
    if b == c:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(b, c), b + c, 0.5)))


def _p_of_replicates(apart: np.ndarray) -> float | None:
    finite = apart[np.isfinite(apart)]
    if not len(finite):
        return None
    tail = min((finite <= 0).sum(), (finite >= 0).sum())
    return float(min(1.0, 2 * (1 + tail) / (1 + len(finite))))


def permutation(
    metric: Metric, one: Any, other: Any, of: Units, settings: Settings
) -> dict[str, float]:
    """Returns the two-sided p of each number's difference, under exchanges of two runs on units."""
    a, b = (tables(statistics, of) for statistics in (one, other))
    apart = mapped(lambda x, y: y.minus(x), a, b)
    ones = np.ones((1, len(of.numbers)))
    sum_a, sum_b = (state_of(of_units, ones) for of_units in (a, b))
    seen = _apart(metric, sum_a, sum_b)
    as_large, size = (dict.fromkeys(metric.names, 0) for _ in range(2))
    for chunk in chunks(settings.replicates, len(of.numbers), BLOCK):
        draws = uniform(settings.seed ^ _FLIPS << 32, chunk, of.numbers)
        moved = state_of(apart, (draws >> 31).astype(np.float64))
        flipped = mapped(np.add, sum_a, moved), mapped(np.subtract, sum_b, moved)
        for name, difference in _apart(metric, *flipped).items():
            difference = difference[np.isfinite(difference)]
            # as large but for what rounding leaves
            least = abs(float(seen[name][0])) * (1 - 1e-9) - 1e-12
            as_large[name] += int((abs(difference) >= least).sum())
            size[name] += len(difference)
    return {name: (1 + as_large[name]) / (1 + size[name]) for name in metric.names}


def _apart(metric: Metric, one: Any, other: Any) -> dict[str, np.ndarray]:
    """Returns by how much each number of the second state is above that of the first one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = metric.value(one), metric.value(other)
    return {name: np.asarray(b[name] - a[name], np.float64) for name in metric.names}


# --- families
# --------------------------------------------------------------------------------------------------
def holm(p: Sequence[float | None]) -> list[float | None]:
    """Returns p values that hold for a whole family of comparisons (Holm, 1979)."""
    order = sorted((i for i, x in enumerate(p) if x is not None), key=lambda i: p[i])
    out: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[i]))
        out[i] = highest
    return out


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Returns p values whose threshold bounds the share of false discoveries (Benjamini and
    Hochberg, 1995).
    """
    order = sorted((i for i, x in enumerate(p) if x is not None), key=lambda i: -p[i])
    out: list[float | None] = [None] * len(p)
    least = 1.0
    for rank, i in enumerate(order):
        least = min(least, len(order) / (len(order) - rank) * p[i])
        out[i] = least
    return out


def _verdict(entry: Mapping[str, Any], level: float) -> str:
    """Returns what a comparison comes to, of the p that holds for its family."""
    if entry["p_holm"] is None or entry["p_holm"] >= 1 - level:
        return "tied"
    return "better" if (entry["difference"] < 0) == entry["lower_is_better"] else "worse"


def ties(
    means: Mapping[str, float], family: Sequence[Mapping[str, Any]], lower: bool
) -> list[list[str]]:
    """Returns the sets of arms of which no two are told apart, the best first; each arm is in one
    at least.
    """
    order = sorted(means, key=lambda name: means[name] if lower else -means[name])
    apart = {frozenset((e["a"], e["b"])) for e in family if e["verdict"] != "tied"}
    out: list[list[str]] = []
    for start, name in enumerate(order):
        members = [name]
        for other in order[start + 1 :]:
            if any(frozenset((other, member)) in apart for member in members):
                break
            members.append(other)
        if not out or not set(members) <= set(out[-1]):
            out.append(members)
    return out
