"""Several runs side by side: differing options, numbers, and curves on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsft.config import compose, metric_names
from jaxsft.reports import charts, curves, facts, page, scores
from jaxsft.rundir import write_text

SHOWN = charts.COLOURS  # runs in one chart
# What differs between any two runs, and is no choice of an experiment.
ASIDE = ("run_dir", "hosts.", "profile", "compilation_cache", "trackers.", "check.")


@dataclass(frozen=True)
class Comparison:
    """Several runs by the name of their directories.

    `options` and `metrics` are the columns, `rows` the cells of a run, "" where it has none.
    """

    runs: list[Path]
    options: list[str]
    metrics: list[str]  # split/metric
    chosen: str
    rows: list[list[str]]

    def lines(self) -> list[str]:
        """Returns the table as lines of text."""
        heads = [
            "run",
            *self.options,
            *(f"{m} *" if m.endswith(f"/{self.chosen}") else m for m in self.metrics),
        ]
        cells = [heads, *([run.name, *row] for run, row in zip(self.runs, self.rows, strict=True))]
        widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]


def compare(runs: Sequence[str | Path], most: int = 4) -> Comparison:
    """Compares runs: differing options, and up to `most` metrics of each evaluated split.

    Raises:
        JaxsftError: one of them is not the directory of a run.
    """
    runs = [Path(run) for run in runs]
    for run in runs:
        facts.check(run)
    configs = [compose.flat(facts.config_or_empty(run)) for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if not key.startswith(ASIDE)
    ]
    options = [
        key for key in keys if len({str(config.get(key, facts.ABSENT)) for config in configs}) > 1
    ]
    options = [key for key in options if not (key.startswith("seeds.") and "seed" in options)]
    chosen = next(filter(None, map(scores.of_run, runs)), "")
    values = [facts.results(run).values if facts.finished(run) else {} for run in runs]
    splits, names, _ = scores.table(
        {place: value for numbers in values for place, value in numbers.items()}, chosen
    )
    names = [name for name in names if name in (chosen, *metric_names.ORDER)][:most]
    places = [(split, name) for split in splits if split not in ("", "train") for name in names]
    shown = lambda numbers, place: facts.number_text(numbers[place]) if place in numbers else ""
    rows = [
        [
            *(_option(config.get(key, "")) for key in options),
            *(shown(numbers, place) for place in places),
        ]
        for config, numbers in zip(configs, values, strict=True)
    ]
    return Comparison(runs, options, ["/".join(place) for place in places], chosen, rows)


def _option(value: Any) -> str:
    """Formats a value of an option; one that a search drew has more digits than a reader wants."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write(runs: Sequence[str | Path], path: str | Path) -> Path:
    """Writes a page of the comparison, without any network, and returns its path.

    Raises JaxsftError.
    """
    found = compare(runs)
    text = (
        page.templates()
        .get_template("compare.html.jinja")
        .render(it=found, charts=_charts(found), more=max(len(found.runs) - SHOWN, 0))
    )
    return write_text(Path(path), text)


def _charts(found: Comparison) -> list[charts.Chart]:
    """Returns charts of training loss, validation loss and the chosen metric, a line per run."""
    rows = {run: facts.read_or(run, "metrics.jsonl", []) for run in found.runs[:SHOWN]}
    out = []
    for title, kind, key in (
        ("Training loss", "train", "loss"),
        ("Validation loss", "validation", "loss"),
        (f"Validation: {found.chosen}", "validation", found.chosen),
    ):
        lines: list[Any] = []
        for i, (run, lines_of_run) in enumerate(rows.items()):
            steps, values = curves.series(lines_of_run, kind, key)
            if len(steps):
                width = curves.smoothing(len(values)) if kind == "train" else 1
                lines.append(
                    (
                        run.name,
                        steps,
                        curves.smooth(values, width),
                        f"{'' if width > 1 else 'dotted '}s{i}",
                    )
                )
        if lines and title not in [chart.title for chart in out]:
            out.append(charts.chart(title, lines))
    return out
