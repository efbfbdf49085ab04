"""What holds of every metric: a weight is how often a row stands there, and NumPy and JAX give the
same numbers.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsft.metrics.base import Metric, Outputs, measure


def repeated(outputs: Outputs, times: np.ndarray) -> Outputs:
    """Returns outputs in which row i stands `times[i]` times."""
    rows = np.repeat(np.arange(len(outputs)), times)
    arrays = {}
    for name, x in outputs.arrays.items():
        if not name.startswith(("word.", "span.")):
            arrays[name] = np.asarray(x)[rows]
    for row, columns in (("word.row", "word."), ("span", "span.")):
        names = [name for name in outputs.arrays if name.startswith(columns)]
        for name in names:
            of = outputs.arrays[row] if row == "word.row" else outputs.arrays[name][:, 0]
            parts = []
            for new, old in enumerate(rows):
                items = np.asarray(outputs.arrays[name])[of == old].copy()
                if name == "word.row":
                    items[:] = new
                elif columns == "span.":
                    items[:, 0] = new
                parts.append(items)
            arrays[name] = np.concatenate(parts) if parts else outputs.arrays[name][:0]
    texts = {name: [column[i] for i in rows] for name, column in outputs.texts.items()}
    return dataclasses.replace(outputs, rows=np.arange(len(rows)), arrays=arrays, texts=texts)


def check(metric: Metric, outputs: Outputs, seed: int = 0) -> dict[str, float]:
    """Checks a metric on these rows, and returns its numbers."""
    numbers = measure(metric, outputs)
    assert tuple(numbers) == metric.names or set(numbers) == set(metric.names)
    assert set(metric.lower_is_better) <= set(metric.names)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (3, len(outputs))).astype(float)
    statistics = metric.observe(outputs)
    state = metric.reduce(statistics, weights)
    ours = {name: np.asarray(value) for name, value in metric.value(state).items()}
    for i, times in enumerate(weights):
        expected = measure(metric, repeated(outputs, times.astype(int)))
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name][i], value, rtol=1e-12, atol=1e-12, err_msg=name)
    table = metric.each(state) if metric.each else {}
    columns = {name: np.asarray(value) for name, value in table.items()}
    if metric.each:
        for column in columns.values():
            assert column.shape == (3, len(metric.rows_of(outputs)))
    with jax.enable_x64(True):

        def program(w):
            one = metric.reduce(statistics, w)
            return metric.value(one), metric.each(one) if metric.each else {}

        theirs, their_table = jax.jit(jax.vmap(program))(jnp.asarray(weights))
    for expected, got in ((ours, theirs), (columns, their_table)):
        assert set(expected) == set(got)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    return numbers
