"""Bounds of the numbers of a split, by the Poisson bootstrap over its rows.

A replicate weighs each row with a count that is Poisson distributed with mean 1 (Hanley and
MacGibbon, 2006; Chamandy et al., 2012), and a metric is a function of weights. The count is a pure
function of (seed, replicate, number of the row): neither the order of the rows, nor how they are
cut into chunks, nor the device changes it, and two runs on the same rows share their counts.

What is drawn as a whole is a unit: a row, a cluster of rows, or, of more than `GROUPS` rows, a
group of rows chosen by their numbers, which leaves the variance of a mean as it is and has 65,536
members to estimate it from.
"""

from __future__ import annotations

import functools
import hashlib
import math
import statistics as stdlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, special

from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Cells, Metric, Statistics, namespace, total

GROUPS = 65536  # units that are drawn at most
CHUNK = 1 << 22  # weights that are held at once
JAX_FROM = 20_000  # rows from which a metric that ranks runs as a compiled program
FEW = 40  # hits or misses below which a proportion has Wilson's interval

# --- the count of a unit in a replicate
# --------------------------------------------------------------------------------------------------
# u >= THRESHOLDS[k] where the count is more than k: 2^32 times the distribution function
THRESHOLDS = tuple(
    np.uint32(t)
    for t in (
        round(2**32 * sum(math.exp(-1) / math.factorial(j) for j in range(k + 1)))
        for k in range(16)
    )
    if t < 2**32
)
_A, _B = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)  # lowbias32 of Wellons, in its newer form
_ROW, _REPLICATE, _FACTOR = np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


def mixed(x: Any) -> Any:
    """Returns a permutation of the uint32 numbers of an array in which each bit hangs on all."""
    x = (x ^ (x >> 16)) * _A
    x = (x ^ (x >> 15)) * _B
    return x ^ (x >> 15)


