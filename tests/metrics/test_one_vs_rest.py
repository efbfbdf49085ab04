"""Scores of labels against the others: those of scikit-learn, or of its counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS

sklearn = pytest.importorskip("sklearn.metrics")
AVERAGES = ("macro", "micro", "weighted")


def outputs_of(label, predicted, labels):
    arrays = {"label": np.asarray(label), "predicted": np.asarray(predicted)}
    return Outputs(np.arange(len(label)), arrays, [f"l{i}" for i in range(labels)])


@st.composite
def rows(draw, labels=None):
    count = labels or draw(st.integers(1, 6))
    some = st.integers(0, draw(st.integers(0, count - 1)))  # some labels never occur
    pairs = draw(st.lists(st.tuples(some, some), min_size=1, max_size=40))
    return [g for g, _ in pairs], [p for _, p in pairs], count


def many(seed, labels=7, count=5000):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, labels - 1, count)  # the last one is never gold
    return label, np.where(rng.random(count) < 0.5, label, rng.integers(0, labels, count)), labels


def expected(label, predicted):
    """Returns every number by scikit-learn, or from the counts that it gives."""
    out = {}
    for average in AVERAGES:
        options = {"average": average, "zero_division": 0}
        out[f"f0.5_{average}"] = sklearn.fbeta_score(label, predicted, beta=0.5, **options)
        out[f"f2_{average}"] = sklearn.fbeta_score(label, predicted, beta=2, **options)
        out[f"jaccard_{average}"] = sklearn.jaccard_score(label, predicted, **options)
    tables = sklearn.multilabel_confusion_matrix(label, predicted).astype(float)
    tn, fp, fn, tp = (tables[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
    share = lambda a, b: np.divide(a, b, out=np.zeros(np.shape(a)), where=b > 0)
    numbers = {
        "specificity": lambda tn, fp, fn, tp: share(tn, tn + fp),
        "fowlkes_mallows": lambda tn, fp, fn, tp: np.sqrt(share(tp, tp + fp) * share(tp, tp + fn)),
    }
    for name, number in numbers.items():
        each = number(tn, fp, fn, tp)
        out[f"{name}_macro"] = each.mean()
        out[f"{name}_weighted"] = np.average(each, weights=tp + fn)
        out[f"{name}_micro"] = number(*(np.asarray(x.sum()) for x in (tn, fp, fn, tp)))
    out["balanced_accuracy"] = sklearn.balanced_accuracy_score(label, predicted)
    recall = sklearn.recall_score(label, predicted, labels=np.unique(label), average=None)
    out["g_mean"] = np.prod(recall) ** (1 / len(recall))
    return out


def compare(label, predicted, labels):
    outputs, found = outputs_of(label, predicted, labels), {}
    for name in ("f_beta", "jaccard", "specificity", "fowlkes_mallows", "recall_means"):
        found |= measure(METRICS[name], outputs)
    wanted = expected(label, predicted)
    assert found.keys() == wanted.keys()
    for name, number in wanted.items():
        assert found[name] == pytest.approx(float(number), abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(rows())
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_scikit_learn(case):
    compare(*case)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore")
def test_scores_of_thousands_of_rows(seed):
    compare(*many(seed))


def test_scores_of_each_label():
    label, predicted, labels = many(0)
    outputs = outputs_of(label, predicted, labels)
    metric = METRICS["f_beta"]
    table = metric.each(metric.reduce(metric.observe(outputs), np.ones(len(label))))
    for beta in (0.5, 2):
        wanted = sklearn.fbeta_score(
            label, predicted, beta=beta, average=None, labels=range(labels), zero_division=0
        )
        np.testing.assert_allclose(table[f"f{beta}"], wanted, atol=1e-12)
    assert metric.rows_of(outputs) == outputs.labels


@settings(max_examples=60, deadline=None)
@given(rows(labels=2))
@pytest.mark.filterwarnings("ignore")
def test_binary_scores_are_of_the_second_label(case):
    label, predicted, _ = case
    found = measure(METRICS["binary_scores"], outputs_of(*case))
    options = {"pos_label": 1, "zero_division": 0}
    precision = sklearn.precision_score(label, predicted, **options)
    recall = sklearn.recall_score(label, predicted, **options)
    specificity = sklearn.recall_score(label, predicted, pos_label=0, zero_division=0)
    wanted = {
        "precision": precision,
        "recall": recall,
        "f1": sklearn.f1_score(label, predicted, **options),
        "specificity": specificity,
        "jaccard": sklearn.jaccard_score(label, predicted, **options),
        "fowlkes_mallows": (precision * recall) ** 0.5,
        "g_mean": (recall * specificity) ** 0.5,
    }
    for name, number in wanted.items():
        assert found[f"{name}_binary"] == pytest.approx(number, abs=1e-12), name


def test_binary_scores_need_two_labels():
    with pytest.raises(ConfigError, match=r"needs two labels.*there are 3; use label_scores"):
        METRICS["binary_scores"].observe(outputs_of([0], [0], 3))


def test_a_row_without_a_label_does_not_count():
    label, predicted, labels = many(1)
    holes = np.where(np.arange(len(label)) % 3 == 0, -1, label)
    there = holes >= 0
    for name in ("f_beta", "recall_means", "mcc"):
        assert measure(METRICS[name], outputs_of(holes, predicted, labels)) == measure(
            METRICS[name], outputs_of(label[there], predicted[there], labels)
        )
