"""The numbers of a metric in replicates of the rows: a metric is a function of their weights.

Where a metric adds its statistics up, those of a unit are added once, and a replicate is a product
of counts and sums. Where it ranks, each row has the count of its unit: few rows on the host, many
by the slopes of its numbers in the weights, or else in one compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from jaxsft.evaluation.unit_counts import Units, counts
from jaxsft.metrics.base import Cells, Metric, Statistics, total

CHUNK = 1 << 22  # weights that are held at once
BLOCK = 1 << 17  # the same of sums over units, which stay in the cache of a core
JAX_FROM = 20_000  # rows from which a metric that ranks runs as a compiled program
CHECKED, APART = 4, 0.1  # replicates that linear ones are held against, and how near they must be


# --- statistics of units, whose weighted sum is a state
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class UnitSums:
    """Statistics of units as a matrix `[units, size]`, dense or sparse, of arrays of `shape`."""

    matrix: Any
    shape: tuple[int, ...]

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Returns the sum `[B, *shape]` under weights `[B, units]`."""
        flat = weights @ self.matrix
        return np.asarray(flat).reshape(len(weights), *self.shape)

    def minus(self, other: UnitSums) -> UnitSums:
        """Returns the difference of two tables of the same units."""
        return UnitSums(self.matrix - other.matrix, self.shape)


SumsOfUnits = Any  # a UnitSums, or a dict of them


def tables(statistics: Statistics, of: Units) -> SumsOfUnits:
    """Returns the statistics of units, of those of rows."""
    if isinstance(statistics, Mapping):
        return {name: tables(one, of) for name, one in statistics.items()}
    if isinstance(statistics, Cells):
        return _table_of_cells(statistics, of)
    array = np.asarray(statistics)
    flat = array.reshape(len(array), -1).astype(np.float64)
    if of.of_row is not None:
        where = (of.of_row, np.arange(of.rows))
        flat = sparse.csr_array((np.ones(of.rows), where), (len(of.numbers), of.rows)) @ flat
    return UnitSums(flat, array.shape[1:])


def _table_of_cells(cells: Cells, of: Units) -> UnitSums:
    index = np.asarray(cells.index)
    row = np.arange(len(index)) if cells.row is None else np.asarray(cells.row)
    keep = index >= 0
    unit = row[keep] if of.of_row is None else of.of_row[row[keep]]
    size = int(np.prod(cells.shape))
    matrix = sparse.coo_array(
        (np.ones(keep.sum()), (unit, index[keep])), (len(of.numbers), size)
    ).tocsr()
    matrix.sum_duplicates()
    return UnitSums(matrix, tuple(cells.shape))


def mapped(function: Any, *trees: Any) -> Any:
    """Returns `function` of the leaves of dicts of the same keys."""
    if isinstance(trees[0], Mapping):
        return {name: mapped(function, *(tree[name] for tree in trees)) for name in trees[0]}
    return function(*trees)


def state_of(of_units: SumsOfUnits, weights: np.ndarray) -> Any:
    """Returns the state of a metric whose `reduce` is a sum, under weights `[B, units]`."""
    return mapped(lambda table: table.total(weights), of_units)


