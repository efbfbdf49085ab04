"""The charts of a sweep: learning curves with bands, cost against quality, parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsft.errors import JaxsftError
from jaxsft.reports import charts, curves, facts, score_charts, sweep_page
from jaxsft.sweeps.seed_groups import SeedGroup
from jaxsft.sweeps.sweep_findings import SweepAnalysis
from jaxsft.sweeps.sweep_reading import text_of

AXES = {"seconds": "seconds of a trial", "tokens": "trained tokens", "flops": "FLOPs of the model"}
MOST_AXES = 10
LONGEST = 40  # characters of the name of a line


def curves_of(found: SweepAnalysis) -> tuple[list[charts.Chart], list[str]]:
    """Returns the curves of the best arms, with the range of their seeds, and what is damaged."""
    name = found.results.metric.partition("/")[2]
    kinds = [("Validation: " + name, "validation", name)]
    if name != "loss":
        kinds.append(("Validation loss", "validation", "loss"))
    kinds.append(("Training loss", "train", "loss"))
    shown, notes = found.ranked()[: charts.COLOURS], []
    rows = {group.label: _logged(group, notes) for group in shown}
    out = []
    for title, kind, key in kinds:
        lines = []
        for i, group in enumerate(shown):
            series = [curves.series(of_run, kind, key) for of_run in rows[group.label]]
            lines += _with_band(_short(group), [s for s in series if len(s[0])], i, kind == "train")
        if lines:
            out.append(charts.chart(title, lines))
    return out, notes


def _short(group: SeedGroup) -> str:
    """Returns a name of an arm that fits below a chart: its own, else that of its first trial."""
    if len(group.label) <= LONGEST:
        return group.label
    return f"arm of trial {group.trials[0].number}"


def _logged(group: SeedGroup, notes: list[str]) -> list[list[dict]]:
    """Returns the lines that the runs of an arm logged; of a damaged file a note."""
    out = []
    for trial in group.trials:
        try:
            rows = facts.read_or(trial.run_dir, "metrics.jsonl", [])
            curves.series(rows, "train", "loss")  # of the shape that is read
            out.append(rows)
        except (JaxsftError, TypeError, AttributeError, ValueError) as error:
            notes.append(f"trial {trial.number}: its curve is not drawn: {error}")
    return out


def _with_band(
    label: str, series: Sequence[tuple[np.ndarray, np.ndarray]], colour: int, smoothed: bool
) -> list[tuple[str, np.ndarray, np.ndarray, str]]:
    """Returns the mean over runs at the steps that all have, and a band from lowest to highest."""
    if not series:
        return []
    steps = series[0][0]
    for other, _ in series[1:]:
        steps = np.intersect1d(steps, other)
    if not len(steps):
        return []
    values = []
    for own, of_run in series:
        if smoothed:
            of_run = curves.smooth(of_run, curves.smoothing(len(of_run)))
        values.append(dict(zip(own.tolist(), of_run.tolist(), strict=True)))
    table = np.array([[run[step] for step in steps.tolist()] for run in values])
    mean = table.mean(0)
    style = f"s{colour}" if smoothed else f"dotted s{colour}"
    out = [(label, steps, mean, style)]
    finite = np.isfinite(mean)
    if len(series) > 1 and finite.sum() > 1:
        low, high = table.min(0)[finite], table.max(0)[finite]
        there = np.concatenate([steps[finite], steps[finite][::-1]])
        # below the lines, and telling nothing to a pointer
        out.insert(0, ("", there, np.concatenate([low, high[::-1]]), f"raw band s{colour}"))
    return out


def fronts_of(found: SweepAnalysis, kinds: Sequence[str]) -> list[charts.Chart]:
    """Returns a chart of quality over each cost that differs between arms, with the front."""
    out = []
    for kind in kinds:
        costs = found.costs(kind)
        if len({round(cost, 6) for cost in costs.values()}) < 2:
            continue
        labels = sorted(costs, key=costs.__getitem__)
        x, y = [costs[name] for name in labels], [found.summaries[name].mean for name in labels]
        front = found.front(kind)
        steps = [(costs[name], found.summaries[name].mean) for name in front]
        tips = [f"{n}: {b:.4g} at {a:.4g}" for n, a, b in zip(labels, x, y, strict=True)]
        lines = [
            ("arms", x, y, "dotted points s0"),
            ("front", [a for a, _ in steps], [b for _, b in steps], "dotted s1"),
        ]
        out.append(
            score_charts.plane(
                f"{found.results.metric} over {AXES[kind]}", lines, AXES[kind], "",
                score_charts.around(x), score_charts.around(y), {0: tips, 1: [*front]},
            )
        )  # fmt: skip
    return out


def parallel_of(found: SweepAnalysis) -> sweep_page.ParallelPlot | None:
    """Returns parallel coordinates of trials; None of fewer than two options or three trials."""
    results, trials = found.results, found.results.measured()
    differ = lambda name: len({text_of(t.options.get(name)) for t in trials}) > 1
    names = [name for name in results.options if differ(name)]
    ranked = [effect.name for effect in found.effects.options]
    names = sorted(names, key=lambda n: ranked.index(n) if n in ranked else len(ranked))[:MOST_AXES]
    if len(names) < 2 or len(trials) < 3:
        return None
    rows = [
        [v if isinstance(v := t.options.get(n), int | float) else text_of(v) for n in names]
        for t in trials
    ]
    values = [trial.value for trial in trials]
    tips = [f"trial {t.number}: {t.arm}, {facts.number_text(t.value)}" for t in trials]
    return sweep_page.parallel(
        [*names, results.metric], rows, values, tips, results.lower_is_better
    )
