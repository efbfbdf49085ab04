"""Power against statsmodels, and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxsft.errors import ConfigError
from jaxsft.evaluation import power
from jaxsft.evaluation.compare import Arm, Settings
from tests.evaluation import two_runs
from tools import power_simulation


def test_rows_and_power_are_statsmodels():
    smp = pytest.importorskip("statsmodels.stats.power")
    rows = power.rows_for(0.02, 0.16, 0.8, 0.95)
    expected = smp.NormalIndPower(ddof=0).solve_power(0.02 / 0.4, alpha=0.05, power=0.8, ratio=0)
    assert rows == math.ceil(expected)
    assert power.power_at(0.02, 0.16 / rows, 0.95) == pytest.approx(0.8, abs=1e-3)
    # two arms of 5 runs each: a t test with 8 degrees of freedom
    variance, freedom = power.of_seeds(0.0, 0.01, 5)
    assert freedom == pytest.approx(8)
    assert power.power_at(0.2, variance, 0.95, freedom) == pytest.approx(
        smp.TTestIndPower().power(2.0, 5, 0.05), abs=1e-6
    )


def test_the_fewest_seeds():
    seeds = power.seeds_for(0.2, 0.0, 0.01, 0.8, 0.95)
    enough, fewer = (power.power_of_seeds(0.2, 0.0, 0.01, seeds - i, 0.95) for i in (0, 1))
    assert enough >= 0.8 > fewer
    assert power.seeds_for(0.01, 0.02, 0.01, 0.8, 0.95) is None
    assert power.seeds_for(0.2, 0.0, 0.0, 0.8, 0.95) == 2


@pytest.mark.parametrize("seeds", [3, 10])
def test_power_of_few_seeds_is_that_of_welchs_test(seeds):
    rng = np.random.default_rng(1)
    x = 0.1 * rng.normal(size=(2, 4000, seeds)) + np.array([0, 0.15])[:, None, None]
    told = np.mean(stats.ttest_ind(*x, axis=-1, equal_var=False).pvalue < 0.05)
    assert power.power_of_seeds(0.15, 0.0, 0.01, seeds, 0.95) == pytest.approx(told, abs=0.03)


def test_variance_of_a_run_and_of_a_pair():
    one, other = (two_runs.labels(2000, 0.8, seed) for seed in (1, 2))
    arms = [Arm(n, (two_runs.in_memory(n, o),)) for n, o in (("a", one), ("b", other))]
    single = power.spread(arms[:1], "accuracy", Settings(replicates=2000))
    right = [o["label"] == o["predicted"] for o in (one, other)]
    assert single["row_variance"] == pytest.approx(2 * right[0].var(), rel=0.1)
    pair = power.spread(arms, "accuracy", Settings(replicates=2000))
    apart = right[1].astype(float) - right[0]
    assert pair["paired"] and pair["row_variance"] == pytest.approx(apart.var(), rel=0.1)
    assert single["seed_variance"] is None


def test_what_cannot_be_answered():
    found = {"rows": 100, "row_variance": 1.0, "seed_variance": None}
    for given, message in (
        ((0.0, 0.8), "effect=0.0"), ((math.nan, 0.8), "effect=nan"), ((0.1, 1.0), "power=1.0")
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            power.needed(found, *given, 0.95)
    all_right = two_runs.labels(50, 1.1)
    arm = Arm("a", (two_runs.in_memory("a", all_right),))
    with pytest.raises(ConfigError, match="does not vary"):
        power.spread([arm], "accuracy", Settings())


@pytest.mark.slow
@pytest.mark.parametrize("name", power_simulation.STUDIES)
def test_a_real_difference_is_told_as_often_as_foretold(name):
    study = power_simulation.STUDIES[name]
    told = power_simulation.told(study, study.effect, trials=150, replicates=200)
    # five points, and two standard errors of 150 trials
    assert abs(told - power_simulation.foretold(study)) < 0.05 + 2 * np.sqrt(0.25 / 150)
