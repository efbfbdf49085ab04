"""The report of a sweep as one page, `report.html`, without any network.

`jaxsft.sweeps.sweep_sections` says what stands in it; here it is drawn, with the parallel
coordinates that no other page has.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from jaxsft.reports import page
from jaxsft.reports.charts import SIZE, ticks
from jaxsft.reports.report_tables import ReportSection
from jaxsft.rundir import write_text

WIDE = 100  # ratio of the ends of an axis above which it has powers of ten
MOST_LINES = 400
MOST_MARKS = 8  # of an axis


@dataclass(frozen=True)
class PlotAxis:
    """An axis of parallel coordinates: its place in percent, and marks (percent from the top)."""

    name: str
    at: float
    marks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Thread:
    """The line of one trial, from 0 (the worst) to 1 (the best), and what a pointer shows."""

    path: str
    shade: float
    tip: str


@dataclass(frozen=True)
class ParallelPlot:
    """Parallel coordinates: an axis for each option and the last for the number that chooses."""

    axes: Sequence[PlotAxis]
    threads: Sequence[Thread]
    left_out: int = 0


@dataclass(frozen=True)
class SweepPage:
    """What stands on the page.

    Attributes:
      tiles: name, value, and a note below it.
      command: that of the best arm, "" where there is none.
      sections: id, heading, content, and the plot that stands above its tables.
    """

    title: str
    name: str
    meta: str
    question: str
    tiles: Sequence[tuple[str, str, str]]
    notices: Sequence[str]
    command: str
    sections: Sequence[tuple[str, str, ReportSection, ParallelPlot | None]]


def write_page(folder: Path, content: SweepPage) -> Path:
    """Writes `report.html` into a folder and returns its path.

    Raises JaxsftError where it cannot be written.
    """
    return write_text(folder / "report.html", render(content))


def render(content: SweepPage) -> str:
    """Returns the page as text; all that comes from the sweep is escaped."""
    environment = page.templates()
    environment.filters["slashed"] = lambda name: re.findall(r"[^/.]+[/.]?", name)
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("sweep.html.jinja").render(
        page=content,
        script=Markup(script),  # ours, and nothing in it comes from the sweep
        script_digest=digest,
    )


# --- parallel coordinates
# --------------------------------------------------------------------------------------------------
def parallel(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    values: Sequence[float],
    tips: Sequence[str],
    lower_is_better: bool,
) -> ParallelPlot:
    """Returns parallel coordinates of trials.

    Args:
      names: of the axes; the last is that of the number that chooses.
      rows: of each trial its options.
      values: of each trial the number that chooses, finite.
    """
    order = sorted(range(len(rows)), key=lambda i: values[i], reverse=lower_is_better)
    drawn = order[-MOST_LINES:]  # the best last, above the others
    columns = [*([row[k] for row in rows] for k in range(len(names) - 1)), list(values)]
    scales = [_scale(column) for column in columns]
    at = lambda k: 100 * k / (len(names) - 1)
    axes = [PlotAxis(name, round(at(k), 2), scales[k][1]) for k, name in enumerate(names)]
    threads = []
    for rank, i in enumerate(drawn):
        points = [
            f"{at(k) * SIZE / 100:.1f} {scales[k][0](column[i]) * SIZE / 100:.1f}"
            for k, column in enumerate(columns)
        ]
        shade = rank / max(len(drawn) - 1, 1)
        threads.append(Thread("M" + "L".join(points), round(shade, 3), tips[i]))
    return ParallelPlot(axes, threads, len(order) - len(drawn))


def _scale(column: Sequence[Any]) -> tuple[Any, list[tuple[float, str]]]:
    """Returns where a value lies, in percent from the top, and the marks of its axis."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in column):
        names = sorted({str(v) for v in column})
        place = {name: 100 * (i + 0.5) / len(names) for i, name in enumerate(names)}
        every = max(1, math.ceil(len(names) / MOST_MARKS))
        return lambda v: place[str(v)], [(round(place[n], 2), n) for n in names[::every]]
    low, high = min(column), max(column)
    log = low > 0 and high / low >= WIDE
    of = math.log10 if log else float
    first, last = of(low), of(high)
    if last <= first:
        return lambda v: 50.0, [(50.0, f"{low:.4g}")]
    down = lambda v: 96 - 92 * (of(v) - first) / (last - first)
    if len(set(column)) <= MOST_MARKS:
        marks = sorted(set(column))
    elif log:
        marks = [10.0**k for k in range(math.ceil(first), math.floor(last) + 1)]
    else:
        marks = [x for x in ticks(low, high, 5) if low <= x <= high]
    return down, [(round(down(x), 2), f"{x:.4g}") for x in marks]
