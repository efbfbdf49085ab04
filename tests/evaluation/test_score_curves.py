"""Curves of scores: the areas of scikit-learn's and of our own metrics, few points, both ends."""

import numpy as np
import pytest

from jaxsft.evaluation import score_curves
from jaxsft.metrics import by_name
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.probabilities import log_probabilities


def one_label(rows, labels, seed=0):
    draw = np.random.default_rng(seed)
    label = draw.integers(0, labels, rows)
    logits = draw.normal(size=(rows, labels)).round(1) + 1.5 * np.eye(labels)[label]
    return Outputs(
        np.arange(rows), {"label": label, "logits": logits}, [f"l{i}" for i in range(labels)]
    )


def test_two_labels_have_the_areas_and_errors_of_the_metrics():
    outputs = one_label(900, 2)
    found = score_curves.score_curves(outputs)
    areas = measure(by_name.take("binary_areas"), outputs)
    assert [c["label"] for c in found["roc"]] == ["l1"]
    assert found["roc"][0]["area"] == pytest.approx(areas["auroc_binary"], abs=1e-12)
    assert found["precision_recall"][0]["area"] == pytest.approx(
        areas["average_precision_binary"], abs=1e-12
    )
    errors = measure(by_name.take("calibration_equal_width"), outputs)
    assert found["reliability"]["ece"] == pytest.approx(errors["ece_15_equal_width"], abs=1e-12)
    assert found["reliability"]["mce"] == pytest.approx(errors["mce_15_equal_width"], abs=1e-12)
    assert sum(found["reliability"]["rows"]) == 900


def test_areas_of_many_labels_and_of_sets_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    outputs = one_label(400, 8)
    found = score_curves.score_curves(outputs)
    assert len(found["roc"]) == score_curves.LABELS and found["labels_left_out"] == 2
    p = log_probabilities(outputs["logits"])
    sets = Outputs(
        outputs.rows, {"labels": outputs["logits"] > 1, "logits": -outputs["logits"]}, "abcdefgh"
    )
    for content, gold, score in (
        (found, outputs["label"][:, None] == np.arange(8), p),
        (score_curves.score_curves(sets), sets["labels"], sets["logits"]),
    ):
        names = [f"l{i}" for i in range(8)] if content is found else list("abcdefgh")
        for roc, recall in zip(content["roc"], content["precision_recall"], strict=True):
            i = names.index(roc["label"])
            assert roc["area"] == pytest.approx(metrics.roc_auc_score(gold[:, i], score[:, i]))
            expected = metrics.average_precision_score(gold[:, i], score[:, i])
            assert recall["area"] == pytest.approx(expected)
            assert roc["positives"] == gold[:, i].sum()


def test_few_points_with_both_ends():
    found = score_curves.score_curves(one_label(20_000, 2, seed=1))
    roc, recall = found["roc"][0], found["precision_recall"][0]
    assert len(roc["fpr"]) <= 200 and len(recall["recall"]) <= 200
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)
    assert (recall["recall"][0], recall["recall"][-1]) == (0, 1)
    dense = one_label(20_000, 2, seed=2)
    dense.arrays["logits"][:] += np.random.default_rng(3).normal(size=(20_000, 2))
    roc = score_curves.score_curves(dense)["roc"][0]
    assert len(roc["fpr"]) <= 200 and np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(
        roc["area"], abs=2e-3
    )


def test_what_has_no_curve():
    outputs = one_label(5, 2)
    assert score_curves.score_curves(None) is None
    assert score_curves.score_curves(Outputs(outputs.rows, {"nll": np.ones(5)})) is None
    outputs.arrays["logits"][:] = np.nan
    assert score_curves.score_curves(outputs) is None
    same = Outputs(
        np.arange(3), {"label": np.zeros(3, int), "logits": np.zeros((3, 2))}, ["a", "b"]
    )
    found = score_curves.score_curves(same)
    assert found["roc"] == [] and found["reliability"]["rows"] == [3]
