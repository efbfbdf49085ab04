"""Curves as numbers that a page can place.

Paths lie in a square of 1000 x 1000, everything else in percent of its sides.

The square is stretched to the width of the page and its lines keep their thickness; text stands
beside it, in percent, and keeps its size. That is why a chart is readable on a phone without a
script.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxsft.reports import curves, facts
from jaxsft.reports.curves import series

SIZE = 1000
POINTS = 400  # of a drawn line: more cannot be told apart, and the page stays small
BAD_MARKS = 200
TOLD = 40  # points of a line that tell their value
COLOURS = 8  # the page has so many for the lines of one chart


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Its path, its style, the steps (in percent) at which its value was not finite, and some
    points that tell their value: (percent from the left, percent from the top, text).
    """

    name: str
    path: str
    dots: str
    style: str
    bad: list[float] = field(default_factory=list)
    points: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A chart.

    Ticks are (percent from the left or from the top, text); `broken` counts the values that
    were not finite.
    """

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    broken: int = 0
    note: str = ""
    other: "Chart | None" = None  # the same on the other scale, where all values are above 0
    x_label: str = "step"


def charts(rows: Sequence[dict[str, Any]], first: str = "") -> list[Chart]:
    """Returns the charts that the lines of `metrics.jsonl` allow.

    They are the loss, the validation metrics by group, that of the metric `first` in front, and
    the rates of training.
    """
    out = []
    if any(row.get("loss") is not None for row in rows):
        out.append(_loss(rows))
    groups = curves.metric_groups(rows)
    for group, keys in sorted(groups.items(), key=lambda item: first not in item[1]):
        shown = keys[:COLOURS]
        found = [
            (key, *series(rows, "validation", key), f"dotted s{i}") for i, key in enumerate(shown)
        ]
        note = f"{len(shown)} of {len(keys)} shown" if len(keys) > len(shown) else ""
        out.append(chart(f"Validation: {facts.short(group, 60)}", found, note=note))
    steps, rates = series(rows, "train", "learning_rate")
    if len(steps):
        out.append(chart("Learning rate", [("learning rate", steps, rates, "rate")], zero=True))
    for title, key in curves.RATES.items():
        steps, values = series(rows, "train", key)
        if len(steps):
            out.append(_rate(title, steps, values))
    return out


def _rate(title: str, steps: np.ndarray, values: np.ndarray) -> Chart:
    """Returns the chart of one training number that is logged at every log interval."""
    width = curves.smoothing(len(values))
    if width == 1:
        return chart(title, [("", steps, values, "train dotted")], zero=True)
    smoothed = ("", steps, curves.smooth(values, width), "train smooth")
    found = [("", steps, values, "raw"), smoothed]
    return chart(title, found, zero=True, note=f"mean of {width} points")


def _loss(rows: Sequence[dict[str, Any]]) -> Chart:
    steps, values = series(rows, "train", "loss")
    width = curves.smoothing(len(values))
    found = []
    if len(values) and width > 1:
        found.append(("", steps, values, "raw"))
        found.append(
            (
                f"training (mean of {width} points)",
                steps,
                curves.smooth(values, width),
                "train smooth",
            )
        )
    elif len(values):
        found.append(("training", steps, values, "train dotted"))
    checked, checks = series(rows, "validation", "loss")
    if len(checks):
        found.append(("validation", checked, checks, "check dotted"))
    both = np.concatenate([values, checks])
    finite = both[np.isfinite(both)]
    scales = {
        False: chart("Loss", found, zero=curves.from_zero(both)),
        True: chart("Loss", found, log=True, note="log scale")
        if len(finite) and finite.min() > 0
        else None,
    }
    log = curves.needs_log_scale(both)
    return dataclasses.replace(scales[log], other=scales[not log])


def chart(
    title: str,
    found: list[tuple[str, np.ndarray, np.ndarray, str]],
    *,
    log: bool = False,
    zero: bool = False,
    note: str = "",
) -> Chart:
    """Returns a chart of `(name, steps, values, style)`.

    With `zero` its axis begins there, with `log` it has powers of ten.
    """
    steps = np.concatenate([x for _, x, _, _ in found])
    values = np.concatenate([y for _, _, y, _ in found])
    finite = values[np.isfinite(values)]
    first, last = _range(float(steps.min()), float(steps.max()))
    low, high, y_ticks = _log_axis(finite) if log else _axis(finite, zero)
    at = lambda y: 100 * (1 - ((math.log10(y) if log else y) - low) / (high - low))
    place_x = lambda x: 100 * (x - first) / (last - first)
    lines = [_line(name, x, y, style, place_x, at) for name, x, y, style in found]
    x_ticks = [
        (place_x(x), f"{x:,.0f}")
        for x in ticks(first, last, 6)
        if first <= x <= last and x == round(x)
    ]
    broken = sum(int((~np.isfinite(y)).sum()) for _, _, y, style in found if "smooth" not in style)
    return Chart(title, lines, x_ticks, [(at(y), _tick_text(y)) for y in y_ticks], broken, note)


def _line(
    name: str, steps: np.ndarray, values: np.ndarray, style: str, place_x: Any, place_y: Any
) -> Line:
    """Draws a line through the finite points; a point that is not finite interrupts it."""
    bad = (
        []
        if "smooth" in style
        else [round(place_x(x), 2) for x in steps[~np.isfinite(values)][:BAD_MARKS]]
    )
    steps, values = _thin(steps, values)
    path, dots, pen = [], [], "M"
    for x, y in zip(steps, values, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        where = f"{place_x(x) * SIZE / 100:.1f} {place_y(y) * SIZE / 100:.1f}"
        path.append(f"{pen}{where}")
        dots.append(f"M{where}h0")
        pen = "L"
    told = [] if style == "raw" else _points(name, steps, values, place_x, place_y)
    return Line(
        name,
        "".join(path),
        "".join(dots) if "dotted" in style or len(path) == 1 else "",
        style,
        bad,
        told,
    )


def _points(
    name: str, steps: np.ndarray, values: np.ndarray, place_x: Any, place_y: Any
) -> list[tuple[float, float, str]]:
    """Returns up to TOLD points of a line, evenly spaced, each with its step and value."""
    finite = np.flatnonzero(np.isfinite(values))
    count = min(len(finite), TOLD)
    some = finite[np.unique(np.linspace(0, len(finite) - 1, count).round().astype(int))]
    told = lambda i: f"{facts.number_text(float(values[i]))} at step {steps[i]:,.0f}"
    place = lambda i: (round(place_x(steps[i]), 2), round(place_y(values[i]), 2))
    return [(*place(i), f"{name} {told(i)}".strip()) for i in some]


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most about POINTS points.

    They are the lowest and the highest of each stretch, so that no spike is lost, and what is
    not finite.
    """
    if len(values) <= POINTS:
        return steps, values
    keep = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), POINTS // 2):
        finite = part[np.isfinite(values[part])]
        keep |= (
            {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
            if len(finite)
            else {int(part[0])}
        )
        keep |= set(part[~np.isfinite(values[part])][:1].tolist())
    order = sorted(keep)
    return steps[order], values[order]


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _axis(finite: np.ndarray, zero: bool) -> tuple[float, float, list[float]]:
    """Returns the ends of a linear axis and its ticks.

    With `zero` it begins there where no value is below.
    """
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if zero and low >= 0:
        low = 0.0
    if high <= low:
        room = abs(high) / 10
        # what is always 0 is drawn at the foot
        low, high = (low if low == 0 else low - room), high + (room or 1.0)
    marks = ticks(low, high, 5)
    return marks[0], marks[-1], marks


def _log_axis(finite: np.ndarray) -> tuple[float, float, list[float]]:
    """Returns the ends of an axis in powers of ten, and a tick for each power."""
    low, high = math.floor(math.log10(finite.min())), math.ceil(math.log10(finite.max()))
    high = max(high, low + 1)
    every = max(1, round((high - low) / 6))
    return low, high, [10.0**power for power in range(low, high + 1, every)]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Returns about `count` round numbers from at or below `low` to at or above `high`.

    They are 1, 2 or 5 times a power of ten apart.
    """
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def _tick_text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:.6g}"
