"""Agreement beyond chance: that of scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from jaxsft.metrics.base import measure
from jaxsft.metrics.by_name import METRICS
from tests.metrics.test_one_vs_rest import many, outputs_of, rows

sklearn = pytest.importorskip("sklearn.metrics")


def compare(label, predicted, labels):
    outputs = outputs_of(label, predicted, labels)
    wanted = {"mcc": sklearn.matthews_corrcoef(label, predicted)}
    for name, weights in (("", None), ("_linear", "linear"), ("_quadratic", "quadratic")):
        wanted[f"cohen_kappa{name}"] = (
            sklearn.cohen_kappa_score(label, predicted, labels=range(labels), weights=weights)
            if labels > 1
            else math.nan
        )
    found = measure(METRICS["mcc"], outputs) | measure(METRICS["cohen_kappa"], outputs)
    for name, number in wanted.items():
        assert found[name] == pytest.approx(number, abs=1e-12, nan_ok=True), name


@settings(max_examples=100, deadline=None)
@given(rows())
@pytest.mark.filterwarnings("ignore")
def test_agreement_is_that_of_scikit_learn(case):
    compare(*case)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_of_thousands_of_rows(seed):
    compare(*many(seed))


def test_one_label_everywhere():
    found = measure(METRICS["mcc"], outputs_of([1, 1], [1, 1], 3))
    assert found["mcc"] == 0
    found = measure(METRICS["cohen_kappa"], outputs_of([1, 1], [1, 1], 3))
    assert all(math.isnan(x) for x in found.values())
    found = measure(METRICS["mcc"], outputs_of(np.arange(3), np.arange(3), 3))
    assert found["mcc"] == pytest.approx(1)
