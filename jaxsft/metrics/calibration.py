"""How far probabilities can be trusted: calibration errors, the curve behind them, and the
temperature that mends them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxsft.errors import DataError
from jaxsft.metrics.base import Cells, Metric, Outputs, measure, namespace, ratio
from jaxsft.metrics.probabilities import METRICS as _PROBABILITIES
from jaxsft.metrics.probabilities import exponentials, in_blocks, of_label, wide
from jaxsft.metrics.ranking import tied, upto

BINS = 15
LIMITS = (0.01, 100.0)  # of a temperature


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns the probability of the most probable label of each row, and whether it is right."""

    def work(logits: Any, label: Any) -> tuple[Any, ...]:
        predicted = logits.argmax(-1)
        e, s = exponentials(logits, of_label(logits, predicted))
        return of_label(e, predicted) / s, predicted == label

    confidence, hit = in_blocks(work, outputs["logits"], outputs["label"])
    xp, there = namespace(confidence), outputs["label"] >= 0
    broken = there & xp.isnan(confidence)
    there = there & ~broken
    zero = xp.zeros_like(confidence)
    return {
        "confidence": xp.where(there, confidence, zero),
        "hit": hit & there,
        "count": there,
        "broken": broken,
    }


def of_width(confidence: Any, mass: Any) -> Any:
    """Returns the bin of each row: of equal width, closed above, as in Guo et al. (2017)."""
    xp = namespace(confidence)
    return xp.clip(xp.ceil(confidence * BINS) - 1, 0, BINS - 1)


def of_mass(confidence: Any, mass: Any) -> Any:
    """Returns the bin of each row: of equal weight, by rising confidence (Nixon et al., 2019).

    Rows of equal confidence share a bin, that of the middle of their weights.

    Args:
      confidence: `[rows]`; mass: `[..., rows]`.
    """
    xp = namespace(mass)
    order = xp.argsort(confidence)
    first, end = tied(confidence[order][None])
    rows = mass[..., order][..., None, :]
    twice = (upto(rows, first) + upto(rows, end))[..., 0, :]
    whole = mass.sum(-1)[..., None]
    place = xp.clip(xp.floor(ratio(BINS * twice, 2 * whole, 0.0)), 0, BINS - 1)
    back = xp.broadcast_to(xp.argsort(order), place.shape)
    return xp.take_along_axis(place, back, axis=-1)


def reduce_by(bin_of: Any) -> Any:
    """Returns the `reduce` of bins: `[..., bins]` of weights, confidence and right rows."""

    def reduce(statistics: dict[str, Any], weights: Any) -> dict[str, Any]:
        xp, confidence = namespace(weights), statistics["confidence"]
        mass = weights * statistics["count"]
        place = bin_of(confidence, mass)
        columns = {"rows": xp.ones_like(confidence), "confidence": confidence}
        columns["hit"] = statistics["hit"]
        if place.ndim == 1:
            cells = Cells(place.astype(np.intp if xp is np else xp.int32), (BINS,))
            found = {name: cells.count(mass * x) for name, x in columns.items()}
        else:  # bins that depend on the weights
            stacked = xp.stack([x.astype(weights.dtype) for x in columns.values()], -1)
            sums = [xp.where(place == i, mass, 0) @ stacked for i in range(BINS)]
            sums = xp.stack(sums, -2)
            found = {name: sums[..., i] for i, name in enumerate(columns)}
        return found | {"broken": weights @ statistics["broken"].astype(weights.dtype)}

    return reduce


