"""Areas of the probabilities of one label: those of scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import measure
from jaxsft.metrics.by_name import METRICS
from tests.metrics.test_probabilities import many, outputs_of

sklearn = pytest.importorskip("sklearn.metrics")
special = pytest.importorskip("scipy.special")
NAMES = ("auroc_ovr", "auroc_ovo", "average_precision_ovr")


def all_of(outputs, names=NAMES):
    return {k: v for name in names for k, v in measure(METRICS[name], outputs).items()}


def by_label(logits, label):
    """Returns AUROC and average precision of every label, and its number of rows."""
    score, found = special.log_softmax(logits, -1), []
    for i in range(logits.shape[1]):
        gold = label == i
        if 0 < gold.sum() < len(gold):
            area = sklearn.roc_auc_score(gold, score[:, i])
            found.append((area, sklearn.average_precision_score(gold, score[:, i]), gold.sum()))
        else:
            found.append((np.nan, 1.0 if gold.all() else np.nan, gold.sum()))
    return np.array(found).T


def average(value, support):
    there = ~np.isnan(value)
    if not there.any():
        return math.nan, math.nan
    return value[there].mean(), np.average(value[there], weights=support[there])


@st.composite
def rows(draw):
    """Rows of a few different logits, so that whole rows are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size, labels = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    pool = np.round(rng.normal(size=(draw(st.integers(1, 12)), labels)), 1)
    label = rng.integers(0, draw(st.integers(1, labels)), size)
    return pool[rng.integers(0, len(pool), size)], label


def compare(logits, label):
    area, precision, support = by_label(logits, label)
    found = all_of(outputs_of(logits, label))
    for name, value in (("auroc", area), ("average_precision", precision)):
        wanted = average(value, support)
        for key, number in zip(("macro", "weighted"), wanted, strict=True):
            assert found[f"{name}_ovr_{key}"] == pytest.approx(number, abs=1e-9, nan_ok=True)
    return found


@settings(max_examples=60, deadline=None)
@given(rows())
def test_areas_are_those_of_scikit_learn(case):
    compare(*case)


@pytest.mark.parametrize("seed", range(2))
def test_areas_of_thousands_of_rows(seed):
    """Of all labels at once too, as scikit-learn does it itself."""
    logits, label = many(seed, labels=6, count=5000)
    label = np.where(np.arange(5000) % 10, label, 5)
    found, p = compare(logits, label), special.softmax(logits, -1)
    for mode, key in (("ovr", "macro"), ("ovr", "weighted"), ("ovo", "macro")):
        wanted = sklearn.roc_auc_score(label, p, multi_class=mode, average=key)
        assert found[f"auroc_{mode}_{key}"] == pytest.approx(wanted, abs=1e-9)
    for key in ("macro", "weighted"):
        wanted = sklearn.average_precision_score(label, p, average=key)
        assert found[f"average_precision_ovr_{key}"] == pytest.approx(wanted, abs=1e-9)
    binned = all_of(outputs_of(logits, label), ("auroc_binned",))
    for key in ("macro", "weighted"):
        exact = found[f"auroc_ovr_{key}"]
        assert binned[f"auroc_ovr_{key}_binned_256"] == pytest.approx(exact, abs=1e-4)


def test_the_table_of_labels():
    logits, label = many(0, labels=5, count=3000)
    area, precision, support = by_label(logits, label)
    for name, column, wanted in (
        ("auroc_ovr", "auroc", area),
        ("average_precision_ovr", "average_precision", precision),
    ):
        metric = METRICS[name]
        table = metric.each(metric.reduce(metric.observe(outputs_of(logits, label)), np.ones(3000)))
        np.testing.assert_allclose(table[column], wanted, atol=1e-9)
        np.testing.assert_array_equal(table["support"], support)


def test_pairs_leave_labels_out_that_no_row_has():
    logits, label = many(1, labels=4, count=2000)  # no row has the last one
    two = [
        sklearn.roc_auc_score(label[m] == a, special.log_softmax(logits, -1)[m, a])
        for a in range(3)
        for b in range(3)
        if a != b
        for m in [(label == a) | (label == b)]
    ]
    found = all_of(outputs_of(logits, label), ("auroc_ovo",))
    assert found["auroc_ovo_macro"] == pytest.approx(np.mean(two), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(rows())
def test_bins_by_a_loop(case):
    """The area of scores that are rounded to their bins."""
    logits, label = case
    metric = METRICS["auroc_binned"]
    statistics = metric.observe(outputs_of(logits, label))
    p = special.softmax(logits, -1)
    place = np.floor((special.logit(p) + 16) * 8)
    near = abs((special.logit(p) + 16) * 8 - np.round((special.logit(p) + 16) * 8)) < 1e-9
    assert ((statistics["bin"] == np.clip(place, 0, 255)) | near).all()
    table = metric.each(metric.reduce(statistics, np.ones(len(label))))
    for i in range(logits.shape[1]):
        gold = label == i
        if 0 < gold.sum() < len(gold):
            wanted = sklearn.roc_auc_score(gold, statistics["bin"][:, i])
            assert table["auroc"][i] == pytest.approx(wanted, abs=1e-12)
        else:
            assert np.isnan(table["auroc"][i])


@settings(max_examples=60, deadline=None)
@given(rows().filter(lambda case: case[0].shape[1] == 2))
def test_two_labels(case):
    logits, label = case
    found = all_of(outputs_of(logits, label), ("binary_areas",))
    score, gold = logits[:, 1] - logits[:, 0], label == 1
    if 0 < gold.sum() < len(gold):
        area = sklearn.roc_auc_score(gold, score)
        precision = sklearn.average_precision_score(gold, score)
    else:
        area, precision = math.nan, 1.0 if gold.all() else math.nan
    assert found["auroc_binary"] == pytest.approx(area, abs=1e-12, nan_ok=True)
    assert found["average_precision_binary"] == pytest.approx(precision, abs=1e-12, nan_ok=True)


def test_areas_of_two_labels_need_two():
    with pytest.raises(ConfigError, match=r"needs two labels.*there are 3; use auroc_ovr"):
        METRICS["binary_areas"].observe(outputs_of(np.zeros((1, 3)), [0]))


def test_constant_scores_and_scores_that_are_none():
    label = np.array([0, 1, 2, 0])
    found = all_of(outputs_of(np.ones((4, 3)), label), (*NAMES, "auroc_binned"))
    assert {found[k] for k in found if k.startswith("auroc")} == {0.5}
    logits = np.ones((4, 3))
    logits[1, 2] = np.nan
    broken = all_of(outputs_of(logits, label), (*NAMES, "auroc_binned"))
    assert all(math.isnan(x) for x in broken.values())
    hidden = all_of(outputs_of(logits, np.where(label == 1, -1, label)), (*NAMES, "auroc_binned"))
    assert not any(math.isnan(x) for x in hidden.values())
