"""How varied generated texts are: distinct n-grams of all answers, and n-grams said again in one.

Tokens are those of `outputs.tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxsft.metrics.base import Cells, Metric, Outputs, namespace, ratio
from jaxsft.metrics.text_overlap import tokens_of

ORDERS = (1, 2, 3)  # of distinct n-grams
REPEATED = 4  # the order of repeated ones


def ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """Yields the n-grams of a text in order."""
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def observe(outputs: Outputs) -> dict[str, dict[str, Any]]:
    """Returns of each order: how many n-grams a row has, how many stand in no other row, and which
    of the others, a cell each.
    """
    cut = tokens_of(outputs)
    rows = [cut(answer) for answer in outputs["answer"]]
    return {str(n): _of_order(rows, n) for n in ORDERS}


def _of_order(rows: Sequence[Sequence[str]], n: int) -> dict[str, Any]:
    total = np.array([max(len(tokens) - n + 1, 0) for tokens in rows], np.float64)
    numbers: dict[tuple[str, ...], int] = {}
    row, gram = [], []
    for i, tokens in enumerate(rows):
        for found in set(ngrams(tokens, n)):
            row.append(i)
            gram.append(numbers.setdefault(found, len(numbers)))
    row, gram = np.array(row, int), np.array(gram, int)
    alone = np.bincount(gram, minlength=len(numbers))[gram] == 1
    # numbers of those that several rows have
    shared, number = np.unique(gram[~alone], return_inverse=True)
    return {
        "total": total,
        "alone": np.bincount(row[alone], minlength=len(rows)).astype(np.float64),
        "shared": Cells.of(number, shape=(len(shared),), row=row[~alone]),
    }


def reduce(statistics: dict[str, dict[str, Any]], weights: Any) -> dict[str, dict[str, Any]]:
    """Returns of each order the number of n-grams, each row as often as it weighs, and of different
    ones: an n-gram is there if a row with a weight above 0 has it, however much that weighs.
    """
    there = (weights > 0).astype(weights.dtype)
    out = {}
    for order, found in statistics.items():
        shared = _present(found["shared"], weights)
        out[order] = {
            "total": weights @ found["total"].astype(weights.dtype),
            "distinct": there @ found["alone"].astype(weights.dtype) + shared,
        }
    return out


def _present(cells: Cells, weights: Any) -> Any:
    """Returns how many cells `[...]` have an item whose row weighs more than 0."""
    if namespace(weights) is not np:
        return (cells.count(weights) > 0).sum(-1)
    # one after another, for a corpus has more n-grams than memory holds for all replicates
    flat = weights.reshape(int(np.prod(weights.shape[:-1])), weights.shape[-1])
    found = [np.count_nonzero(cells.count(one) > 0) for one in flat]
    return np.array(found, weights.dtype).reshape(weights.shape[:-1])


def value(state: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Computes the share of different n-grams among all (Li et al., 2016); NaN without any."""
    return {f"distinct_{n}": ratio(one["distinct"], one["total"]) for n, one in state.items()}


def observe_repeated(outputs: Outputs) -> dict[str, np.ndarray]:
    """Returns of each answer the share of its n-grams that it has said before, and whether it is
    long enough to have one.
    """
    cut = tokens_of(outputs)
    shares, long = [], []
    for answer in outputs["answer"]:
        found = list(ngrams(cut(answer), REPEATED))
        shares.append(1 - len(set(found)) / len(found) if found else 0.0)
        long.append(bool(found))
    return {"share": np.array(shares, np.float64), "long": np.array(long, np.float64)}


def value_repeated(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean share of repeated n-grams (seq-rep of Welleck et al., 2020), over the
    answers that are long enough to have one.
    """
    return {f"repetition_{REPEATED}": ratio(state["share"], state["long"])}


_SIGNATURE = {"signature": lambda outputs: f"case:mixed|tok:{outputs.tokenizer}"}
METRICS = {
    "distinct": Metric(
        tuple(f"distinct_{n}" for n in ORDERS),
        ("answer",),
        observe,
        value,
        reduce=reduce,
        unbounded=tuple(f"distinct_{n}" for n in ORDERS),
        **_SIGNATURE,
    ),
    "repetition": Metric(
        (f"repetition_{REPEATED}",),
        ("answer",),
        observe_repeated,
        value_repeated,
        lower_is_better=(f"repetition_{REPEATED}",),
        **_SIGNATURE,
    ),
}
