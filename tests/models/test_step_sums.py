"""Sums that a step reports, against scikit-learn and numpy; merging is counting over everything."""

import math

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxsft.models import step_sums
from jaxsft.models.step_sums import Hits, LabelSums, SquaredErrorSums, TokenSums

RNG = np.random.default_rng(0)


def brief(state):
    return step_sums.widen(state).brief()


def test_what_is_masked_is_not_counted():
    gold, predicted = RNG.integers(0, 3, (2, 4, 5))
    mask = RNG.random((4, 5)) < 0.5
    found = brief(jax.jit(Hits.update)(gold == predicted, mask))
    assert found == {"accuracy": sklearn.accuracy_score(gold[mask], predicted[mask])}
    assert math.isnan(brief(Hits.update(gold == predicted, np.zeros_like(mask)))["accuracy"])
    nll, correct = RNG.exponential(size=(4, 5)).astype(np.float32), RNG.random((4, 5)) < 0.5
    found = brief(TokenSums.update(np.where(mask, nll, np.nan), correct, mask))
    assert found["tokens"] == mask.sum() and found["token_accuracy"] == correct[mask].mean()
    assert found["perplexity"] == pytest.approx(np.exp(nll[mask].mean()), rel=1e-6)
    found = brief(SquaredErrorSums.update(nll, np.where(mask, 1, np.nan), mask))
    assert found["mse_scaled"] == pytest.approx(np.square(nll[mask] - 1).mean(), rel=1e-6)


def test_labels_of_texts_that_are_there():  # guards E1
    gold, given = RNG.random((2, 4, 5, 3)) < 0.4
    present = RNG.random((4, 5)) < 0.7
    expected = sklearn.f1_score(gold[present], given[present], average="micro")
    assert brief(LabelSums.update(gold, given, present))["f1_micro"] == pytest.approx(expected)
    nothing = LabelSums.update(gold & False, given & False, present)
    assert math.isnan(brief(nothing)["f1_micro"])


@pytest.mark.parametrize("cuts", [[7], [1, 2, 19], [0, 10, 10]])
def test_merging_parts_is_counting_everything(cuts):  # guards E1, E4
    gold, predicted = RNG.integers(0, 3, (2, 20))
    nll, correct, mask = (
        RNG.integers(0, 64, 20).astype(np.float32) / 16,
        RNG.random(20) < 0.5,
        RNG.random(20) < 0.8,
    )
    sums = lambda g, p, n, c, m: {
        "h": Hits.update(g == p, m),
        "t": TokenSums.update(n, c, m),
        "l": LabelSums.update((g == 1)[:, None], (p == 1)[:, None], m),
        "e": SquaredErrorSums.update(n, g, m),
    }
    merged = None
    for parts in zip(
        *(np.split(x, cuts) for x in (gold, predicted, nll, correct, mask)), strict=True
    ):
        merged = step_sums.merge(merged, step_sums.widen(sums(*parts)))
    whole = step_sums.widen(sums(gold, predicted, nll, correct, mask))
    assert {k: v.brief() for k, v in merged.items()} == {k: v.brief() for k, v in whole.items()}


def test_sums_are_merged_in_wide_types():  # guards A12
    """A million counts over a large one, and small losses over a large sum, lose nothing."""
    one = TokenSums(np.float32(0.25), np.int32(1), np.int32(2**30))
    total = None
    for _ in range(8):
        total = step_sums.merge(total, step_sums.widen(one))
    assert total.count == 2**33 and total.nll.dtype == np.float64
    large = step_sums.widen(TokenSums(np.float32(2**25), 0, 1))
    assert step_sums.merge(large, step_sums.widen(one)).nll == 2**25 + 0.25


def test_perplexity():
    assert TokenSums(np.float64(6 * math.log(3)), 2, 6).brief() == {
        "perplexity": pytest.approx(3, rel=1e-12),
        "token_accuracy": 2 / 6,
        "tokens": 6,
    }
    assert TokenSums(1e6, 0, 1).brief()["perplexity"] == math.inf
    assert TokenSums(math.inf, 0, 1).brief()["perplexity"] == math.inf
    nothing = TokenSums(0.0, 0, 0).brief()
    assert nothing["tokens"] == 0
    assert math.isnan(nothing["perplexity"]) and math.isnan(nothing["token_accuracy"])


def test_a_loss_that_is_no_number_stays_one():  # guards E10
    assert math.isnan(TokenSums(math.nan, 0, 5).brief()["perplexity"])
