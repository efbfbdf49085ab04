"""Bounds: counts of a row, the same by every way, and what they cover."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsft.errors import ConfigError
from jaxsft.evaluation import bounds, replicates, unit_counts
from jaxsft.evaluation.replicates import of_rows, replicated, state_of, tables
from jaxsft.evaluation.unit_counts import counts, uniform, units
from jaxsft.metrics.base import Cells, Metric, Outputs, namespace, ratio
from jaxsft.metrics.by_name import METRICS
from tests.evaluation import two_runs
from tools import coverage_simulation

MEAN = Metric(("mean",), (), lambda outputs: None, lambda s: {"mean": ratio(s[..., 0], s[..., 1])})


def of_numbers(x):
    return np.stack([np.asarray(x, float), np.ones(len(x))], -1)


# --- counts
# --------------------------------------------------------------------------------------------------
def test_draws_are_uniform_and_independent():
    u = uniform(7, np.arange(400, dtype=np.uint32), np.arange(500, dtype=np.uint32))
    x = u / 2**32
    assert stats.kstest(x.ravel()[::7], "uniform").pvalue > 1e-3
    for axis in (0, 1):
        z = (x - 0.5) * math.sqrt(12)
        along = np.corrcoef(z if axis else z.T)
        off = along[~np.eye(len(along), dtype=bool)]
        n = z.shape[axis]
        # of independent draws a correlation is normal with deviation 1/sqrt(n)
        assert abs(off.std() * math.sqrt(n) - 1) < 0.02 and abs(off).max() < 6.5 / math.sqrt(n)
    for bit in range(32):
        assert abs(((u >> bit) & 1).mean() - 0.5) < 5 * 0.5 / math.sqrt(u.size)
    other = uniform(8, np.arange(400, dtype=np.uint32), np.arange(500, dtype=np.uint32))
    assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(u.size)


def test_counts_are_poisson():
    c = counts(3, np.arange(1000, dtype=np.uint32), np.arange(1000, dtype=np.uint32))
    seen = np.bincount(c.ravel(), minlength=8)[:8]
    assert (
        stats.chisquare(
            seen[:7], stats.poisson.pmf(range(7), 1) * seen[:7].sum() / stats.poisson.cdf(6, 1)
        ).pvalue
        > 1e-3
    )
    assert abs(c.mean(0).std() * math.sqrt(1000) - 1) < 0.1  # over replicates
    assert abs(c.mean(1).std() * math.sqrt(1000) - 1) < 0.1  # over rows


def test_a_count_is_a_function_of_seed_replicate_and_row():  # guards E1, E13
    """Order, chunks and device do not matter."""
    replicates, numbers = np.arange(50, dtype=np.uint32), np.arange(300, dtype=np.uint32)
    whole = counts(2**40 + 5, replicates, numbers)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(counts(2**40 + 5, replicates, numbers[order]), whole[:, order])
    np.testing.assert_array_equal(
        counts(2**40 + 5, replicates[7:9], numbers[3:40]), whole[7:9, 3:40]
    )
    np.testing.assert_array_equal(
        counts(2**40 + 5, jnp.asarray(replicates), jnp.asarray(numbers)), whole
    )
    assert (counts(5, replicates, numbers) != whole).mean() > 0.5


# --- replicates
# --------------------------------------------------------------------------------------------------
def test_replicates_do_not_depend_on_chunks_or_order(monkeypatch):  # guards E1
    outputs = two_runs.labels(300)
    metric = METRICS.take("label_scores")
    statistics = metric.observe(outputs)
    whole = replicated(metric, statistics, units(outputs.rows), 40, 0)
    monkeypatch.setattr(replicates, "CHUNK", 900)
    cut = replicated(metric, statistics, units(outputs.rows), 40, 0)
    order = np.random.default_rng(0).permutation(300)
    turned = replicated(
        metric, Cells(statistics.index[order], statistics.shape), units(order), 40, 0
    )
    for name in metric.names:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-12)
        np.testing.assert_allclose(turned[name], whole[name], rtol=1e-12)


def test_sums_of_units_are_what_reduce_gives():  # guards E4
    """A state of units equals `reduce` under the weights of their rows, for every kind."""
    rng = np.random.default_rng(0)
    rows, clusters = np.arange(60), np.arange(60) // 4
    items = rng.integers(0, 60, 200)
    statistics = {
        "array": rng.normal(size=(60, 2, 3)),
        "flag": rng.random(60) < 0.5,
        "cells": Cells(rng.integers(-1, 6, 60), (2, 3)),
        "items": Cells(rng.integers(-1, 5, 200), (5,), items),
    }
    metric = Metric((), (), lambda outputs: None, lambda state: {})
    for of in (units(rows), units(rows, clusters)):
        drawn = counts(0, np.arange(5, dtype=np.uint32), of.numbers).astype(float)
        found = state_of(tables(statistics, of), drawn)
        expected = metric.reduce(statistics, of_rows(drawn, of))
        for name in statistics:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_many_rows_are_drawn_by_groups(monkeypatch):
    monkeypatch.setattr(unit_counts, "GROUPS", 2048)
    rng = np.random.default_rng(0)
    x = rng.exponential(size=20_000)
    plain = bounds.intervals(MEAN, of_numbers(x), np.arange(20_000), replicates=2000)["mean"]
    assert plain["se"] == pytest.approx(x.std() / math.sqrt(20_000), rel=0.08)
    order = rng.permutation(20_000)
    turned = bounds.intervals(MEAN, of_numbers(x[order]), order, replicates=2000)["mean"]
    assert turned["low"] == pytest.approx(plain["low"], rel=1e-12)


@pytest.mark.parametrize("rows", [600, 3000])
def test_the_compiled_program_gives_the_same(rows, monkeypatch):  # guards E1, A12
    monkeypatch.setattr(unit_counts, "GROUPS", 1000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    outputs = Outputs(
        np.arange(rows), {"targets": x, "predictions": x + rng.normal(size=(rows, 2))}
    )
    metric = METRICS.take("number_scores")
    statistics, of = metric.observe(outputs), units(outputs.rows)
    host = replicated(metric, statistics, of, 21, 4)
    monkeypatch.setattr(replicates, "JAX_FROM", 0)
    monkeypatch.setattr(replicates, "CHUNK", 8 * rows)
    monkeypatch.setattr(replicates, "linear", lambda *_: None)
    device = replicated(metric, statistics, of, 21, 4)
    for name in metric.names:
        assert device[name].shape == (21,) and device[name].dtype == np.float64
        np.testing.assert_allclose(device[name], host[name], rtol=1e-9, atol=1e-12)


def test_a_metric_that_ranks_is_linear_in_many_rows(monkeypatch):
    """Replicates by slopes are those in full, row by row, but for what shrinks with the rows."""
    monkeypatch.setattr(unit_counts, "GROUPS", 2000)
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, 6000)
    logits = np.stack([np.zeros(6000), np.round(rng.normal(size=6000) + gold, 1)], -1)
    outputs = Outputs(np.arange(6000), {"label": gold, "logits": logits}, ["no", "yes"])
    metric = METRICS.take("binary_areas")
    statistics, of = metric.observe(outputs), units(outputs.rows)
    full = replicated(metric, statistics, of, 100, 3)
    near = replicates.linear(metric, statistics, of, 100, 3)
    for name in metric.names:
        assert near[name].std() == pytest.approx(full[name].std(), rel=0.02)
        assert np.corrcoef(near[name], full[name])[0, 1] > 0.999
    monkeypatch.setattr(replicates, "JAX_FROM", 0)
    np.testing.assert_array_equal(replicated(metric, statistics, of, 100, 3)[name], near[name])


def test_a_number_that_jumps_is_not_linearised():
    """A median has no slope in the weights."""

    def reduce(statistics, weights):
        xp = namespace(weights)
        order = xp.argsort(statistics)
        upto = xp.cumulative_sum(weights[..., order], axis=-1)
        place = (upto < upto[..., -1:] / 2).sum(-1)
        return statistics[order][place]

    metric = Metric(("median",), (), lambda o: None, lambda s: {"median": s}, reduce=reduce)
    x = np.random.default_rng(0).normal(size=3000)
    assert replicates.linear(metric, x, units(np.arange(3000)), 50, 0) is None


def test_a_table_is_drawn_as_its_rows_are():
    outputs = two_runs.labels(4000)
    metric = METRICS.take("label_scores")
    statistics = metric.observe(outputs)
    table = bounds.intervals(metric, statistics, outputs.rows, replicates=3000)
    rows = replicated(metric, statistics, units(outputs.rows), 3000, 0)
    for name in ("accuracy", "f1_macro", "recall_weighted"):
        assert table[name]["se"] == pytest.approx(rows[name].std(), rel=0.06)
        assert table[name]["low"] == pytest.approx(np.quantile(rows[name], 0.025), abs=2e-3)
        assert table[name]["value"] == pytest.approx(rows[name].mean(), abs=1e-3)


# --- intervals
# --------------------------------------------------------------------------------------------------
def test_a_count_has_no_bound_and_an_undefined_number_says_so():  # guards E10
    outputs = two_runs.labels(50)
    found = bounds.intervals(
        METRICS.take("label_scores"), Cells(np.full(50, -1), (3, 3)), outputs.rows
    )
    assert found["rows"]["method"] == "count" and found["rows"]["low"] is None
    assert found["accuracy"]["low"] is None and "not finite" in found["accuracy"]["reason"]
    nothing = bounds.intervals(MEAN, np.zeros((0, 2)), np.zeros(0, int))["mean"]
    assert nothing["low"] is None and nothing["reason"] and nothing["n"] == 0
    single = bounds.intervals(MEAN, of_numbers([3.5]), np.zeros(1, int))["mean"]
    assert single["low"] is None and "no spread" in single["reason"]
    rare = np.stack([np.arange(20.0), np.arange(20) < 2], -1)
    some = bounds.intervals(MEAN, rare, np.arange(20))["mean"]
    assert 0.05 < some["undefined"] < 0.25 and some["low"] is not None


@pytest.mark.parametrize("hits", [0, 3, 47, 50])
def test_few_hits_have_wilsons_interval(hits):
    statsmodels = pytest.importorskip("statsmodels.stats.proportion")
    low, high = statsmodels.proportion_confint(hits, 50, 0.05, "wilson")
    right = np.arange(50) < hits
    found = bounds.intervals(MEAN, of_numbers(right), np.arange(50))["mean"]
    assert found["method"] == "wilson"
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-12)
    outputs = Outputs(
        np.arange(50),
        {"label": np.arange(50) % 2, "predicted": (np.arange(50) + ~right) % 2},
        ["a", "b"],
    )
    metric = METRICS.take("label_scores")
    found = bounds.intervals(metric, metric.observe(outputs), outputs.rows)
    assert found["accuracy"]["method"] == "wilson"
    assert found["accuracy"]["high"] == pytest.approx(high, abs=1e-12)
    if hits == 3:
        assert found["f1_macro"]["method"] == "percentile"


def test_rows_that_do_not_count_are_none_of_a_proportion():
    statistics = of_numbers(np.arange(60) < 50) * (np.arange(60) >= 10)[:, None]
    found = bounds.intervals(MEAN, statistics, np.arange(60))["mean"]
    assert found["method"] == "wilson"
    assert found["low"] == pytest.approx(bounds.wilson(40, 50, 0.95)[0])


def test_clusters_widen_the_bounds_of_rows_that_are_alike():
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 10)
    x = np.repeat(rng.normal(size=100), 10) + 0.1 * rng.normal(size=1000)
    ask = lambda clusters: bounds.intervals(
        MEAN, of_numbers(x), np.arange(1000), clusters=clusters
    )["mean"]
    plain, found = ask(None), ask(cluster)
    assert found["clusters"] == 100 and plain["clusters"] is None
    assert found["naive_se"] == plain["se"]
    assert found["se"] / found["naive_se"] == pytest.approx(math.sqrt(10), rel=0.15)
    named = ask([f"document {c}" for c in cluster])
    assert named["se"] == pytest.approx(found["se"], rel=0.15)
    with pytest.raises(ConfigError, match="clusters: 3 of them for 1000 rows"):
        ask([1, 2, 3])


def test_impossible_settings():
    for given in ({"level": 1.0}, {"level": 0.0}, {"replicates": 10}):
        with pytest.raises(ConfigError, match=next(iter(given))):
            bounds.intervals(MEAN, of_numbers([1, 2]), np.arange(2), **given)


# --- coverage, in short; the long form is tools/coverage_simulation.py
# --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", coverage_simulation.POPULATIONS)
def test_bounds_cover(name):
    if name == "BLEU":
        pytest.importorskip("sacrebleu")
    population = coverage_simulation.POPULATIONS[name](np.random.default_rng(0))
    found = coverage_simulation.coverage(population, rows=200, trials=100, replicates=400)
    # two standard errors of 100 trials around 93 to 97 %
    assert 0.88 <= found["covered"] <= 1
    if population.cluster is not None:
        assert found["naive"] < found["covered"] - 0.05
