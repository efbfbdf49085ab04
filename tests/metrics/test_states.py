"""Metric states against scikit-learn and numpy; merging is counting over everything."""

import math

import jax
import numpy as np
import pytest
from jaxsft.metrics.states import Confusion, TokenStatistics
from sklearn import metrics as sklearn

from jaxsft.metrics import states

RNG = np.random.default_rng(0)
GOLD = {
    "all classes": (RNG.integers(0, 4, 60), RNG.integers(0, 4, 60), 4),
    "one never predicted, one never there": (RNG.integers(0, 3, 60), RNG.choice([0, 1, 3], 60), 4),
    "two that do not occur": (RNG.choice([1, 3], 30), RNG.choice([1, 3], 30), 5),
    "all wrong": (np.zeros(5, int), np.ones(5, int), 2),
    "one row": (np.array([2]), np.array([2]), 3),
}


@pytest.mark.parametrize("case", GOLD)
def test_confusion(case):  # guards E4
    gold, predicted, classes = GOLD[case]
    state = jax.jit(Confusion.update, static_argnums=3)(
        gold, predicted, np.ones(len(gold), bool), classes
    )
    np.testing.assert_array_equal(
        state.matrix, sklearn.confusion_matrix(gold, predicted, labels=range(classes))
    )
    found = states.widen(state).compute()
    assert found["rows"] == len(gold) and found["accuracy"] == pytest.approx(
        sklearn.accuracy_score(gold, predicted), abs=1e-15
    )
    for average in ("macro", "micro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(
            gold, predicted, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(
            [found[f"{m}_{average}"] for m in ("precision", "recall", "f1")], expected, atol=1e-14
        )


def test_what_is_masked_is_not_counted():
    gold, predicted = RNG.integers(0, 3, (2, 4, 5))
    mask = RNG.random((4, 5)) < 0.5
    state = Confusion.update(gold, np.where(mask, predicted, 2), mask, 3)
    np.testing.assert_array_equal(
        state.matrix, sklearn.confusion_matrix(gold[mask], predicted[mask], labels=range(3))
    )
    empty = states.widen(Confusion.update(gold, predicted, np.zeros_like(mask), 3)).compute()
    assert empty["rows"] == 0 and math.isnan(empty["accuracy"])
    nll, correct = RNG.exponential(size=(4, 5)).astype(np.float32), RNG.random((4, 5)) < 0.5
    found = states.widen(
        TokenStatistics.update(np.where(mask, nll, np.nan), correct, mask)
    ).compute()
    assert found["tokens"] == mask.sum() and found["token_accuracy"] == correct[mask].mean()
    assert found["perplexity"] == pytest.approx(np.exp(nll[mask].mean()), rel=1e-6)


@pytest.mark.parametrize("cuts", [[7], [1, 2, 19], [0, 10, 10]])
def test_merging_parts_is_counting_everything(cuts):  # guards E1, E4
    gold, predicted = RNG.integers(0, 3, (2, 20))
    nll, correct, mask = (
        RNG.integers(0, 64, 20).astype(np.float32) / 16,
        RNG.random(20) < 0.5,
        RNG.random(20) < 0.8,
    )
    whole = {
        "c": Confusion.update(gold, predicted, mask, 3),
        "t": TokenStatistics.update(nll, correct, mask),
    }
    merged = None
    for g, p, n, c, m in zip(
        *(np.split(x, cuts) for x in (gold, predicted, nll, correct, mask)), strict=True
    ):
        merged = states.merge(
            merged,
            states.widen({"c": Confusion.update(g, p, m, 3), "t": TokenStatistics.update(n, c, m)}),
        )
    assert {k: v.compute() for k, v in merged.items()} == {
        k: v.compute() for k, v in states.widen(whole).items()
    }


def test_sums_are_merged_in_wide_types():  # guards A12
    """A million counts over a large one, and small losses over a large sum, lose nothing."""
    one = TokenStatistics(np.float32(0.25), np.int32(1), np.int32(2**30))
    total = None
    for _ in range(8):
        total = states.merge(total, states.widen(one))
    assert total.count == 2**33 and total.nll.dtype == np.float64
    assert (
        states.merge(states.widen(TokenStatistics(np.float32(2**25), 0, 1)), states.widen(one)).nll
        == 2**25 + 0.25
    )


def test_perplexity():
    found = TokenStatistics(np.float64(6 * math.log(3)), 2, 6).compute()
    assert found == {
        "perplexity": pytest.approx(3, rel=1e-12),
        "token_accuracy": 2 / 6,
        "tokens": 6,
    }
    assert TokenStatistics(1e6, 0, 1).compute()["perplexity"] == math.inf
    assert TokenStatistics(math.inf, 0, 1).compute()["perplexity"] == math.inf
    nothing = TokenStatistics(0.0, 0, 0).compute()
    assert (
        nothing["tokens"] == 0
        and math.isnan(nothing["perplexity"])
        and math.isnan(nothing["token_accuracy"])
    )


def test_a_loss_that_is_no_number_stays_one():  # guards E10
    assert math.isnan(TokenStatistics(math.nan, 0, 5).compute()["perplexity"])
