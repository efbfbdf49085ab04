"""Comparisons of arms: how often they are told apart, and what their verdicts say."""

import dataclasses
import math

import numpy as np
import pytest

from jaxsft.evaluation.compare import Arm, Drawn, Settings
from jaxsft.sweeps import arm_tests
from jaxsft.sweeps.arm_tests import ArmComparison
from tests.evaluation.two_runs import in_memory, labels
from tools import study_simulation

pytestmark = pytest.mark.heart


def told(p: float, n: int) -> float:
    """Returns the count that so many studies with this probability exceed once in 10,000."""
    return n * p + 3.7 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize(
    "name", ["two arms, three seeds, noisy seeds", "two arms, five seeds", "two arms, two seeds"]
)
def test_a_null_effect_is_rarely_told_and_a_real_one_as_foretold(name):
    """By counts that chance exceeds once in 10,000; the long form is tools/study_simulation.py."""
    study, n = study_simulation.STUDIES[name], 60
    null = study_simulation.share_told(study, 0.0, n, 100) * n
    assert null <= told(0.06, n)
    real = study_simulation.share_told(study, study.effect, n, 100) * n
    power = study_simulation.foretold(study)
    assert n - told(1 - power + 0.05, n) <= real <= told(power + 0.05, n)


def comparison(difference: float, error: float, seeds: int = 3, **more) -> ArmComparison:
    base = ArmComparison("a", "b", "test", 0.5, 0.5 + difference, difference, seeds)
    found = arm_tests._with_bounds(base, error, 2 * (seeds - 1), 0.95)
    of_runs = error**2 * seeds / 2
    return dataclasses.replace(found, of_runs=of_runs, test="t of rows and seeds", **more)


def test_a_verdict_holds_for_the_whole_family():
    """A p of 0.02 is enough alone, and not beside three others."""
    (alone,) = arm_tests.judged([comparison(0.1, 0.03)], False, 0.95)
    assert alone.p == alone.p_holm == pytest.approx(0.0288, abs=1e-3)
    assert (alone.verdict, alone.told()) == ("better", "b is better")
    four = arm_tests.judged([comparison(0.1, 0.03)] + [comparison(0.0, 0.03)] * 3, False, 0.95)
    assert four[0].p_holm == pytest.approx(4 * alone.p) and four[0].verdict == "needs seeds"
    (less,) = arm_tests.judged([comparison(0.1, 0.03)], True, 0.95)
    assert (less.verdict, less.told()) == ("worse", "a is better")


def test_a_verdict_says_how_many_seeds_are_needed():
    (near,) = arm_tests.judged([comparison(0.06, 0.03)], False, 0.95)
    assert (
        near.verdict == "needs seeds"
        and near.told() == f"needs {near.more_seeds} more seeds an arm"
    )
    needed = near.seeds + near.more_seeds
    assert arm_tests.power_with(near, 0.06, needed, 0.95) >= 0.8
    assert arm_tests.power_with(near, 0.06, needed - 1, 0.95) < 0.8
    (far,) = arm_tests.judged([comparison(0.01, 0.03)], False, 0.95)
    assert (far.verdict, far.told()) == ("tied", "tied") and far.more_seeds > arm_tests.MOST_MORE


def test_the_smallest_difference_that_matters_decides_what_is_tied():
    (tied,) = arm_tests.judged([comparison(0.002, 0.003)], False, 0.95, effect=0.05)
    assert tied.verdict == "tied" and tied.more_seeds is None
    (open_still,) = arm_tests.judged([comparison(0.002, 0.03)], False, 0.95, effect=0.05)
    assert open_still.verdict == "needs seeds"


def test_the_least_difference_is_told_with_the_power_that_it_says():
    (pair,) = arm_tests.judged([comparison(0.01, 0.03, seeds=10)], False, 0.95)
    least = pair.minimum_detectable
    assert arm_tests.power_with(pair, least, pair.seeds, 0.95) == pytest.approx(0.8, abs=0.03)


def test_one_seed_an_arm_has_no_verdict():
    """Two runs that differ on many rows say nothing of what another seed would do."""
    arms = [
        Arm(n, (in_memory(n, labels(share=s, seed=i)),))
        for i, (n, s) in enumerate([("a", 0.5), ("b", 0.9)])
    ]
    found = arm_tests.tested(arms, "accuracy", [(0, 1)], "test", Settings(numbers=("accuracy",)))
    (pair,) = arm_tests.judged(found, False, 0.95)
    assert pair.p < 1e-6 and "these runs alone" in pair.test
    assert (pair.verdict, pair.more_seeds) == ("needs seeds", 2)


def test_two_seeds_are_never_surer_than_the_rows_alone():
    rng = np.random.default_rng(0)
    a, b = (Drawn(np.array([v, v]), v + 0.1 * rng.normal(size=(2, 500))) for v in (0.5, 0.6))
    spread = arm_tests.spread_of(a, b, 100)
    assert spread.variance >= spread.rows > 0 and spread.of_seeds == 0


def test_the_variance_has_a_part_that_seeds_do_not_lessen():
    """Arms that differ in what they do on each row stay uncertain, however many seeds they have."""
    settings = Settings(replicates=400, numbers=("score",))
    stays = []
    for sd in (0.0, 1.0):
        study = study_simulation.Simulated(seeds=20, rows=300, seed_sd=0.0, arm_rows_sd=sd)
        arms = study_simulation.drawn(study, 0.0, np.random.default_rng(1))
        (pair,) = arm_tests.tested(arms, "score", [(0, 1)], "test", settings)
        stays.append(pair.stays)
    assert stays[1] == pytest.approx(2 / 300, rel=0.25) and stays[0] < 0.1 * stays[1]
