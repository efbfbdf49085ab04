"""Comparisons: tests against scipy and statsmodels, families, seeds, and rows that differ."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jaxsft.errors import ConfigError, DataError
from jaxsft.evaluation import bounds, compare, compared_runs
from jaxsft.evaluation.compare import Arm, Drawn, Settings
from jaxsft.evaluation.replicates import replicated
from jaxsft.evaluation.unit_counts import units
from jaxsft.metrics.base import Cells
from tests.evaluation import two_runs
from tools import power_simulation


def arm(name, outputs, **more):
    return Arm(name, (two_runs.in_memory(name, outputs, **more),))


def test_a_pair_is_compared_on_the_same_rows():
    one, other = two_runs.labels(400, 0.8, 1), two_runs.labels(400, 0.9, 2)
    settings = Settings(numbers=["accuracy", "f1_macro"])
    found = compare.compare([arm("a", one), arm("b", other)], settings)
    accuracy, macro = found.pairs
    right = [o["label"] == o["predicted"] for o in (one, other)]
    difference = right[1].mean() - right[0].mean()
    assert accuracy["difference"] == pytest.approx(difference)
    b, c = (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
    assert (accuracy["rows_better"], accuracy["rows_worse"]) == (b, c)
    assert accuracy["rows_equal"] == 400 - b - c
    assert accuracy["test"] == "McNemar" and macro["test"] == "permutation"
    assert accuracy["p"] == pytest.approx(stats.binomtest(int(c), int(b + c)).pvalue, rel=1e-9)
    apart = right[1].astype(float) - right[0]
    assert accuracy["se"] == pytest.approx(apart.std() / 20, rel=0.08)
    z = stats.norm.ppf([0.975, 0.8]).sum()
    assert accuracy["minimum_detectable"] == pytest.approx(z * accuracy["se"])
    assert accuracy["verdict"] == "better" and accuracy["low"] > 0
    # exchanged, a difference changes its sign and nothing else
    turned = compare.compare([arm("b", other), arm("a", one)], settings).pairs[0]
    assert turned["difference"] == -accuracy["difference"] and turned["verdict"] == "worse"
    assert turned["p"] == accuracy["p"] and turned["low"] == pytest.approx(-accuracy["high"])


def test_a_permutation_test_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 60)) + [[0], [0.3]]
    found = compare.compare(_arms_of(*x), Settings(replicates=4000))
    expected = stats.permutation_test(
        (x[1], x[0]), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=4000
    )
    assert found.pairs[0]["p"] == pytest.approx(expected.pvalue, abs=0.03)
    assert found.pairs[0]["low"] == pytest.approx(
        np.mean(x[1] - x[0]) - stats.t.ppf(0.975, 59) * stats.sem(x[1] - x[0]), abs=0.06
    )


def _arms_of(*columns, runs=1):
    """Makes arms of arrays `[rows]`, or `[runs, rows]`."""
    study = power_simulation.Study(len(np.atleast_2d(columns[0])[0]), 0.0)
    made = []
    for i, column in enumerate(columns):
        of_runs = []
        for j, values in enumerate(np.atleast_2d(column)):
            run = power_simulation.arms(study, 0.0, study.rows, np.random.default_rng(0))[0].runs[0]
            statistics = {"score": np.stack([values, np.ones(len(values))], -1)}
            content = dataclasses.replace(run.content, metrics=statistics)
            of_runs.append(dataclasses.replace(run, name=f"{i}.{j}", content=content))
        made.append(Arm(f"arm{i}", tuple(of_runs)))
    return made


def test_the_same_predictions_are_no_difference():
    same = two_runs.labels(100)
    (found,) = compare.compare(
        [arm("a", same), arm("b", same)], Settings(numbers=["f1_macro"])
    ).pairs
    assert (found["low"], found["high"], found["p"]) == (0, 0, 1) and found["verdict"] == "tied"


def test_what_labels_mean_decides_whether_they_are_exchanged():
    outputs, other = two_runs.labels(150, 0.8, 1), two_runs.labels(150, 0.8, 2)
    a, b = arm("a", outputs), arm("b", other)
    content = dataclasses.replace(b.runs[0].content, labels={"label_scores": ("b", "a", "c")})
    b = Arm("b", (dataclasses.replace(b.runs[0], content=content),))
    (found,) = compare.compare([a, b], Settings(numbers=["f1_macro"])).pairs
    assert found["test"] == "bootstrap" and 0 < found["p"] <= 1


def test_clusters_are_exchanged_and_drawn_as_a_whole():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(40), 10)
    x = np.repeat(rng.normal(size=(2, 40)), 10, axis=1)
    arms = _arms_of(*x)
    plain = compare.compare(arms, Settings()).pairs[0]
    arms = [
        Arm(a.name, tuple(
            dataclasses.replace(r, content=dataclasses.replace(r.content, clusters=cluster))
            for r in a.runs
        ))
        for a in arms
    ]  # fmt: skip
    found = compare.compare(arms, Settings()).pairs[0]
    assert found["se"] / plain["se"] == pytest.approx(math.sqrt(10), rel=0.2)
    assert found["p"] > plain["p"]


def test_families():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = [0.04, 0.001, 0.3, 0.012, 0.012]
    for ours, method in ((compare.holm, "holm"), (compare.benjamini_hochberg, "fdr_bh")):
        assert ours(p) == pytest.approx(list(multitest.multipletests(p, method=method)[1]))
        assert ours([None, 0.5]) == [None, 0.5]


def test_ties_are_the_largest_sets_that_nothing_separates():
    means = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.2}
    family = [
        {"a": a, "b": b, "verdict": "tied" if {a, b} in ({"a", "b"}, {"b", "c"}) else "worse"}
        for a, b in itertools.combinations("abcd", 2)
    ]
    assert compare.ties(means, family, False) == [["a", "b"], ["b", "c"], ["d"]]
    assert compare.ties(means, family, True) == [["d"], ["c", "b"], ["b", "a"]]


def test_three_runs_have_a_family_and_a_set_of_ties():
    arms = [arm(n, two_runs.labels(300, share, i)) for i, (n, share) in
            enumerate((("a", 0.8), ("b", 0.8), ("c", 0.97)))]  # fmt: skip
    found = compare.compare(arms, Settings(numbers=["accuracy"]))
    assert [(e["a"], e["b"]) for e in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(e["p_holm"] >= e["p"] for e in found.pairs)
    assert sorted(map(sorted, found.tied["accuracy"])) == [["a", "b"], ["c"]]


# --- seeds
# --------------------------------------------------------------------------------------------------
def test_variance_of_seeds_and_of_rows_are_told_apart():
    rng = np.random.default_rng(0)
    rows, runs = 400, 200
    hard, noise = rng.normal(size=rows), rng.normal(size=(runs, rows))
    level = 0.1 * rng.normal(size=(runs, 1))
    (a,) = _arms_of(hard + level + noise)
    metric, statistics = a.runs[0].metrics["score"], [r.content.metrics["score"] for r in a.runs]
    of = units(np.arange(rows))
    drawn = Drawn(
        np.array([bounds.point(metric, s, rows)["score"] for s in statistics]),
        np.stack([replicated(metric, s, of, 300, 0)["score"] for s in statistics]),
    )
    assert drawn.interaction() == pytest.approx(1 / rows, rel=0.1)
    assert drawn.seed_variance() == pytest.approx(float(np.var(level)), rel=0.15)


def test_bounds_of_arms_carry_seeds_and_rows():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 1, 200)) + 0.5 * rng.normal(size=(2, 3, 1))
    (found,) = compare.compare(_arms_of(*x), Settings()).pairs
    assert found["test"] == "t of rows and seeds" and 2 <= found["freedom"] < 7
    assert found["se"] ** 2 == pytest.approx(found["row_se"] ** 2 + found["seed_se"] ** 2)
    assert found["seed_se"] > found["row_se"]
    assert found["low"] < found["difference"] < found["high"]
    mixed = compare.compare([_arms_of(x[0])[0], _arms_of(x[1])[0]], Settings())
    assert mixed.arms[0]["numbers"]["score"]["runs"] == pytest.approx(list(x[0].mean(-1)))


def test_an_arm_of_one_run_is_told():
    rng = np.random.default_rng(1)
    arms = [*_arms_of(rng.normal(size=(3, 50))), *_arms_of(rng.normal(size=50))]
    arms[1] = Arm("b", arms[1].runs)
    assert "no variance between seeds" in " ".join(compare.compare(arms, Settings()).notes)


# --- what is refused
# --------------------------------------------------------------------------------------------------
def test_rows_that_differ_are_named(tmp_path):  # guards E2, E9
    a = two_runs.write(tmp_path / "a", two_runs.labels(30))
    fewer = two_runs.write(tmp_path / "fewer", two_runs.labels(29))
    other = two_runs.write(tmp_path / "other", two_runs.labels(30, gold_seed=1))
    with pytest.raises(DataError, match=r"row 29 \(test.jsonl:30\) is missing in .*fewer"):
        compared_runs.read([str(a), str(fewer)], "test")
    first = np.flatnonzero(
        two_runs.labels(30)["label"] != two_runs.labels(30, gold_seed=1)["label"]
    )
    with pytest.raises(
        DataError, match=rf"row {first[0]} \(test.jsonl:{first[0] + 1}\) was another"
    ):
        compared_runs.read([str(a), str(other)], "test")
    with pytest.raises(DataError, match=rf"row {first[0]} .*was another"):  # by their lines
        compared_runs.read([str(a), str(other)], "test", ["score"])


def test_metrics_of_other_rows_are_refused():
    runs = [two_runs.in_memory(name, two_runs.labels(30)) for name in "ab"]
    part = dataclasses.replace(runs[1].content, places={"label_scores": np.arange(5)})
    part.metrics["label_scores"] = Cells(np.zeros(5, int), (3, 3))
    with pytest.raises(DataError, match="label_scores is not of the rows of a: row 5 counts"):
        compared_runs.same_rows(runs[0], dataclasses.replace(runs[1], content=part))


def test_impossible_comparisons():
    arms = [arm("a", two_runs.labels(30)), arm("b", two_runs.labels(30))]
    with pytest.raises(ConfigError, match="metrics=bleu: is no number"):
        compare.compare(arms, Settings(numbers=["bleu"]))
    with pytest.raises(ConfigError, match="two runs at least"):
        compare.compare(arms[:1], Settings())
    with pytest.raises(ConfigError, match="replicates=3"):
        compare.compare(arms, Settings(replicates=3))


# --- in short; the long form is tools/power_simulation.py
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", power_simulation.STUDIES)
def test_a_null_difference_is_rarely_told(name):
    study = power_simulation.STUDIES[name]
    # 6 % and two standard errors of 100 trials
    assert power_simulation.told(study, 0.0, trials=100, replicates=200) <= 0.10
