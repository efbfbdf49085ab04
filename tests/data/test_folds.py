"""Folds have the properties that scikit-learn's splitters promise, and more: nothing hangs on the
order of the rows, and equal texts are never parted.
"""

from __future__ import annotations

import numpy as np
import pytest

from jaxsft.data import folds
from jaxsft.data.records import NUMBERS, TEXT, Regression, Text
from jaxsft.errors import ConfigError

N = 300


def labels(n: int = N, seed: int = 0) -> list[list[str]]:
    drawn = np.random.default_rng(seed).choice(4, n, p=[0.5, 0.3, 0.15, 0.05])
    return [[f"label {x}"] for x in drawn]


def units(n: int = N, groups: list[str] | None = None) -> folds.FoldUnits:
    return folds.fold_units([f"text {i}" for i in range(n)], labels(n), groups)


@pytest.mark.parametrize("k", [2, 5, 7])
def test_each_row_is_held_out_once_and_labels_are_even_as_those_of_scikit_learn(k):
    of_row = folds.assigned(units(), np.arange(N), k, 0)
    sizes = np.bincount(of_row, minlength=k)
    assert len(of_row) == N and np.ptp(sizes) <= 1
    names = np.array([one[0] for one in labels()])
    counts = lambda fold_of: np.array(
        [np.bincount(fold_of[names == name], minlength=k) for name in np.unique(names)]
    )
    assert np.ptp(counts(of_row), axis=1).max() <= 1
    splitter = pytest.importorskip("sklearn.model_selection").StratifiedKFold(
        k, shuffle=True, random_state=0
    )
    theirs = np.zeros(N, int)
    for i, (_, held) in enumerate(splitter.split(np.zeros(N), names)):
        theirs[held] = i
    assert np.ptp(counts(of_row), axis=1).max() <= np.ptp(counts(theirs), axis=1).max()


def test_groups_are_whole_and_labels_stay_as_even_as_those_of_scikit_learn():
    groups = [f"group {x}" for x in np.random.default_rng(1).integers(0, 40, N)]
    of_row = folds.assigned(units(groups=groups), np.arange(N), 5, 0)
    for group in set(groups):
        assert len({f for f, g in zip(of_row, groups, strict=True) if g == group}) == 1
    names = np.array([one[0] for one in labels()])
    uneven = lambda fold_of: sum(
        np.ptp(np.bincount(fold_of[names == name], minlength=5)) for name in np.unique(names)
    )
    splitter = pytest.importorskip("sklearn.model_selection").StratifiedGroupKFold(
        5, shuffle=True, random_state=0
    )
    theirs = np.zeros(N, int)
    for i, (_, held) in enumerate(splitter.split(np.zeros(N), names, groups)):
        theirs[held] = i
    assert uneven(of_row) <= 1.5 * uneven(theirs)
    assert np.ptp(np.bincount(of_row)) <= 12


def test_rows_of_equal_text_and_of_one_group_are_one_unit_however_they_hang_together():
    found = folds.fold_units(
        ["a", "b", "b", "c", "d", "e"], [["x"]] * 6, ["1", "1", "2", "2", "3", "4"]
    )
    assert found.of_row.tolist() == [0, 0, 0, 0, 1, 2]
    assert found.sizes.tolist() == [4, 1, 1]


def test_the_order_of_the_rows_changes_nothing_and_another_seed_does():
    texts, order = [f"text {i}" for i in range(N)], np.random.default_rng(3).permutation(N)
    turned = folds.fold_units([texts[i] for i in order], [labels()[i] for i in order])
    one = folds.assigned(units(), np.arange(N), 5, 0)
    other = folds.assigned(turned, np.arange(N), 5, 0)
    assert (other == one[order]).all()
    assert (folds.assigned(units(), np.arange(N), 5, 1) != one).any()


def test_inner_folds_divide_some_of_the_rows():
    rows = np.flatnonzero(folds.assigned(units(), np.arange(N), 5, 0) != 0)
    inner = folds.assigned(units(), rows, 3, 9)
    assert len(inner) == len(rows) and np.ptp(np.bincount(inner)) <= 1


def test_subsets_are_nested_keep_the_shares_of_labels_and_hold_whole_groups():
    groups = [f"group {i // 2}" for i in range(N)]
    whole, rows = units(groups=groups), np.arange(10, N)
    small, large = (folds.subset(whole, rows, f, 0) for f in (0.2, 0.5))
    assert set(small) < set(large) < set(rows.tolist())
    assert len(small) == pytest.approx(0.2 * len(rows), abs=2)
    assert (folds.subset(whole, rows, 1.0, 0) == rows).all()
    assert {i ^ 1 for i in small.tolist()} == set(small.tolist())  # both rows of a group
    share = lambda of: np.mean([labels()[i] == ["label 0"] for i in of])
    plain = folds.subset(units(), np.arange(N), 0.3, 0)
    assert share(plain) == pytest.approx(share(range(N)), abs=0.02)
    assert len(folds.subset(units(), np.arange(N), 1e-6, 0)) == 1


def test_more_folds_than_what_may_be_parted_are_an_error():
    with pytest.raises(ConfigError, match="there are 2 rows, or groups"):
        folds.assigned(units(4, ["a", "a", "b", "b"]), np.arange(4), 3, 0)


def test_numbers_are_spread_by_tenths_and_a_record_without_any_has_nothing():
    numbers = [
        Regression(text=f"text {i}", text_pair=None, targets=(float(i),)) for i in range(100)
    ]
    found = folds.fold_labels(numbers, NUMBERS)
    assert found[0] == [(0, 0)] and found[99] == [(0, 9)] and len({x[0] for x in found}) == 10
    whole = folds.fold_units([r.text for r in numbers], found)
    of_row = folds.assigned(whole, np.arange(100), 5, 0)
    means = [np.mean(np.flatnonzero(of_row == fold)) for fold in range(5)]
    assert max(means) - min(means) < 4
    assert folds.fold_labels([Text(text="a")], TEXT) == [[]]
