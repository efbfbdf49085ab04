"""What a metric is: three pure functions over the rows of a split.

`observe` says once what is known of each row, `reduce` adds it up under a weight for each row, and
`value` makes numbers of the sum. Everything else is a vector of weights: ones for a split, zeros
and ones for a slice or a fold, counts for a replicate of the bootstrap or for whole clusters.

All three take arrays of NumPy or of JAX (`xp = namespace(x)`) and any number of leading axes of the
weights. So a number is computed on the host in float64, without compiling anything, and the bounds
of many rows run in one compiled program, of the same lines.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = Any  # of NumPy or of JAX


def namespace(x: Array) -> Any:
    """Returns the module whose functions take this array: `numpy` or `jax.numpy`."""
    return x.__array_namespace__()


@dataclass(frozen=True)
class Outputs:
    """The arrays of the rows of a split after the pass: the input of every metric.

    The names of arrays and texts, by what a task gives:
      one label: `label`, `predicted` `[rows]` int; `logits` `[rows, labels]`.
      any labels: `labels`, `given` `[rows, labels]` bool; `logits` `[rows, labels]`.
      numbers: `targets` (NaN: missing), `predictions` `[rows, targets]`.
      two texts: as one label or as numbers; without either `rank`, that of the right partner.
      tags: `word.tag`, `word.predicted` `[words]` int (-1: none); `intent_hit`, `frame_hit`.
      entities in texts: `span.gold`, `span.predicted` `[entities, 4]` int: place of the row, first
        character, character behind the last one, number of the type.
      trees: `word.head`, `word.predicted_head`, `word.relation`, `word.predicted_relation`,
        `word.punctuation`; heads count in their row from 1, 0 is the root.
      tokens: `nll` (nats), `correct`, `count` `[rows]`, sums over the trained tokens of a row;
        `bytes` `[rows]`, those of the trained text in UTF-8.
      a stretch of text: `exact`, `f1` `[rows]`.
      every task: `loss_terms` `[rows, terms, 2]`, of each term of the loss `sum w v`, times the
        weight of the term, and `sum w`; not where a term compares rows with each other.
      generated answers: texts `answer` and `references` (a list each), array `stopped` bool;
        `schema`, a JSON Schema that the answer has to follow.

    Attributes:
      rows: `[rows]` int64, their numbers in the split; a row that was dropped may be left out.
      arrays: by name, `[rows, ...]`; `word.NAME` is `[words, ...]`, one word of the split after
        another, and `word.row` the place of its row among `rows`.
      labels: what the numbers of labels stand for.
      scheme: in which the labels are tags of chunks; none: they are not.
      texts: by name, a text (or what a text is compared with) for each row.
      beside: by name, `[labels]` numbers that tables show beside those of each label.
      tokenizer: how scores of texts cut them into tokens, a name of `text_overlap.TOKENIZERS`.
    """

    rows: np.ndarray
    arrays: Mapping[str, Array]
    labels: Sequence[str] = ()
    scheme: str = "none"
    texts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    beside: Mapping[str, Array] = field(default_factory=dict)
    tokenizer: str = "13a"

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or name in self.texts

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name] if name in self.arrays else self.texts[name]


@dataclass(frozen=True)
class Cells:
    """Statistics that only count: items of rows, and the cell of a table into which each falls.

    Attributes:
      index: `[items]` int, the number of the cell; -1: the item is not counted.
      shape: of the table.
      row: `[items]` int, the place of the row of each item; None: item i is of row i.
    """

    index: Array
    shape: tuple[int, ...]
    row: Array | None = None

    @classmethod
    def of(cls, *axes: Array, shape: tuple[int, ...], row: Array | None = None) -> Cells:
        """Makes the cells of items whose coordinates are given; a negative one counts nowhere."""
        xp = namespace(axes[0])
        if xp is np and min(axis.min(initial=0) for axis in axes) >= 0:  # in place: many rows
            index = axes[0].astype(np.intp)  # as `bincount` takes it, without a copy
            for axis, size in zip(axes[1:], shape[1:], strict=True):
                index *= size
                np.add(index, axis, out=index, casting="unsafe")
            return cls(index, shape, row)
        index, there = axes[0].astype(xp.int32), axes[0] >= 0
        for axis, size in zip(axes[1:], shape[1:], strict=True):
            index, there = index * size + axis.astype(xp.int32), there & (axis >= 0)
        return cls(xp.where(there, index, -1), shape, row)

    def count(self, weights: Array) -> Array:
        """Returns the table `[..., *shape]` under weights `[..., rows]` of the rows."""
        xp, size = namespace(weights), int(np.prod(self.shape))
        of_item = weights if self.row is None else weights[..., self.row]
        index = self.index
        if xp is not np or index.min(initial=0) < 0:
            index = xp.where(index < 0, size, index)
        flat = of_item.reshape((int(np.prod(weights.shape[:-1])), of_item.shape[-1]))
        if xp is np:
            once = lambda w: None if (w == 1).all() else w
            out = np.stack([np.bincount(index, once(w), size + 1) for w in flat]).astype(float)
        else:
            out = xp.zeros((len(flat), size + 1), flat.dtype).at[:, index].add(flat)
        return out[:, :size].reshape((*weights.shape[:-1], *self.shape))


Statistics = Any  # an array [rows, ...], Cells, or a dict of such
State = Any


def select(statistics: Statistics, places: np.ndarray) -> Statistics:
    """Returns the statistics of the rows at these places, in their order; each at most once."""
    if isinstance(statistics, Mapping):
        return {name: select(one, places) for name, one in statistics.items()}
    if not isinstance(statistics, Cells):
        return np.asarray(statistics)[places]
    if statistics.row is None:
        return Cells(statistics.index[places], statistics.shape)
    new = np.full(int(max(statistics.row.max(initial=-1), places.max(initial=-1))) + 1, -1)
    new[places] = np.arange(len(places))
    row = new[statistics.row]
    return Cells(statistics.index[row >= 0], statistics.shape, row[row >= 0])


def total(statistics: Statistics, weights: Array) -> State:
    """Adds statistics up under weights `[..., rows]`: `[..., *statistic]` of an array, a table of
    cells; of a dict, each by itself.
    """
    if isinstance(statistics, Mapping):
        return {name: total(one, weights) for name, one in statistics.items()}
    if isinstance(statistics, Cells):
        return statistics.count(weights)
    rows, *rest = statistics.shape
    flat = statistics.reshape((rows, int(np.prod(rest)))).astype(weights.dtype)
    return (weights @ flat).reshape((*weights.shape[:-1], *rest))


@dataclass(frozen=True)
class Metric:
    """Numbers of the rows of a split, from one state.

    Attributes:
      names: of the numbers that `value` gives; known before any data is read.
      needs: names of `Outputs` that `observe` reads. A metric fits a task that has them.
      observe: `(outputs) -> statistics`, one per row; run once.
      value: `(state [..., *]) -> {name: [...]}`.
      reduce: `(statistics, weights [..., rows]) -> state`. `total` is linear in the weights; a
        metric that ranks rows brings its own.
      each: `(state) -> {name: [..., labels]}`, the same of every label.
      table: what the table of `each` is called; empty: none is written.
      rows_of: `(outputs) -> names` of the rows of that table.
      confusion: the state is a matrix `[gold, predicted]` over the labels, to be shown as one.
      lower_is_better: those of `names` of which less is better.
      counts: the numbers that only count what is there, and have no bound.
      scheme: `chunks` or `none`: labels that are tags of chunks, or are not; None: either.
      unbounded: the numbers whose bootstrap is biased, so that they have no bound.
      signature: `(outputs) -> text` that says how the numbers were made, for those who publish
        them; None: nothing but the data decides.
    """

    names: tuple[str, ...]
    needs: tuple[str, ...]
    observe: Callable[[Outputs], Statistics]
    value: Callable[[State], Mapping[str, Array]]
    reduce: Callable[[Statistics, Array], State] = total
    each: Callable[[State], Mapping[str, Array]] | None = None
    table: str = ""
    rows_of: Callable[[Outputs], Sequence[str]] = lambda outputs: outputs.labels
    confusion: bool = False
    lower_is_better: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    scheme: str | None = None
    signature: Callable[[Outputs], str] | None = None
    unbounded: tuple[str, ...] = ()

    @property
    def of_answers(self) -> bool:
        """Returns whether it is of generated answers, instead of what the pass gives."""
        return "answer" in self.needs or "stopped" in self.needs

    @property
    def of_targets(self) -> bool:
        """Returns whether it has numbers of each of several targets, which are called by both."""
        return "targets" in self.needs and self.each is not None

    def fits(self, outputs: Outputs) -> bool:
        """Returns whether the outputs have what the metric reads."""
        chunks = "none" if outputs.scheme == "none" else "chunks"
        return all(name in outputs for name in self.needs) and self.scheme in (None, chunks)


@functools.lru_cache(maxsize=64)
def of_each_target(metric: Metric, targets: tuple[str, ...]) -> Metric:
    """Returns a metric of several targets with the numbers of each beside their mean, as
    `mse_TARGET`; any other metric as it is.
    """
    if not metric.of_targets or len(targets) < 2:
        return metric
    own = {f"{n}_{target}": (n, i) for i, target in enumerate(targets) for n in metric.names}

    def value(state: State) -> dict[str, Array]:
        each = metric.each(state)
        return {**metric.value(state), **{new: each[n][..., i] for new, (n, i) in own.items()}}

    low = tuple(new for new, (n, _) in own.items() if n in metric.lower_is_better)
    return replace(
        metric,
        names=(*metric.names, *own),
        value=value,
        lower_is_better=(*metric.lower_is_better, *low),
    )


def measure(metric: Metric, outputs: Outputs) -> dict[str, float]:
    """Returns the numbers of all rows, each once, in float64; NaN where nothing counts."""
    state = metric.reduce(metric.observe(outputs), np.ones(len(outputs)))
    return {name: float(value) for name, value in metric.value(state).items()}


def ratio(a: Array, b: Array, empty: float = float("nan")) -> Array:
    """Returns `a / b`, and `empty` where b is 0."""
    xp = namespace(b)
    return xp.where(b != 0, a / xp.where(b != 0, b, 1), empty)


def scored(hit: Array, predicted: Array, gold: Array) -> dict[str, Array]:
    """Returns precision, recall and F1 of counts; 0/0 is 0, as in scikit-learn and seqeval."""
    return {
        "precision": ratio(hit, predicted, 0.0),
        "recall": ratio(hit, gold, 0.0),
        "f1": ratio(2 * hit, gold + predicted, 0.0),
    }


def averaged(hit: Array, predicted: Array, gold: Array, occurs: Array) -> dict[str, Array]:
    """Returns precision, recall and F1 of counts `[..., labels]`: `macro`, the mean over the labels
    that occur (`occurs`, bool); `weighted` by their gold count; `micro`, of all counts together.
    """
    xp, out = namespace(hit), {}
    micro = scored(hit.sum(-1), predicted.sum(-1), gold.sum(-1))
    for name, value in scored(hit, predicted, gold).items():
        mean = ratio(xp.where(occurs, value, 0).sum(-1), occurs.sum(-1), 0.0)
        out[f"{name}_macro"] = mean
        out[f"{name}_weighted"] = ratio((value * gold).sum(-1), gold.sum(-1), 0.0)
        out[f"{name}_micro"] = micro[name]
    return out
