"""What holds of every metric: a weight is a number of times that a row stands there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsft.compat import enable_x64
from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Cells, measure
from jaxsft.metrics.by_name import METRICS
from tests.metrics.sample_outputs import TAGS, chosen, of_rows

OF_TWO = ("binary_areas", "binary_scores")  # labels
# 0 where nothing is, as in the libraries that they follow
ZERO = ("chunk_scores", "conlleval_scores", "entity_schemas", "span_schemas", "word_scores")
RNG = np.random.default_rng(7)
ROWS = 25


def sample(name: str, rows: int = ROWS) -> Any:
    scheme = "none" if METRICS[name].scheme == "none" else "bio"
    labels = TAGS[:2] if name in OF_TWO else TAGS
    outputs = of_rows(rows, labels=labels, scheme=scheme, json=name.startswith("json"))
    assert METRICS[name].fits(outputs), "sample_outputs lacks what the metric reads"
    return outputs


@pytest.fixture(params=sorted(METRICS))
def name(request):
    metric = METRICS[request.param]
    try:  # what scores texts may need a library
        metric.observe(sample(request.param, 1))
    except (ConfigError, ImportError) as error:
        pytest.skip(str(error))
    return request.param


def numbers(name: str, outputs: Any, weights: Any) -> dict[str, Any]:
    metric = METRICS[name]
    return dict(metric.value(metric.reduce(metric.observe(outputs), weights)))


def equal(a: dict[str, Any], b: dict[str, Any], rtol: float = 1e-9, atol: float = 1e-12) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_allclose(a[key], b[key], rtol=rtol, atol=atol, err_msg=key)


def test_its_names_are_those_of_its_numbers(name):
    outputs, metric = sample(name), METRICS[name]
    found = measure(metric, outputs)
    assert tuple(found) == metric.names or set(found) == set(metric.names)
    assert set(metric.lower_is_better) <= set(metric.names)
    if metric.each:
        table = metric.each(metric.reduce(metric.observe(outputs), np.ones(ROWS)))
        assert set(metric.counts) <= {*metric.names, *table}
        lines = len(metric.rows_of(outputs)) if "targets" not in metric.needs else 2
        assert {column.shape for column in table.values()} == {(lines,)}


def test_a_weight_repeats_its_row(name):
    outputs, times = sample(name), RNG.integers(0, 4, ROWS)
    repeated = chosen(outputs, np.repeat(np.arange(ROWS), times))
    equal(numbers(name, outputs, times.astype(float)), measure(METRICS[name], repeated))


def test_a_weight_of_zero_leaves_its_row_out(name):
    outputs, keep = sample(name), RNG.random(ROWS) < 0.6
    kept = chosen(outputs, np.flatnonzero(keep))
    equal(numbers(name, outputs, keep.astype(float)), measure(METRICS[name], kept))


def test_the_order_of_rows_does_not_matter(name):
    outputs, weights, order = sample(name), RNG.random(ROWS), RNG.permutation(ROWS)
    shuffled = chosen(outputs, order)
    equal(numbers(name, outputs, weights), numbers(name, shuffled, weights[order]))
    equal(measure(METRICS[name], outputs), measure(METRICS[name], shuffled))


def test_leading_axes_are_a_loop(name):
    outputs, weights = sample(name), RNG.integers(0, 3, (2, 3, ROWS)).astype(float)
    weights[0, 0], weights[0, 1] = 0, 1  # nothing; every row once
    found = numbers(name, outputs, weights)
    for index in np.ndindex(2, 3):
        one = {key: value[index] for key, value in found.items()}
        equal(one, numbers(name, outputs, weights[index]))


def of_jax(statistics: Any) -> Any:
    if isinstance(statistics, Cells):
        row = None if statistics.row is None else jnp.asarray(statistics.row)
        return Cells(jnp.asarray(statistics.index), statistics.shape, row)
    if isinstance(statistics, dict):
        return {key: of_jax(value) for key, value in statistics.items()}
    return jnp.asarray(statistics)


@pytest.mark.parametrize("wide", [True, False])
def test_one_compiled_program_of_many_weights_finds_the_same(name, wide):
    outputs, metric = sample(name), METRICS[name]
    weights = RNG.integers(0, 3, (4, ROWS)).astype(float)
    expected = numbers(name, outputs, weights)
    with enable_x64(wide):
        statistics = of_jax(metric.observe(outputs))
        of = lambda w: dict(metric.value(metric.reduce(statistics, w)))
        found, leading = jax.jit(lambda w: (jax.vmap(of)(w), of(w)))(jnp.asarray(weights))
    tolerance = (1e-9, 1e-12) if wide else (1e-4, 1e-5)
    equal(found, expected, *tolerance)
    equal(leading, expected, *tolerance)


def test_nothing_is_no_number(name):
    """No row at all, and rows of weight 0: a count is 0, an average NaN; never an error."""
    for outputs in (sample(name, 0), sample(name)):
        found = numbers(name, outputs, np.zeros(len(outputs)))
        for key, value in found.items():
            zero = key in METRICS[name].counts or name in ZERO
            assert value == 0 if zero else np.isnan(value), key
