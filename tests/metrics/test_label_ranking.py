"""Rankings of any number of labels a row: those of scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

sklearn = pytest.importorskip("sklearn.metrics")


def outputs_of(logits, gold):
    arrays = {"logits": logits, "labels": gold}
    return Outputs(np.arange(len(gold)), arrays, [f"l{i}" for i in range(gold.shape[1])])


@st.composite
def rows(draw):
    """Logits with ties; rows and labels without any, or with all."""
    shape = draw(st.integers(1, 25)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    gold = rng.random(shape) < draw(st.sampled_from([0, 0.3, 0.6, 1]))
    return rng.integers(0, draw(st.integers(1, 9)), shape) / 4, gold


def many(seed):
    rng = np.random.default_rng(seed)
    gold = rng.random((10_000, 9)) < np.linspace(0, 0.6, 9)  # no row has the first label
    return np.round(rng.normal(size=gold.shape) + gold, 2), gold


def compare_rows(logits, gold):
    found = measure(METRICS["label_ranking"], outputs_of(logits, gold))
    wanted = {
        "lrap": sklearn.label_ranking_average_precision_score(gold, logits),
        "coverage_error": sklearn.coverage_error(gold, logits),
        "label_ranking_loss": sklearn.label_ranking_loss(gold, logits),
    }
    assert found == pytest.approx(wanted, abs=1e-12)


def compare_areas(logits, gold):
    metric = METRICS["label_areas"]
    state = metric.reduce(metric.observe(outputs_of(logits, gold)), np.ones(len(gold)))
    found, table, support = metric.value(state), metric.each(state), gold.sum(0)
    cells = gold.reshape(-1, 1), logits.reshape(-1, 1)
    np.testing.assert_array_equal(table["support"], support)
    for name, score, lowest in (
        ("auroc", sklearn.roc_auc_score, 0),
        ("average_precision", sklearn.average_precision_score, -1),
    ):
        area = lambda g, s: (
            score(g, s) if 0 < g.sum() < len(g) else (1.0 if g.any() and lowest else math.nan)
        )
        each = np.array([area(g, s) for g, s in zip(gold.T, logits.T, strict=True)])
        np.testing.assert_allclose(table[name], each, atol=1e-12)
        there = ~np.isnan(each)
        macro, weighted = (
            (each[there].mean(), np.average(each[there], weights=support[there]))
            if there.any()
            else (math.nan, math.nan)
        )
        wanted = {"macro": macro, "weighted": weighted, "micro": area(*(x[:, 0] for x in cells))}
        for average, number in wanted.items():
            key = f"{name}_{average}"
            assert found[key] == pytest.approx(number, abs=1e-12, nan_ok=True), key


@settings(max_examples=80, deadline=None)
@given(rows())
def test_rows_are_scored_as_in_scikit_learn(case):
    compare_rows(*case)


@settings(max_examples=80, deadline=None)
@given(rows())
def test_areas_are_those_of_scikit_learn(case):
    compare_areas(*case)


@pytest.mark.parametrize("seed", range(2))
def test_thousands_of_rows(seed):
    logits, gold = many(seed)
    compare_rows(logits, gold)
    compare_areas(logits, gold)
    some = slice(1, None)  # labels that scikit-learn averages over, too
    found = measure(METRICS["label_areas"], outputs_of(logits[:, some], gold[:, some]))
    for average in ("macro", "micro", "weighted"):
        wanted = sklearn.roc_auc_score(gold[:, some], logits[:, some], average=average)
        assert found[f"auroc_{average}"] == pytest.approx(wanted, abs=1e-12)


def test_a_logit_that_is_no_number():
    logits, gold = many(0)
    logits[3, 2] = np.nan
    for name in ("label_ranking", "label_areas"):
        found = measure(METRICS[name], outputs_of(logits, gold))
        assert all(math.isnan(x) for x in found.values())
