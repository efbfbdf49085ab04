"""The plan of packed rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import packing, pipeline


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 32), max_size=200), st.integers(0, 5), st.integers(3, 50))
def test_every_example_has_one_place(lengths, seed, window):  # guards B6
    """In any window, no row is longer than allowed."""
    lengths, before = np.array(lengths, np.int64), packing.WINDOW
    packing.WINDOW = window
    try:
        plan = packing.plan(lengths, 32, seed=seed)
    finally:
        packing.WINDOW = before
    assert sorted(plan.members) == list(range(len(lengths)))
    assert plan.offsets[0] == 0 and plan.offsets[-1] == len(lengths) and (np.diff(plan.offsets) > 0).all()
    for i in range(plan.rows):
        assert 0 < lengths[plan.row(i)].sum() <= 32 and len(plan.row(i)) <= plan.texts
    assert plan.tokens == lengths.sum()


def test_best_fit_by_hand():
    """Longest first, each into the fullest row that still takes it: 5 | 4 takes 3, not the 6 places beside nothing."""
    plan = packing.plan(np.array([7, 3, 6, 2, 1, 1]), 10, seed=0)
    rows = sorted(sorted([7, 3, 6, 2, 1, 1][e] for e in plan.row(i)) for i in range(plan.rows))
    assert rows == [[1, 1, 2, 6], [3, 7]]
    assert plan.as_dict() == {"rows": 2, "row_length": 10, "examples": 6, "max_texts_per_row": 4, "fill": 1.0, "real": 20, "padded": 0}


def test_same_seed_same_plan():  # guards F8
    lengths = np.random.default_rng(0).integers(1, 33, 500)
    one, two, other = (packing.plan(lengths, 32, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.members, two.members)
    np.testing.assert_array_equal(one.offsets, two.offsets)
    assert (one.members != other.members).any()


def test_without_packing_rows_are_in_order():
    plan = packing.plan(np.array([3, 1, 2]), 8, seed=7, packing=False)
    assert [plan.row(i).tolist() for i in range(plan.rows)] == [[0], [1], [2]] and plan.texts == 1


@pytest.mark.parametrize("longest, expected", [(1, 32), (32, 32), (33, 64), (99, 100), (1000, 100)])
def test_row_length(longest, expected):  # guards H11, D13
    assert pipeline.row_length(longest, 100, "auto") == expected
    assert pipeline.row_length(longest, 100, 48) == 48
