"""Detection of rows out of scope: by scikit-learn's curve."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

sklearn = pytest.importorskip("sklearn.metrics")
special = pytest.importorskip("scipy.special")
METRIC = METRICS["out_of_scope"]


def outputs_of(logits, outside):
    arrays = {"logits": logits, "out_of_scope": outside}
    return Outputs(np.arange(len(outside)), arrays, [f"l{i}" for i in range(logits.shape[1])])


@st.composite
def rows(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(2, 60))
    pool = np.round(rng.normal(size=(draw(st.integers(1, 20)), 4)), 1)
    outside = rng.random(size) < 0.4
    outside[:2] = True, False
    return pool[rng.integers(0, len(pool), size)], outside


def compare(logits, outside):
    found = measure(METRIC, outputs_of(logits, outside))
    score = 1 - special.softmax(logits, -1).max(-1)
    own = METRIC.observe(outputs_of(logits, outside))["score"]
    np.testing.assert_allclose(own, score, atol=1e-14)
    fpr, tpr, _ = sklearn.roc_curve(outside, own, drop_intermediate=False)
    assert found["oos_auroc"] == pytest.approx(sklearn.roc_auc_score(outside, own), abs=1e-12)
    assert found["oos_fpr95"] == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows())
def test_numbers_are_those_of_the_curve(case):
    compare(*case)


def test_numbers_of_thousands_of_rows():
    rng = np.random.default_rng(0)
    outside = rng.random(20_000) < 0.2
    compare(rng.normal(size=(20_000, 8)) * np.where(outside, 1, 3)[:, None], outside)


def test_a_share_of_exactly_95_percent_is_enough():
    """19 of 20 rows out of scope have the highest scores, then one row in scope, then the last."""
    confidence = np.concatenate([np.zeros(19), [1.0], [2.0], [3.0]])
    logits = np.stack([confidence, np.zeros(22)], -1)
    outside = np.array([True] * 19 + [False, True, False])
    assert measure(METRIC, outputs_of(logits, outside))["oos_fpr95"] == 0


def test_rows_of_one_kind_and_broken_logits_have_no_number():
    logits, outside = np.eye(4), np.array([True, False, True, False])
    for kind in (np.zeros(4, bool), np.ones(4, bool)):
        found = measure(METRIC, outputs_of(logits, kind))
        assert all(math.isnan(x) for x in found.values())
    logits[0, 0] = np.nan
    assert all(math.isnan(x) for x in measure(METRIC, outputs_of(logits, outside)).values())