def uniform(seed: int, replicates: Any, numbers: Any) -> Any:
    """Returns uniform uint32 `[replicates, units]`, each a function of (seed, replicate, number).

    Args:
      replicates: `[B]` uint32, their numbers; numbers: `[units]` uint32, those of the units.
    """
    xp = namespace(numbers)
    key = mixed(mixed(replicates * _REPLICATE) + xp.full((1,), seed % 2**32, xp.uint32))
    key = mixed(key + xp.full((1,), seed // 2**32 % 2**32, xp.uint32))
    own = mixed(numbers * _ROW + _ROW)
    # the factor keeps two units from exchanging their values in two replicates
    factor = mixed(own + _FACTOR) | xp.ones((1,), xp.uint32)
    return mixed((own ^ key[:, None]) * factor)


def counts(seed: int, replicates: Any, numbers: Any) -> Any:
    """Returns counts `[replicates, units]` uint8, Poisson distributed with mean 1."""
    u = uniform(seed, replicates, numbers)
    out = namespace(u).zeros(u.shape, np.uint8)
    for threshold in THRESHOLDS:
        out = out + (u >= threshold)
    return out


# --- units
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Units:
    """What is drawn as a whole.

    Attributes:
      numbers: `[units]` uint32, from which counts are drawn.
      of_row: `[rows]`, the unit of each row; None: row i is unit i.
      rows: how many there are.
      clusters: how many there are; None: rows are independent.
    """

    numbers: np.ndarray
    of_row: np.ndarray | None
    rows: int
    clusters: int | None = None


def units(rows: np.ndarray, clusters: Sequence[Any] | np.ndarray | None = None) -> Units:
    """Returns the units of rows with these numbers.

    Args:
      clusters: `[rows]`, the number or the name of the cluster of each row.

    Raises ConfigError where there is not one cluster for each row.
    """
    rows = np.asarray(rows, np.int64)
    if clusters is None:
        number = _folded(rows)
        if len(rows) <= GROUPS:
            return Units(number, None, len(rows))
        return Units(np.arange(GROUPS, dtype=np.uint32), _group(number), len(rows))
    clusters = np.asarray(clusters)
    if clusters.shape != rows.shape:
        raise ConfigError(
            f"clusters: {len(clusters)} of them for {len(rows)} rows; give one for each row"
        )
    names, of_row = np.unique(clusters, return_inverse=True)
    number = _folded(names) if names.dtype.kind in "iu" else _hashed(names)
    count = len(names)
    if count > GROUPS:
        of_row, number = _group(number)[of_row], np.arange(GROUPS, dtype=np.uint32)
    return Units(number, of_row.astype(np.int32), len(rows), count)


def _folded(numbers: np.ndarray) -> np.ndarray:
    """Returns numbers as uint32; those below 2^32 stay as they are."""
    numbers = numbers.astype(np.int64).view(np.uint64)
    low, high = numbers.astype(np.uint32), (numbers >> np.uint64(32)).astype(np.uint32)
    return low ^ np.where(high > 0, mixed(high), high)


def _hashed(names: np.ndarray) -> np.ndarray:
    digests = (hashlib.sha256(str(name).encode("utf-8", "surrogatepass")) for name in names)
    return np.array([int.from_bytes(d.digest()[:4]) for d in digests], np.uint32)


def _group(numbers: np.ndarray) -> np.ndarray:
    return (mixed(numbers + _FACTOR) % np.uint32(GROUPS)).astype(np.int32)


# --- statistics of units, whose weighted sum is a state
# --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Table:
    """Statistics of units as a matrix `[units, size]`, dense or sparse, of arrays of `shape`."""

    matrix: Any
    shape: tuple[int, ...]

    def total(self, weights: np.ndarray) -> np.ndarray:
        """Returns the sum `[B, *shape]` under weights `[B, units]`."""
        flat = weights @ self.matrix
        return np.asarray(flat).reshape(len(weights), *self.shape)

    def minus(self, other: Table) -> Table:
        """Returns the difference of two tables of the same units."""
        return Table(self.matrix - other.matrix, self.shape)


Tables = Any  # a Table, or a dict of them


def tables(statistics: Statistics, of: Units) -> Tables:
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
    return Table(flat, array.shape[1:])


def _table_of_cells(cells: Cells, of: Units) -> Table:
    index = np.asarray(cells.index)
    row = np.arange(len(index)) if cells.row is None else np.asarray(cells.row)
    keep = index >= 0
    unit = row[keep] if of.of_row is None else of.of_row[row[keep]]
    size = int(np.prod(cells.shape))
    matrix = sparse.coo_array(
        (np.ones(keep.sum()), (unit, index[keep])), (len(of.numbers), size)
    ).tocsr()
    matrix.sum_duplicates()
    return Table(matrix, tuple(cells.shape))


def mapped(function: Any, *trees: Any) -> Any:
    """Returns `function` of the leaves of dicts of the same keys."""
    if isinstance(trees[0], Mapping):
        return {name: mapped(function, *(tree[name] for tree in trees)) for name in trees[0]}
    return function(*trees)


def state_of(of_units: Tables, weights: np.ndarray) -> Any:
    """Returns the state of a metric whose `reduce` is a sum, under weights `[B, units]`."""
    return mapped(lambda table: table.total(weights), of_units)


# --- replicates
# --------------------------------------------------------------------------------------------------
def chunks(replicates: int, width: int) -> Iterator[np.ndarray]:
    """Returns the numbers of replicates in chunks that keep the weights of one in `CHUNK`."""
    size = max(1, CHUNK // max(width, 1))
    for start in range(0, replicates, size):
        yield np.arange(start, min(start + size, replicates), dtype=np.uint32)


def replicated(
    metric: Metric, statistics: Statistics, of: Units, replicates: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns each number in each replicate, `[replicates]` float64.

    Runs on the same rows share their counts.
    """
    if metric.reduce is total:
        of_units = tables(statistics, of)
        states = (
            state_of(of_units, counts(seed, b, of.numbers).astype(np.float64))
            for b in chunks(replicates, len(of.numbers))
        )
    elif of.rows >= JAX_FROM and not _has_cells(statistics):
        states = _compiled_states(metric, statistics, of, replicates, seed)
    else:
        states = (
            metric.reduce(statistics, of_rows(counts(seed, b, of.numbers), of))
            for b in chunks(replicates, of.rows * _columns(statistics))
        )
    return _numbers(metric, states)


def of_rows(weights: np.ndarray, of: Units) -> np.ndarray:
    """Returns weights of rows, of those of units."""
    weights = weights.astype(np.float64)
    return weights if of.of_row is None else weights[:, of.of_row]


def _numbers(metric: Metric, states: Iterator[Any]) -> dict[str, np.ndarray]:
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
        arrays = mapped(lambda x: jax.numpy.asarray(np.asarray(x)), statistics)
        unit = None if of.of_row is None else jax.numpy.asarray(of.of_row)
        run = _program(metric.reduce, seed)
        out = jax.device_get(run(arrays, jax.numpy.asarray(of.numbers), unit, numbers))
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


def _replicated_table(
    metric: Metric, cells: Cells, replicates: int, seed: int
) -> dict[str, np.ndarray]:
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

    return _numbers(metric, states())


# --- intervals
# --------------------------------------------------------------------------------------------------
Interval = dict[str, Any]


def intervals(
    metric: Metric,
    statistics: Statistics,
    rows: np.ndarray,
    *,
    clusters: Sequence[Any] | np.ndarray | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns the numbers of a metric with their bounds.

    Args:
      statistics: what `metric.observe` gave for the rows.
      rows: `[rows]`, their numbers in the split.
      clusters: `[rows]`, what a row belongs to (its document, its author), as a number or a name:
        rows of a cluster are drawn together.

    Returns: by number `value`, `low`, `high` (None: no bound, and `reason` says why), `se` (the
      standard error), `n` rows, `clusters` (None: rows are independent), `level`, and `method`:
      "percentile" of the replicates, "wilson" of a proportion with few hits or misses, "count" of
      what only counts. Under clusters `naive_se` is the standard error without them. Where a
      number is undefined in some replicates `undefined` is their share.

    Raises ConfigError for an impossible level or number of replicates, or no row.
    """
    check(level, replicates)
    of = units(rows, clusters)
    values = point(metric, statistics, of.rows)
    if of.rows == 0:
        drawn = {name: np.zeros(0) for name in metric.names}
    elif _by_table(metric, statistics, of):
        drawn = _replicated_table(metric, statistics, replicates, seed)
    else:
        drawn = replicated(metric, statistics, of, replicates, seed)
    proportions, plain, out = {}, {}, {}
    if of.clusters is None:
        proportions = _proportions(metric, statistics, of.rows, values)
    elif of.rows:
        plain = replicated(metric, statistics, units(rows), replicates, seed)
    independent = of.rows if of.clusters is None else of.clusters
    for name, value in values.items():
        entry = {"value": value, "low": None, "high": None, "n": of.rows, "clusters": of.clusters}
        if name in metric.counts:
            entry |= {"method": "count", "level": level}
        elif name in proportions:
            low, high = wilson(*proportions[name], level)
            entry |= {"low": low, "high": high, "method": "wilson", "level": level}
            entry["se"] = float(np.std(drawn[name], ddof=1))
        else:
            bound = percentile(drawn[name], level, independent)
            entry |= {"method": "percentile", "level": level, **bound}
            if not math.isfinite(value):
                entry |= {"low": None, "high": None, "reason": "the number itself is not finite"}
        if name in plain and name not in metric.counts:
            entry["naive_se"] = percentile(plain[name], level, of.rows)["se"]
        out[name] = entry
    return out


def check(level: float, replicates: int) -> None:
    """Raises ConfigError for a level or a number of replicates that give no bounds."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: give a share between 0 and 1, such as 0.95")
    least = math.ceil(2 / (1 - level))
    if replicates < least:
        raise ConfigError(f"replicates={replicates}: level={level} needs {least} of them at least")


def point(metric: Metric, statistics: Statistics, rows: int) -> dict[str, float]:
    """Returns the numbers of all rows, each once."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = metric.value(metric.reduce(statistics, np.ones(rows)))
    return {name: float(values[name]) for name in metric.names}


def _by_table(metric: Metric, statistics: Statistics, of: Units) -> bool:
    return (
        isinstance(statistics, Cells)
        and statistics.row is None
        and metric.reduce is total
        and of.clusters is None
        and of.rows > int(np.prod(statistics.shape))
    )


def percentile(drawn: np.ndarray, level: float, independent: int) -> Interval:
    """Returns `low`, `high` and `se` of the finite replicates, and how many are not.

    The quantiles lie as far out as Student's t of so many independent units demands: plain ones
    cover too little where units are few (Hesterberg, 2015, the expanded percentile interval).
    """
    finite = drawn[np.isfinite(drawn)]
    if independent < 2:
        reason = "no row counts" if not independent else "one row or cluster has no spread"
        return {"low": None, "high": None, "se": None, "reason": reason}
    if len(finite) < 2:
        reason = "undefined in all replicates"
        return {"low": None, "high": None, "se": None, "reason": reason}
    t = t_of(level, independent - 1) * math.sqrt(independent / (independent - 1))
    tail = stdlib.NormalDist().cdf(-t)
    # (B + 1) p: of B replicates as good as of infinitely many
    low, high = np.quantile(finite, [tail, 1 - tail], method="weibull")
    out = {"low": float(low), "high": float(high), "se": float(np.std(finite, ddof=1))}
    if len(finite) < len(drawn):
        out["undefined"] = 1 - len(finite) / len(drawn)
    return out


def t_of(level: float, freedom: float) -> float:
    """Returns the quantile of Student's t that leaves `1 - level` on both sides together."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def z_of(level: float) -> float:
    """Returns the normal quantile that leaves `1 - level` on both sides together."""
    return stdlib.NormalDist().inv_cdf((1 + level) / 2)


def wilson(hits: float, n: float, level: float) -> tuple[float, float]:
    """Returns the bounds of a proportion (Wilson, 1927), which stay useful at 0 and 1."""
    z, share = z_of(level), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # exact at the ends, where rounding leaves something
    return (middle - half if hits > 0 else 0.0), (middle + half if hits < n else 1.0)


# --- numbers of one row
# --------------------------------------------------------------------------------------------------
def row_values(metric: Metric, statistics: Statistics, rows: int) -> dict[str, np.ndarray]:
    """Returns what each number is of each row alone, `[rows]`; NaN where the row does not count.

    Only of a metric whose `reduce` is a sum: its statistics of a row are the state of that row.
    """
    of = Units(np.zeros(rows, np.uint32), None, rows)
    of_units, parts = tables(statistics, of), []
    width = sum(_sizes(of_units))
    step = max(1, CHUNK // max(width, 1))
    for start in range(0, rows, step):
        state = mapped(lambda table: _slice(table, start, start + step), of_units)
        parts.append(state)
    return _numbers(metric, iter(parts)) if parts else {name: np.zeros(0) for name in metric.names}


def _sizes(of_units: Tables) -> list[int]:
    if isinstance(of_units, Mapping):
        return [size for one in of_units.values() for size in _sizes(one)]
    return [int(np.prod(of_units.shape))]


def _slice(table: Table, start: int, stop: int) -> np.ndarray:
    part = table.matrix[start:stop]
    part = part.toarray() if sparse.issparse(part) else part
    return part.reshape(len(part), *table.shape)


def _proportions(
    metric: Metric, statistics: Statistics, rows: int, values: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Returns (hits, rows) of the numbers that are the mean of 0 or 1 over rows, where few are
    hits or few are misses.
    """
    asked = [
        name
        for name, value in values.items()
        if name not in metric.counts and 0 <= value <= 1 and min(value, 1 - value) * rows < FEW
    ]
    if metric.reduce is not total or not asked or not rows:
        return {}
    found = {name: x for name, x in plain_means(metric, statistics, rows).items() if name in asked}
    return {
        name: (float(np.nansum(x)), float(np.isfinite(x).sum()))
        for name, x in found.items()
        if min(np.nansum(x), np.isfinite(x).sum() - np.nansum(x)) < FEW
    }


def plain_means(metric: Metric, statistics: Statistics, rows: int) -> dict[str, np.ndarray]:
    """Returns, of the numbers that are the mean over rows of a value 0 or 1, those values.

    Equality is tried under a few weights, so that a coincidence is not taken for the rule.
    """
    if metric.reduce is not total:
        return {}
    found, weights = {}, counts(1, np.arange(4, dtype=np.uint32), np.arange(rows, dtype=np.uint32))
    weights = np.concatenate([np.ones((1, rows)), weights.astype(np.float64)])
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = metric.value(metric.reduce(statistics, weights))
    for name, x in row_values(metric, statistics, rows).items():
        there = np.isfinite(x)
        if name in metric.counts or not there.any() or not np.isin(x[there], (0, 1)).all():
            continue
        mass = weights @ there
        mean = (weights @ np.where(there, x, 0)) / np.where(mass > 0, mass, np.nan)
        if np.allclose(mean, whole[name], rtol=0, atol=1e-12, equal_nan=True):
            found[name] = x
    return found
