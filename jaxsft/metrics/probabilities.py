"""Scores of the probability of the right label, and what else is read of logits, row by row.

Logits are taken as they are, at least in float32; a row whose label is below 0 does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio

BLOCK = 8192  # rows that are worked on at once: what is made of them stays in the cache
SAFE = 40.0  # exp(SAFE) squared and added up is a number in float32
TOP = (3, 5)


def wide(x: Any) -> Any:
    """Returns an array of float32 or float64."""
    xp = namespace(x)
    return x if x.dtype in (xp.float32, xp.float64) else x.astype(xp.float32)


def in_blocks(work: Callable[..., tuple[Any, ...]], *arrays: Any) -> tuple[Any, ...]:
    """Returns the arrays that a function makes of rows; of NumPy arrays block by block, on all
    cores.
    """
    rows = len(arrays[0])
    if namespace(arrays[0]) is not np or rows <= BLOCK:
        return work(*arrays)
    one = lambda start: work(*(x[start : start + BLOCK] for x in arrays))
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(one, range(0, rows, BLOCK)))
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def shifted(logits: Any) -> tuple[Any, Any]:
    """Returns logits less their largest one, `[rows, labels]`, and the sum of their `exp`."""
    xp, logits = namespace(logits), wide(logits)
    z = logits - logits.max(-1, keepdims=True)
    return z, xp.exp(z).sum(-1)


def exponentials(logits: Any, largest: Any = None) -> tuple[Any, Any]:
    """Returns what the probabilities `[rows, labels]` are in proportion to, and its sums `[rows]`.

    On the host, `exp` of the logits themselves where no row could overflow or vanish: shares are as
    exact as those of shifted logits, and two passes over them are saved.

    Args:
      largest: `[rows]`, the largest logit of each row, where it is known.
    """
    if namespace(logits) is np:
        logits = wide(logits)
        ends = logits if largest is None else largest
        if ends.max(initial=-np.inf) <= SAFE and ends.min(initial=np.inf) >= -SAFE:
            e = np.exp(logits)
            return e, e.sum(-1)
    z, s = shifted(logits)
    return namespace(z).exp(z), s


def log_probabilities(logits: Any) -> Any:
    """Returns the logarithms of the probabilities `[rows, labels]` (softmax).

    An array of NumPy lies in memory label by label, for it is sorted so.
    """
    work = lambda z, s: z - namespace(s).log(s)[:, None]
    if namespace(logits) is not np:
        return work(*shifted(logits))
    out = np.empty(logits.shape[::-1], wide(logits[:1]).dtype)

    def block(start: int) -> None:
        rows = slice(start, start + BLOCK)
        out[:, rows] = work(*shifted(logits[rows])).T

    with ThreadPoolExecutor() as pool:
        list(pool.map(block, range(0, len(logits), BLOCK)))
    return out.T


def of_label(x: Any, label: Any) -> Any:
    """Returns the value of each row `[rows, labels]` at its label; at the first one below 0."""
    xp = namespace(x)
    return xp.take_along_axis(x, xp.maximum(label, 0)[:, None].astype(xp.int32), -1)[:, 0]


def surprise(outputs: Outputs) -> dict[str, Any]:
    """Returns `-log p` of the right label of each row, in nats; infinite and missing ones apart, so
    that a row of weight 0 changes nothing.
    """

    def work(logits: Any, label: Any) -> tuple[Any, ...]:
        z, s = shifted(logits)
        return (namespace(s).log(s) - of_label(z, label),)

    (nll,), label = in_blocks(work, outputs["logits"], outputs["label"]), outputs["label"]
    xp = namespace(nll)
    nll = xp.where(label >= 0, nll, 0)
    return {
        "nll": xp.where(xp.isfinite(nll), nll, 0),
        "infinite": xp.isinf(nll),
        "broken": xp.isnan(nll),
        "count": label >= 0,
    }


def log_loss(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the mean of `-log p` of the right label, in nats (Good, 1952)."""
    xp = namespace(state["nll"])
    mean = ratio(state["nll"], state["count"])
    mean = xp.where(state["infinite"] > 0, xp.inf, mean)
    return {"log_loss": xp.where(state["broken"] > 0, xp.nan, mean)}


def squares(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row the squared distance of its probabilities to 1 for the right label."""

    def work(logits: Any, label: Any) -> tuple[Any, ...]:
        e, s = exponentials(logits)
        right = of_label(e, label) / s
        return (namespace(e).vecdot(e, e) / s**2 - 2 * right + 1,)

    (square,) = in_blocks(work, outputs["logits"], outputs["label"])
    return guarded(square, outputs["label"])


def guarded(values: Any, label: Any) -> dict[str, Any]:
    """Returns statistics of a mean over the rows that count; what is no number stands apart."""
    xp, there = namespace(values), label >= 0
    broken = there & xp.isnan(values)
    return {
        "value": xp.where(there & ~broken, values, xp.zeros_like(values)),
        "broken": broken,
        "count": there,
    }


def mean(state: dict[str, Any]) -> Any:
    """Returns the mean of guarded values; NaN with a row that is no number."""
    xp = namespace(state["value"])
    return xp.where(state["broken"] > 0, xp.nan, ratio(state["value"], state["count"]))


def brier(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the Brier score over all labels, from 0 to 2 (Brier, 1950)."""
    return {"brier_score": mean(state)}


def places(outputs: Outputs) -> dict[str, Any]:
    """Returns how many labels stand before the right one of each row. Among equal logits the label
    of the larger number stands first, as in scikit-learn.
    """

    def work(logits: Any, label: Any) -> tuple[Any, ...]:
        xp = namespace(logits)
        right = of_label(logits, label)[:, None]
        before = (logits > right).sum(-1)
        equal = (logits == right).sum(-1)
        behind = xp.arange(logits.shape[-1]) > label[:, None]
        if xp is not np or (equal > 1).any():
            before = before + ((logits == right) & behind).sum(-1)
        nan = xp.isnan(logits.max(-1))
        return (xp.where(nan, xp.nan, before.astype(xp.float32)),)

    (before,) = in_blocks(work, outputs["logits"], outputs["label"])
    return guarded(before, outputs["label"])


def top_k(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row whether its label is among the first k."""
    before = places(outputs)
    hits = [(before["value"] < k) & before["count"] for k in TOP]
    return before | {"value": namespace(before["value"]).stack(hits, -1)}


def top_k_accuracy(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the share of rows whose label has one of the k largest logits."""
    of = lambda i: mean(state | {"value": state["value"][..., i]})
    return {f"top_{k}_accuracy": of(i) for i, k in enumerate(TOP)}


_NEEDS = ("label", "logits")
METRICS = {
    "log_loss": Metric(("log_loss",), _NEEDS, surprise, log_loss, lower_is_better=("log_loss",)),
    "brier_score": Metric(
        ("brier_score",), _NEEDS, squares, brier, lower_is_better=("brier_score",)
    ),
    "top_k_accuracy": Metric(
        tuple(f"top_{k}_accuracy" for k in TOP), _NEEDS, top_k, top_k_accuracy
    ),
}
