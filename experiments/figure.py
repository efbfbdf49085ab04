"""Draws the arms of a sweep: python experiments/figure.py SWEEP FIGURE.png [metric]

Each point is a trial, the bar the mean of an arm with its bounds over the seeds, the best on top.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jaxsft.reports import figures
from jaxsft.sweeps import analysis


def draw(folder: str, metric: str | None = None):
    """Returns the figure of a sweep's arms."""
    found = analysis.analyse(analysis.read_sweep(folder, metric))
    arms = found.ranked()[::-1]
    longest = max(len(arm.label) for arm in arms)
    figure, axes = figures.canvas(5.5 + 0.075 * longest, 1.2 + 0.3 * len(arms))
    for i, arm in enumerate(arms):
        one = found.summaries[arm.label]
        axes.plot(arm.values, [i] * len(arm.trials), "o", color=figures.GREY, ms=4)
        axes.plot([one.mean], [i], "|", color=figures.BLUE, ms=16, mew=2.5)
        if one.low is not None:
            axes.plot([one.low, one.high], [i, i], color=figures.BLUE, lw=1.5)
    axes.set_yticks(range(len(arms)), [arm.label for arm in arms])
    axes.set(xlabel=found.results.metric)
    return figure


if __name__ == "__main__":
    place, target, *more = sys.argv[1:]
    path = Path(target)
    print(figures.save(path.parent, ((path.stem, draw(one, *more)) for one in [place]))[0])
