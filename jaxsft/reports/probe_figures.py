"""Draws what `jaxsft probe` measured: losses over rates, noise over steps, memory over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxsft.reports import figures
from jaxsft.reports.figures import BLUE, GREEN, GREY, ORANGE, RED


def draw_rates(
    rates: Sequence[float], ends: Sequence[float], start: float, suggested: float
) -> Figure:
    """Draws the loss that each rate came to, with that of the start and the suggested rate."""
    figure, axes = figures.canvas()
    finite = np.isfinite(ends)
    axes.plot(np.array(rates)[finite], np.array(ends)[finite], color=BLUE, marker="o", ms=4)
    axes.axhline(start, color=GREY, ls="--", lw=1.2, label="before the first step")
    axes.axvline(suggested, color=GREEN, lw=1.5, label=f"suggested: {suggested:.2g}")
    for rate in np.array(rates)[~finite]:
        axes.axvline(rate, color=RED, lw=0.8, alpha=0.5)
    low = min(min(np.array(ends)[finite], default=start), start)
    # a rate that nearly diverges would hide all others
    axes.set(
        title="Range of learning rates", xlabel="learning rate (red: diverged)",
        ylabel="loss of the last third of the steps", xscale="log",
        ylim=(low - 0.05 * abs(start - low), start + 0.6 * abs(start - low)),
    )  # fmt: skip
    _plain(axes.xaxis)
    axes.legend()
    return figure


def draw_noise(found: Sequence[tuple[int, float, float, float]], batch_size: int) -> Figure:
    """Draws the noise scale at each step, (step, rows, low, high), and the batch that was used."""
    figure, axes = figures.canvas()
    shown = [one for one in found if math.isfinite(one[1])]
    if shown:
        steps, rows, low, high = np.array(shown).T
        high = np.where(np.isfinite(high), high, 10 * rows)
        axes.errorbar(
            steps, rows, [rows - low, high - rows], color=BLUE, marker="o", capsize=4, lw=1.5
        )
    axes.axhline(batch_size, color=ORANGE, ls="--", lw=1.2, label=f"rows of a step: {batch_size}")
    axes.set(title="Noise of the gradient", xlabel="step", ylabel="B_simple, rows", yscale="log")
    _plain(axes.yaxis)
    axes.legend()
    return figure


def draw_rows(compiled: Mapping[int, tuple[float, float]], limit: float, most: int) -> Figure:
    """Draws the memory of compiled steps over their rows, in GiB, and where it ends."""
    figure, axes = figures.canvas()
    rows = list(compiled)
    for i, (name, colour) in enumerate((("training step", BLUE), ("evaluation", ORANGE))):
        sizes = [compiled[n][i] / 2**30 for n in rows]
        axes.plot(rows, sizes, color=colour, marker="o", label=name)
    axes.axhline(limit / 2**30, color=RED, ls="--", lw=1.2, label="there is")
    if most:
        axes.axvline(most, color=GREEN, lw=1.5, label=f"fits: {most}")
    axes.set(title="Memory of a device", xlabel="rows of a step", ylabel="GiB")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    axes.legend()
    return figure


def _plain(axis: Axis) -> None:
    """Writes the numbers of a logarithmic axis as they are; formulas are not set here.

    An axis of less than two decades has numbers between the powers of ten too.
    """
    low, high = axis.get_view_interval()
    if axis.get_transform().base == 10 and high < 100 * low:
        axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(folder: str | Path, name: str, draw: Callable[[], Figure]) -> Path:
    """Draws a figure as PNG, and returns its path. Raises JaxsftError."""
    return figures.save(Path(folder), ((name, one()) for one in (draw,)))[0]