# --- replicates
# --------------------------------------------------------------------------------------------------
def chunks(replicates: int, width: int, most: int | None = None) -> Iterator[np.ndarray]:
    """Returns the numbers of replicates in chunks whose weights, of this width, are few enough."""
    size = max(1, min(most or CHUNK, CHUNK) // max(width, 1))
    for start in range(0, replicates, size):
        yield np.arange(start, min(start + size, replicates), dtype=np.uint32)


def replicated(
    metric: Metric, statistics: Statistics, of: Units, replicates: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns each number in each replicate, `[replicates]` float64.

    Runs on the same rows share their counts. Of many rows a metric that ranks is linearised in
    their weights where that is seen to be as good.
    """
    if metric.reduce is total:
        of_units = tables(statistics, of)
        states = (
            state_of(of_units, counts(seed, b, of.numbers).astype(np.float64))
            for b in chunks(replicates, len(of.numbers), BLOCK)
        )
    elif of.rows >= JAX_FROM and not _has_cells(statistics):
        found = linear(metric, statistics, of, replicates, seed)
        if found is not None:
            return found
        states = _compiled_states(metric, statistics, of, replicates, seed)
    else:
        states = _ranked_states(metric, statistics, of, replicates, seed)
    return numbers_of(metric, states)


def _ranked_states(
    metric: Metric, statistics: Statistics, of: Units, replicates: int, seed: int
) -> Iterator[Any]:
    for b in chunks(replicates, of.rows * _columns(statistics)):
        yield metric.reduce(statistics, of_rows(counts(seed, b, of.numbers), of))


def of_rows(weights: np.ndarray, of: Units) -> np.ndarray:
    """Returns weights of rows, of those of units."""
    weights = weights.astype(np.float64)
    return weights if of.of_row is None else weights[:, of.of_row]


def numbers_of(metric: Metric, states: Iterator[Any]) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in metric.names}
    for state in states:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = metric.value(state)
        for name, values_of_chunk in parts.items():
            values_of_chunk.append(np.asarray(values[name], np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _columns(statistics: Statistics) -> int:
    """Returns how many weights of a row a metric that ranks may hold: one for each column."""
    if isinstance(statistics, Mapping):
        return max(map(_columns, statistics.values()), default=1)
    if isinstance(statistics, Cells):
        return 1
    return max(1, int(np.prod(np.shape(statistics)[1:])))


def _has_cells(statistics: Statistics) -> bool:
    if isinstance(statistics, Mapping):
        return any(map(_has_cells, statistics.values()))
    return isinstance(statistics, Cells)


# --- one compiled program
# --------------------------------------------------------------------------------------------------
def _on_device(statistics: Statistics, of: Units) -> tuple[Any, Any, Any]:
    import jax.numpy as jnp

    arrays = mapped(lambda x: jnp.asarray(np.asarray(x)), statistics)
    unit = None if of.of_row is None else jnp.asarray(of.of_row)
    return arrays, jnp.asarray(of.numbers), unit


def _compiled_states(
    metric: Metric, statistics: Statistics, of: Units, replicates: int, seed: int
) -> Iterator[Any]:
    """Returns the states of all replicates from one compiled program, in float64.

    It walks over chunks of replicates inside, so that what does not depend on the weights, such as
    a sort, is computed once.
    """
    import jax

    from jaxsft.compat import enable_x64

    size = min(max(1, CHUNK // (of.rows * _columns(statistics))), replicates)
    numbers = np.arange(-(-replicates // size) * size, dtype=np.uint32).reshape(-1, size)
    with enable_x64():
        run = _program(metric.reduce, seed)
        out = jax.device_get(run(*_on_device(statistics, of), numbers))
    # [chunks, size, ...] -> [replicates, ...]
    yield mapped(lambda x: x.reshape(-1, *x.shape[2:])[:replicates], out)


@functools.lru_cache(maxsize=64)
def _program(reduce: Any, seed: int) -> Any:
    import jax
    import jax.numpy as jnp

    def run(statistics: Any, numbers: Any, unit: Any, replicates: Any) -> Any:
        def state(chunk: Any) -> Any:
            weights = counts(seed, chunk, numbers).astype(jnp.float64)
            return reduce(statistics, weights if unit is None else weights[:, unit])

        return jax.lax.map(state, jnp.asarray(replicates))

    return jax.jit(run)


def linear(
    metric: Metric, statistics: Statistics, of: Units, replicates: int, seed: int
) -> dict[str, np.ndarray] | None:
    """Returns the replicates of numbers that are linearised in the weights of the rows.

    The slope of a number in the weight of each row, its influence (Jaeckel, 1972), is one backward
    pass through `reduce` and `value`; a replicate is then a sum over units. What that leaves out
    shrinks as the rows grow, unless a number jumps. So `CHECKED` replicates are computed in full:
    None where they are apart from the linear ones by more than `APART` standard errors.
    """
    from jaxsft.compat import enable_x64

    with enable_x64():
        run = _slopes(metric.reduce, metric.value, metric.names)
        values, slopes = map(np.asarray, run(_on_device(statistics, of)[0], np.ones(of.rows)))
    slopes = tables(slopes.T, of).matrix
    drawn = np.concatenate(
        [
            values + (counts(seed, b, of.numbers) - 1.0) @ slopes
            for b in chunks(replicates, len(of.numbers), BLOCK)
        ]
    )
    full = numbers_of(metric, _ranked_states(metric, statistics, of, CHECKED, seed))
    for i, name in enumerate(metric.names):
        if not math.isfinite(values[i]):
            drawn[:, i] = values[i]
            continue
        apart = np.sqrt(np.mean((full[name] - drawn[:CHECKED, i]) ** 2))
        # NaN is not below anything
        if not apart <= APART * drawn[:, i].std() + 1e-12:
            return None
    return {name: drawn[:, i] for i, name in enumerate(metric.names)}


@functools.lru_cache(maxsize=64)
def _slopes(reduce: Any, value: Any, names: tuple[str, ...]) -> Any:
    """Returns a program that gives numbers `[numbers]` and their slopes `[numbers, rows]`."""
    import jax
    import jax.numpy as jnp

    def run(statistics: Any, weights: Any) -> Any:
        def of_weights(weights: Any) -> Any:
            values = value(reduce(statistics, weights))
            found = jnp.stack([jnp.asarray(values[name], jnp.float64) for name in names])
            return found, found

        slopes, found = jax.jacrev(of_weights, has_aux=True)(weights)
        return found, slopes

    return jax.jit(run)


def of_table(metric: Metric, cells: Cells, replicates: int, seed: int) -> dict[str, np.ndarray]:
    """Returns each number in each replicate of a table whose cells are drawn as a whole.

    A sum of Poisson counts with mean 1 is Poisson distributed with the number of its terms.
    """
    index = np.asarray(cells.index)
    size = int(np.prod(cells.shape))
    table = np.bincount(index[index >= 0], minlength=size)
    there = np.flatnonzero(table)

    def states() -> Iterator[Any]:
        for chunk in chunks(replicates, size):
            state = np.zeros((len(chunk), size))
            for i, replicate in enumerate(chunk):
                bits = np.random.Philox(key=seed % 2**64, counter=[0, 0, 0, int(replicate)])
                state[i, there] = np.random.Generator(bits).poisson(table[there])
            yield state.reshape(-1, *cells.shape)

    return numbers_of(metric, states())
