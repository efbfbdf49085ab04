"""What the swept options do to the number that chooses: effects of each, of pairs, and importance.

Effects are those of a linear model of levels, which in a grid are differences of means. An option
with many values is cut into parts of equal size first. Importance by PED-ANOVA (Watanabe, Bansal
and Hutter, 2023) comes from Optuna, where it is installed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from jaxsft.errors import ConfigError, first_line
from jaxsft.evaluation.compare import holm
from jaxsft.extras import need
from jaxsft.sweeps.seed_groups import summary
from jaxsft.sweeps.sweep_reading import SweepResults, SweptTrial, text_of

MOST_LEVELS = 6  # values of a numeric option, above which it is cut into parts
PARTS = 4
MOST_OPTIONS = 12  # whose pairs are looked at
FEW_TRIALS = 10  # below which importance says little
WIDE = 100  # ratio of the ends of a range above which it is taken to be logarithmic


@dataclass(frozen=True)
class LevelMean:
    """The mean of the trials that have one level of an option."""

    level: str
    n: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OptionEffect:
    """What one option does.

    Attributes:
      share: of the variance between trials that is due to it, given the other options.
      p: of an F test, held against all options together (Holm); None where nothing is left to
        compare with.
      rank: Spearman's correlation with the number, of a numeric option.
      importance: by PED-ANOVA; None without it.
    """

    name: str
    levels: Sequence[LevelMean]
    share: float
    p: float | None
    rank: float | None = None
    importance: float | None = None


@dataclass(frozen=True)
class PairEffect:
    """What two options do together beyond what each does: `share` of the variance, and p (Holm).

    `cells` are the means `[levels of a][levels of b]`, None where no trial is.
    """

    a: str
    b: str
    share: float
    p: float | None
    levels: tuple[Sequence[str], Sequence[str]]
    cells: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Effects:
    """The effects of all options, with notes."""

    options: Sequence[OptionEffect] = ()
    pairs: Sequence[PairEffect] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Coded:
    """An option as levels: their names, and of each trial its level."""

    name: str
    levels: list[str]
    codes: np.ndarray
    numbers: np.ndarray | None  # of a numeric option

    def columns(self) -> np.ndarray:
        """Returns a column for each level but the first, `[trials, levels - 1]`."""
        return (self.codes[:, None] == np.arange(1, len(self.levels))).astype(float)


def effects(results: SweepResults, level: float = 0.95) -> Effects:
    """Returns the effects of the swept options on the number that chooses."""
    trials = results.measured()
    coded = [_coded(name, trials) for name in results.options]
    coded = [one for one in coded if len(one.levels) > 1]
    if not coded or len(trials) < 3:
        return Effects(notes=["There are too few trials, or no options, for effects."])
    y = np.array([trial.value for trial in trials])
    whole = float(((y - y.mean()) ** 2).sum())
    if not whole > 0:
        return Effects(notes=["All trials have the same number: no option does anything to it."])
    found, notes = _importance(results, trials, [one.name for one in coded])
    options = _mains(coded, y, whole, found, level)
    pairs = _pairs(coded[:MOST_OPTIONS], coded, y, whole)
    if len(coded) > 1 and not _balanced(coded):
        notes.append(
            "The options are not balanced: a mean of a level is that of the trials that have it;"
            " shares and p take the other options out."
        )
    return Effects(options, pairs, notes)


def _coded(name: str, trials: Sequence[SweptTrial]) -> _Coded:
    values = [trial.options.get(name) for trial in trials]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    unique = sorted(set(values)) if numeric else sorted({text_of(v) for v in values})
    numbers = np.array(values, float) if numeric and values else None
    if numbers is not None and len(unique) > MOST_LEVELS:
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, PARTS + 1)))
        codes = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
        names = [f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges)]
        return _Coded(name, names, codes, numbers)
    place = {value: i for i, value in enumerate(unique)}
    codes = np.array([place[v if numeric else text_of(v)] for v in values], int)
    return _Coded(name, [text_of(v) for v in unique], codes, numbers)


def _balanced(coded: Sequence[_Coded]) -> bool:
    """Returns whether each pair of levels of two options has equally many trials."""
    for a, b in itertools.combinations(coded, 2):
        table = np.zeros((len(a.levels), len(b.levels)))
        np.add.at(table, (a.codes, b.codes), 1)
        if len(np.unique(table)) > 1:
            return False
    return True


def _residual(parts: Sequence[np.ndarray], y: np.ndarray) -> tuple[float, int]:
    """Returns the sum of squares that columns leave, and how many degrees of freedom."""
    design = np.concatenate([np.ones((len(y), 1)), *parts], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ solution) ** 2).sum()), len(y) - int(rank)


def _explained(
    without: Sequence[np.ndarray], added: np.ndarray, y: np.ndarray, whole: float
) -> tuple[float, float | None]:
    """Returns the share of the variance that columns add, and p of an F test."""
    before, freedom_before = _residual(without, y)
    after, freedom = _residual([*without, added], y)
    gain, used = max(before - after, 0.0), freedom_before - freedom
    if not used or freedom < 1 or not after > 1e-12 * whole:
        return gain / whole, None
    return gain / whole, float(stats.f.sf(gain / used / (after / freedom), used, freedom))


def _mains(
    coded: Sequence[_Coded],
    y: np.ndarray,
    whole: float,
    importance: Mapping[str, float],
    level: float,
) -> list[OptionEffect]:
    columns = [one.columns() for one in coded]
    found = [
        _explained(columns[:i] + columns[i + 1 :], columns[i], y, whole) for i in range(len(coded))
    ]
    out = []
    for one, (share, _), p in zip(coded, found, holm([p for _, p in found]), strict=True):
        levels = [_level(name, y[one.codes == i], level) for i, name in enumerate(one.levels)]
        rank = None
        if one.numbers is not None and len(np.unique(one.numbers)) > 2:
            rank = float(stats.spearmanr(one.numbers, y).statistic)
        weight = importance.get(one.name)
        out.append(OptionEffect(one.name, [x for x in levels if x], share, p, rank, weight))
    key = lambda effect: -(effect.share if effect.importance is None else effect.importance)
    return sorted(out, key=key)


def _level(name: str, values: np.ndarray, level: float) -> LevelMean | None:
    if not len(values):
        return None
    found = summary(values, level)
    return LevelMean(name, found.n, found.mean, found.low, found.high)


def _pairs(
    some: Sequence[_Coded], coded: Sequence[_Coded], y: np.ndarray, whole: float
) -> list[PairEffect]:
    """Returns the interactions of pairs of options, the largest first."""
    mains = [one.columns() for one in coded]
    found = []
    for a, b in itertools.combinations(some, 2):
        added = (a.columns()[:, :, None] * b.columns()[:, None]).reshape(len(y), -1)
        found.append((a, b, *_explained(mains, added, y, whole)))
    out = []
    for (a, b, share, _), p in zip(found, holm([p for *_, p in found]), strict=True):
        cells = [
            [
                float(y[here].mean()) if (here := (a.codes == i) & (b.codes == j)).any() else None
                for j in range(len(b.levels))
            ]
            for i in range(len(a.levels))
        ]
        out.append(PairEffect(a.name, b.name, share, p, (a.levels, b.levels), cells))
    return sorted(out, key=lambda pair: -pair.share)


# --- importance
# --------------------------------------------------------------------------------------------------
def _importance(
    results: SweepResults, trials: Sequence[SweptTrial], names: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """Returns the importance of options by PED-ANOVA, and why there is none."""
    try:
        optuna = need("optuna", "the importance of options", "search")
    except ConfigError as error:
        return {}, [f"{error}. Effects are shown without it."]
    notes = []
    if len(trials) < FEW_TRIALS:
        notes.append(f"The importance of options is that of {len(trials)} trials, which are few.")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        direction = "minimize" if results.lower_is_better else "maximize"
        study = optuna.create_study(direction=direction)
        kinds = {name: _distribution(optuna, name, trials) for name in names}
        for trial in trials:
            params = {name: _given(trial.options.get(name), kinds[name]) for name in names}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=kinds, value=trial.value)
            )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError, TypeError) as error:
        return {}, [*notes, f"The importance of options is not known ({first_line(error)})."]
    finally:
        optuna.logging.set_verbosity(before)
    good = {name: float(value) for name, value in found.items() if math.isfinite(value)}
    return good, notes


def _given(value: Any, kind: Any) -> Any:
    return text_of(value) if hasattr(kind, "choices") else float(value)


def _distribution(optuna: Any, name: str, trials: Sequence[SweptTrial]) -> Any:
    """Returns what Optuna takes an option to be: a range of numbers, or choices."""
    values = [trial.options.get(name) for trial in trials]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return optuna.distributions.CategoricalDistribution(sorted({text_of(v) for v in values}))
    low, high = float(min(values)), float(max(values))
    wide = low > 0 and high / low >= WIDE
    return optuna.distributions.FloatDistribution(low, high, log=wide)
