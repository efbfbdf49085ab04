"""How many rows, or how many seeds, a difference of a known size needs, from earlier runs.

The variance of one row comes from the bootstrap of an earlier evaluation: `se² · rows`. Of a pair
of runs it is that of their difference on the same rows, which is what `compare` tests; of a single
run it is twice its own, as if a second run were right and wrong on other rows. Runs of one arm tell
the variance between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds
from jaxsft.evaluation.compare import Arm, Settings, arm_draws, shared_metrics, units_of

MOST_SEEDS = 1000
FEW_SEEDS, DRAWS = 20, 20_000  # up to how many runs power is by draws, and how many of those


def spread(arms: Sequence[Arm], number: str, settings: Settings) -> dict[str, Any]:
    """Returns what is known of the variance of a number, or of its difference between two arms.

    Returns: `rows`, `clusters`, `row_variance` of a difference on one row, `seed_variance` between
      the runs of an arm (None: no arm has two), `paired`, and `values` of the arms.

    Raises ConfigError where the number is not there, or has no spread.
    """
    bounds.check(settings.level, settings.replicates)
    ((name, (metric, _)),) = shared_metrics(arms, [number]).items()
    of = units_of(arms[0].runs[0].content, name)
    drawn = [arm_draws(arm, name, metric, of, settings)[number] for arm in arms]
    paired = len(arms) == 2
    means = [one.replicates.mean(0) for one in drawn]
    apart = means[1] - means[0] if paired else means[0]
    finite = apart[np.isfinite(apart)]
    variance = float(np.var(finite, ddof=1)) if len(finite) > 1 else math.nan
    if not variance > 0:
        raise ConfigError(
            f"metric={number}: does not vary over the rows of {arms[0].name}, so that nothing"
            " follows from it; take another run or another number"
        )
    several = [one.seed_variance() for one in drawn if len(one.values) > 1]
    return {
        "rows": of.rows,
        "clusters": of.clusters,
        "row_variance": variance * of.rows * (1 if paired else 2),
        "seed_variance": float(np.mean(several)) if several else None,
        "paired": paired,
        "values": [one.value for one in drawn],
    }


def power_at(effect: float, variance: float, level: float, freedom: float = math.inf) -> float:
    """Returns the probability that a difference `effect`, estimated with this variance, is told.

    By the normal distribution, or with degrees of freedom by Student's noncentral t.
    """
    shift = abs(effect) / math.sqrt(variance)
    if math.isinf(freedom):
        z = bounds.z_of(level)
        return float(special.ndtr(shift - z) + special.ndtr(-shift - z))
    t = bounds.t_of(level, freedom)
    upper, lower = special.nctdtr(freedom, shift, t), special.nctdtr(freedom, shift, -t)
    return float(1 - upper + lower)


def rows_for(effect: float, row_variance: float, power: float, level: float) -> int:
    """Returns the fewest rows with which a difference is told with this power."""
    needed = (bounds.z_of(level) + special.ndtri(power)) ** 2 * row_variance / effect**2
    return max(2, math.ceil(needed))


def seeds_for(
    effect: float, row_part: float, seed_variance: float, power: float, level: float
) -> int | None:
    """Returns the fewest runs for each arm with which a difference is told with this power.

    Args:
      row_part: the variance of the difference that the rows leave, whatever the number of runs.

    Returns: None where the rows alone leave too much.
    """
    for seeds in range(2, MOST_SEEDS + 1):
        if power_of_seeds(effect, row_part, seed_variance, seeds, level) >= power:
            return seeds
    return None


def power_of_seeds(
    effect: float, row_part: float, seed_variance: float, seeds: int, level: float
) -> float:
    """Returns the probability that a difference between two arms with so many runs each is told.

    Of few runs the variance between them is badly known, and with it the degrees of freedom that
    `compare` takes: then it is the share of draws of both variances and of the difference.
    """
    variance, freedom = of_seeds(row_part, seed_variance, seeds)
    if variance == 0:
        return 1.0
    if seeds > FEW_SEEDS or seed_variance == 0:
        return power_at(effect, variance, level, freedom)
    rng = np.random.default_rng(0)
    difference = effect + math.sqrt(variance) * rng.normal(size=DRAWS)
    parts = seed_variance / seeds * rng.chisquare(seeds - 1, (2, DRAWS)) / (seeds - 1)
    seen = row_part + parts.sum(0)
    t = special.stdtrit(seen**2 / ((parts**2).sum(0) / (seeds - 1)), (1 + level) / 2)
    return float(np.mean(abs(difference) > t * np.sqrt(seen)))


def of_seeds(row_part: float, seed_variance: float, seeds: int) -> tuple[float, float]:
    """Returns the variance of a difference of two arms with so many runs each, and its degrees of
    freedom (Satterthwaite, 1946; those of the rows count as without end).
    """
    part = 2 * seed_variance / seeds
    variance = row_part + part
    return variance, variance**2 / (part**2 / (2 * (seeds - 1))) if part > 0 else math.inf


def needed(
    found: dict[str, Any], effect: float, power: float, level: float
) -> dict[str, float | int | None]:
    """Returns what a difference needs: `rows`, `seeds`, and the power and the smallest difference
    with the rows that there are.

    Raises ConfigError for an impossible effect or power.
    """
    if not (math.isfinite(effect) and effect > 0):
        raise ConfigError(f"effect={effect}: give a difference above 0, such as 0.02")
    if not 0.5 <= power < 1:
        raise ConfigError(f"power={power}: give a probability from 0.5 up to 1, such as 0.8")
    row_part = found["row_variance"] / found["rows"]
    quantiles = bounds.z_of(level) + float(special.ndtri(power))
    out: dict[str, float | int | None] = {
        "rows": rows_for(effect, found["row_variance"], power, level),
        "power_now": power_at(effect, row_part, level),
        "smallest_now": quantiles * math.sqrt(row_part),
        "seeds": None,
    }
    if found["seed_variance"] is not None:
        out["seeds"] = seeds_for(effect, row_part, found["seed_variance"], power, level)
    return out