def curve(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the reliability curve: rows, mean confidence and accuracy of every bin."""
    return {
        "rows": state["rows"],
        "confidence": ratio(state["confidence"], state["rows"]),
        "accuracy": ratio(state["hit"], state["rows"]),
    }


def errors(state: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the expected and the maximum calibration error: the gap of accuracy and confidence,
    as a mean over rows and of the worst bin (Naeini et al., 2015).
    """
    xp = namespace(state["rows"])
    rows = state["rows"].sum(-1)
    gap = abs(state["confidence"] - state["hit"])
    nan = ratio(rows, rows) * xp.where(state["broken"] > 0, xp.nan, 1)
    return ratio(gap.sum(-1), rows) * nan, ratio(gap, state["rows"], 0.0).max(-1) * nan


def _metric(mode: str, bin_of: Any) -> Metric:
    names = tuple(f"{name}_{BINS}_{mode}" for name in ("ece", "mce"))
    return Metric(
        names,
        ("label", "logits"),
        observe,
        lambda state: dict(zip(names, errors(state), strict=True)),
        reduce_by(bin_of),
        each=curve,
        table=f"reliability_{mode}",
        rows_of=lambda outputs: [str(i + 1) for i in range(BINS)],
        lower_is_better=names,
        counts=("rows",),
    )


def temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """Returns the temperature T that gives logits / T the least log loss (Guo et al., 2017).

    It is fitted on validation, to be used on other rows (`scaled`). Where the loss falls for ever,
    as with every row right, T is the nearest of `LIMITS`. Newton's method on 1 / T, of which the
    loss is convex, inside a bracket.

    Args:
      logits: `[rows, labels]`; label: `[rows]` int, below 0: does not count.
    """
    logits, label = (np.asarray(x)[np.asarray(label) >= 0] for x in (logits, label))
    if not len(label) or not np.isfinite(logits).all():
        raise DataError("a temperature needs rows with a label and finite logits")
    logits = wide(logits)
    low, high = 1 / LIMITS[1], 1 / LIMITS[0]
    beta = 1.0
    for step in range(100):
        slope, curvature = _slope(logits, label, beta)
        if slope > 0:
            high = beta
        else:
            low = beta
        new = beta - slope / curvature if curvature > 0 else low
        if not low < new < high or step > 30:  # far out, steps of Newton's method are short
            new = (low * high) ** 0.5
        if abs(new - beta) <= 1e-12 * beta or slope == 0 or high - low <= 1e-12 * high:
            break
        beta = new
    limits = [x for x in (1 / LIMITS[1], 1 / LIMITS[0]) if abs(beta / x - 1) < 1e-9]
    return 1 / (limits[0] if limits else beta)


def _slope(logits: np.ndarray, label: np.ndarray, beta: float) -> tuple[float, float]:
    """Returns the first two derivatives of the mean loss by 1 / T."""

    def work(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, ...]:
        z = logits - logits.max(-1, keepdims=True)
        z = z.astype(np.float64)
        p = np.exp(beta * z)
        p /= p.sum(-1, keepdims=True)
        mean = (p * z).sum(-1)
        spread = (p * (z - mean[:, None]) ** 2).sum(-1)
        return mean - of_label(z, label), spread

    first, second = in_blocks(work, logits, label)
    return float(first.mean()), float(second.mean())


def scaled(outputs: Outputs, temperature: float) -> Outputs:
    """Returns the outputs with logits divided by a temperature, for the numbers after scaling."""
    arrays = {**outputs.arrays, "logits": wide(outputs["logits"]) / temperature}
    return dataclasses.replace(outputs, arrays=arrays)


def before_and_after(outputs: Outputs, temperature: float) -> dict[str, float]:
    """Returns log loss, Brier score and calibration errors, and the same as `NAME_scaled` after
    scaling by a temperature.
    """
    metrics = [_PROBABILITIES["log_loss"], _PROBABILITIES["brier_score"], *METRICS.values()]
    after = scaled(outputs, temperature)
    out: dict[str, float] = {}
    for metric in metrics:
        out |= measure(metric, outputs)
        out |= {f"{name}_scaled": value for name, value in measure(metric, after).items()}
    return out


METRICS = {
    "calibration_equal_width": _metric("equal_width", of_width),
    "calibration_equal_mass": _metric("equal_mass", of_mass),
}
