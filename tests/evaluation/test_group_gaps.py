"""How far groups are apart, with bounds that hold after having looked at all."""

import numpy as np
import pytest

from jaxsft.evaluation import group_gaps


def drawn_means(rows, replicates, seed):
    """Means of `[groups, n]` and their replicates, each group drawn by itself."""
    counts = np.random.default_rng(seed).poisson(1, (replicates, *rows.shape))
    return rows.mean(1), ((counts * rows).sum(2) / counts.sum(2)).T


def test_gap_of_groups():
    rows = np.random.default_rng(0).normal([[0.0], [1.0], [3.0]], 1, (3, 200))
    values, drawn = drawn_means(rows, 400, 1)
    found = group_gaps.gaps("abc", values, drawn, [200] * 3, False, 0.95)
    assert (found["best"], found["worst"], found["groups"]) == ("c", "a", 3)
    gap, mean = found["best_minus_worst"], found["best_minus_mean"]
    assert gap["value"] == pytest.approx(values[2] - values[0])
    assert mean["value"] == pytest.approx(values[2] - values.mean())
    assert gap["low"] < 3 < gap["high"] and gap["high"] - gap["low"] < 0.7
    # less is better: the same distance between the other two ends
    less = group_gaps.gaps("abc", values, drawn, [200] * 3, True, 0.95)
    assert (less["best"], less["worst"]) == ("a", "c")
    assert less["best_minus_worst"]["value"] == pytest.approx(gap["value"])
    assert less["best_minus_mean"]["value"] == pytest.approx(values.mean() - values[0])


def test_equal_groups_have_a_gap_of_0_within_the_bounds():
    """The best minus the worst of 10 equal groups is far from 0, and its plain bounds leave 0 out
    nearly always; the corrected ones hold it in at least as many trials as they claim."""
    held, plain = 0, 0
    for trial in range(60):
        rows = np.random.default_rng([1, trial]).normal(0, 1, (10, 60))
        values, drawn = drawn_means(rows, 200, trial)
        found = group_gaps.gaps("abcdefghij", values, drawn, [60] * 10, False, 0.95)
        held += found["best_minus_worst"]["low"] == 0 == found["best_minus_mean"]["low"]
        best, worst = values.argmax(), values.argmin()
        plain += np.quantile(drawn[best] - drawn[worst], 0.025) <= 0
    assert held >= 54 and plain < 30


@pytest.mark.parametrize(
    ("drawn", "units", "reason"),
    [
        (np.ones((2, 50)), [9, 9], "all replicates of a group are alike"),
        (np.random.default_rng(0).normal(size=(2, 50)), [9, 1], "fewer than two rows"),
        (np.full((2, 50), np.nan), [9, 9], "mostly undefined"),
    ],
)
def test_no_bound_where_there_is_no_spread(drawn, units, reason):
    found = group_gaps.gaps("ab", np.array([1.0, 0.5]), drawn, units, False, 0.95)
    gap = found["best_minus_worst"]
    assert gap["value"] == 0.5 and gap["low"] is None and reason in gap["reason"]
