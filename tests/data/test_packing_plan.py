"""The plan of packed rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.data import long_texts, packing
from jaxsft.data.split_ledger import packing_facts


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
    assert (
        plan.offsets[0] == 0
        and plan.offsets[-1] == len(lengths)
        and (np.diff(plan.offsets) > 0).all()
    )
    for i in range(plan.rows):
        assert 0 < lengths[plan.row(i)].sum() <= 32 and len(plan.row(i)) <= plan.texts
    assert plan.tokens == lengths.sum()


def test_best_fit_by_hand():
    """Longest first, each into the fullest row that still takes it: 5 | 4 takes 3, not the 6 places
    beside nothing.
    """
    plan = packing.plan(np.array([7, 3, 6, 2, 1, 1]), 10, seed=0)
    rows = sorted(sorted([7, 3, 6, 2, 1, 1][e] for e in plan.row(i)) for i in range(plan.rows))
    assert rows == [[1, 1, 2, 6], [3, 7]]
    assert packing_facts(plan) == {
        "rows": 2,
        "row_length": 10,
        "examples": 6,
        "max_texts_per_row": 4,
        "fill": 1.0,
        "real": 20,
        "padded": 0,
    }


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
    assert long_texts.row_length(longest, 100, "auto") == expected
    assert long_texts.row_length(longest, 100, 48) == 48


# --- two streams
# --------------------------------------------------------------------------------------------------
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 32), st.integers(1, 20)), max_size=150),
    st.integers(0, 5),
    st.integers(3, 50),
)
def test_examples_of_two_streams_fit_in_both(sizes, seed, window):  # guards B6
    """Every example has one place, and no row is longer than allowed in either stream."""
    lengths, sources = np.array(sizes, np.int64).reshape(-1, 2).T
    before = packing.WINDOW
    packing.WINDOW = window
    try:
        plan = packing.plan(lengths, 32, seed=seed, source_lengths=sources, source_length=20)
    finally:
        packing.WINDOW = before
    assert sorted(plan.members) == list(range(len(lengths)))
    assert (
        plan.offsets[0] == 0
        and plan.offsets[-1] == len(lengths)
        and (np.diff(plan.offsets) > 0).all()
    )
    for i in range(plan.rows):
        assert (
            0 < lengths[plan.row(i)].sum() <= 32
            and 0 < sources[plan.row(i)].sum() <= 20
            and len(plan.row(i)) <= plan.texts
        )
    assert (plan.tokens, plan.source_tokens) == (lengths.sum(), sources.sum())
    source = packing_facts(plan)["source"]
    assert source["real"] + source["padded"] == plan.rows * 20


def test_two_streams_by_hand():
    """8+4 of 10 and 9 takes 2+5, though 1+1 would leave less space in the first stream; nothing
    takes 3+6.
    """
    lengths, sources = np.array([8, 2, 3, 1]), np.array([4, 5, 6, 1])
    plan = packing.plan(lengths, 10, seed=0, source_lengths=sources, source_length=9)
    assert sorted(sorted(plan.row(i).tolist()) for i in range(plan.rows)) == [[0, 1], [2, 3]]
    facts = packing_facts(plan)
    assert facts["fill"] == 14 / 20 and facts["source"] == {
        "row_length": 9,
        "fill": 16 / 18,
        "real": 16,
        "padded": 2,
    }


def test_the_plan_of_two_streams_is_a_function_of_lengths_and_seed():  # guards F8
    rng = np.random.default_rng(0)
    lengths, sources = rng.integers(1, 33, 500), rng.integers(1, 65, 500)
    made = lambda seed, order=slice(None): packing.plan(
        lengths[order], 32, seed=seed, source_lengths=sources[order], source_length=64
    )
    np.testing.assert_array_equal(made(3).members, made(3).members)
    np.testing.assert_array_equal(made(3).offsets, made(3).offsets)
    assert (made(3).members != made(4).members).any()
    least = max(lengths.sum() / 32, sources.sum() / 64)
    assert made(3).rows <= 1.3 * least


def test_a_source_that_does_not_fit_is_never_cut_here():  # guards B6
    for sources in ([3, 65], [0, 5]):
        with pytest.raises(ValueError, match="of sources from"):
            packing.plan(
                np.array([1, 1]), 8, seed=0, source_lengths=np.array(sources), source_length=64
            )
