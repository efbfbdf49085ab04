"""Scores of folds: pooled, their mean with bounds for dependent folds, gaps, learning curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxsft.evaluation import bounds, crossval, gaps, learning_curve
from jaxsft.evaluation.crossval import BoundOptions, FoldScores
from jaxsft.evaluation.measured import Measured, measure
from jaxsft.metrics.base import Cells, Outputs, select
from tests.evaluation.two_runs import labels

FAST = BoundOptions(replicates=200)


def folds(rows: int = 120, k: int = 4, repeats: int = 1) -> list[FoldScores]:
    """Returns folds whose models differ, so that a row taken from the wrong one shows."""
    out = []
    for repeat in range(repeats):
        fold_of = np.random.default_rng(repeat).permutation(rows) % k
        for fold in range(k):
            outputs = labels(rows, 0.6 + 0.1 * fold, seed=10 * repeat + fold)
            found = measure(["label_scores"], [], outputs, "classify")
            parts = {
                "train": np.flatnonzero(fold_of != fold),
                "held_out": np.flatnonzero(fold_of == fold),
            }
            out.append(FoldScores(repeat, fold, found, parts, {"train": 0.1, "held_out": 0.2}))
    return out


def hits(one: FoldScores) -> np.ndarray:
    outputs = labels(120, 0.6 + 0.1 * one.fold, seed=10 * one.repeat + one.fold)
    return (outputs["label"] == outputs["predicted"])[one.rows["held_out"]]


def test_a_fold_is_a_vector_of_weights():
    for one in folds():
        assert one.numbers("held_out")["accuracy"] == pytest.approx(hits(one).mean())
        assert one.numbers("train")["loss"] == 0.1


def test_each_row_is_pooled_from_the_model_that_did_not_train_on_it():
    found = folds()
    expected = np.concatenate([hits(one) for one in found])
    got = crossval.pooled_bounds(found, np.arange(120), FAST)["accuracy"]
    assert got["value"] == pytest.approx(expected.mean())
    assert got["low"] < got["value"] < got["high"] and got["clusters"] is None


def test_rows_of_a_unit_and_the_same_row_of_two_repeats_are_drawn_together():
    found = folds(repeats=2)
    of_rows = crossval.pooled_bounds(found, np.arange(120), FAST)["accuracy"]
    assert of_rows["n"] == 240 and of_rows["clusters"] == 120
    of_units = crossval.pooled_bounds(folds(), np.arange(120) // 3, FAST)["accuracy"]
    assert of_units["clusters"] == 40


def test_statistics_of_words_follow_their_rows():
    cells = Cells(np.array([0, 1, 1, 0, 2]), (3,), np.array([0, 0, 1, 2, 2]))
    part = select({"x": cells, "y": np.arange(3.0)}, np.array([0, 2]))
    assert part["x"].row.tolist() == [0, 0, 1, 1] and part["x"].index.tolist() == [0, 1, 0, 2]
    both = crossval.joined([part["x"], cells], [2, 3])
    assert both.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert both.count(np.ones(5)).tolist() == [4, 3, 2]


def test_outputs_of_some_rows_hold_their_words_and_entities():
    outputs = Outputs(
        np.array([3, 5, 8]),
        {
            "label": np.array([0, 1, 2]),
            "word.row": np.array([0, 0, 1, 2]),
            "word.tag": np.array([7, 8, 9, 6]),
            "span.gold": np.array([[0, 1, 2, 0], [2, 4, 5, 1]]),
        },
        texts={"answer": ["a", "b", "c"]},
    )
    found = crossval.outputs_of_rows(outputs, np.array([8, 5]))
    assert found.rows.tolist() == [5, 8] and found["label"].tolist() == [1, 2]
    assert found["word.row"].tolist() == [0, 1] and found["word.tag"].tolist() == [9, 6]
    assert found["span.gold"].tolist() == [[1, 4, 5, 1]] and found["answer"] == ["b", "c"]


def test_the_bounds_of_a_mean_over_folds_are_those_of_nadeau_and_bengio():
    x = np.array([0.7, 0.75, 0.8, 0.72, 0.78])
    got = crossval.corrected_mean(x, 0.25, 0.95)
    assert got["se"] == pytest.approx(math.sqrt((1 / 5 + 1 / 4) * x.var(ddof=1)))
    assert got["naive_se"] == pytest.approx(x.std(ddof=1) / math.sqrt(5))
    assert got["high"] - got["value"] == pytest.approx(2.7764451 * got["se"], rel=1e-6)
    assert "reason" in crossval.corrected_mean([0.5, math.nan], 0.25, 0.95)
    assert crossval.corrected_mean([0.5], 0.25, 0.95)["low"] is None


def test_a_gap_is_the_difference_of_two_sets_and_says_which_way_is_worse():
    sets = {
        name: measure(["label_scores"], [], labels(400, share, seed=seed), "classify")
        for name, share, seed in (("train", 0.95, 0), ("test", 0.7, 1))
    }
    table = gaps.gap_table(sets, {"train": 0.1, "test": 0.6}, FAST)
    of = {gap["number"]: gap for gap in table["gaps"]}
    values = [
        bounds.point(m.metric, m.statistics, 400)["accuracy"]
        for m in (sets["train"]["label_scores"], sets["test"]["label_scores"])
    ]
    assert of["accuracy"]["gap"] == pytest.approx(values[1] - values[0])
    assert of["accuracy"]["worse"] and of["accuracy"]["high"] < 0
    assert of["loss"]["gap"] == pytest.approx(0.5) and of["loss"]["worse"] and "rows" not in of
    # two sets that share no row have no noise in common: their variances add
    apart = [table["sets"][name]["accuracy"]["se"] for name in sets]
    assert of["accuracy"]["se"] == pytest.approx(math.hypot(*apart), rel=0.15)


def test_gaps_of_folds_have_the_bounds_of_a_mean_over_folds():
    found = folds()
    table = gaps.fold_gaps(
        found, ["loss"], 0.95, {"test": [{"loss": 0.5, **_of(f)} for f in found]}
    )
    of = {(gap["number"], gap["to"]): gap for gap in table["gaps"]}
    apart = [f.numbers("held_out")["accuracy"] - f.numbers("train")["accuracy"] for f in found]
    assert of["accuracy", "held_out"]["gap"] == pytest.approx(np.mean(apart))
    assert of["accuracy", "held_out"]["low"] < np.mean(apart)
    assert of["loss", "test"]["gap"] == pytest.approx(0.4)


def _of(fold: FoldScores) -> dict[str, float]:
    return {name: value for name, value in fold.numbers("train").items() if name != "loss"}


def test_a_power_law_is_found_again_and_tells_of_twice_the_rows():
    n = np.repeat([100, 200, 500, 1000, 2000], 6)
    noise = np.random.default_rng(0).normal(0, 0.004, len(n))
    for lower, curve in (
        (False, lambda n: 0.9 - 3 * n**-0.6),
        (True, lambda n: 0.2 + 20 * n**-0.8),
    ):
        found = learning_curve.power_law(n, curve(n.astype(float)) + noise, lower, FAST)
        expected = curve(4000.0)
        assert found["doubled"]["rows"] == 4000
        assert found["doubled"]["low"] < expected < found["doubled"]["high"]
        assert found["bounds"]["c"]["low"] < found["fit"]["c"] < found["bounds"]["c"]["high"]
        at = found["fit"]["a"] + found["fit"]["b"] * 500 ** -found["fit"]["c"]
        assert at == pytest.approx(curve(500.0), abs=0.02)


def test_too_few_sizes_give_no_curve_and_say_so():
    assert "3" in learning_curve.power_law([1, 1, 2], [0.1, 0.2, 0.3], False, FAST)["reason"]
    one_each = learning_curve.power_law([10, 20, 40], [0.5, 0.6, 0.65], False, FAST)
    assert "bounds" not in one_each and "reason" in one_each and "fit" in one_each


def test_a_measured_split_under_weights_is_that_of_the_rows():
    outputs = labels(50)
    one: Measured = measure(["label_scores"], [], outputs, "classify")["label_scores"]
    keep = np.arange(50) < 20
    part = measure(["label_scores"], [], crossval.outputs_of_rows(outputs, np.arange(20)), "x")
    assert one.numbers(weights=keep.astype(float)) == part["label_scores"].numbers()
