"""What a reader of a sweep should know before the numbers: seeds that change nothing, trials that
are alike, a best one that is no better than chance, and what is not finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxsft.evaluation import bounds
from jaxsft.sweeps.seed_groups import SeedGroup, pooled_sd
from jaxsft.sweeps.sweep_reading import LISTED, UNFINISHED, SweepResults, SweptTrial, text_of


def listed(items: Sequence[object]) -> str:
    """Returns some items as text, and how many more there are."""
    items = [str(item) for item in items]
    comma, most = (", ", LISTED) if not any("," in item for item in items) else ("; ", 3)
    text = comma.join(items[:most])
    return f"{text} and {len(items) - most} more" if len(items) > most else text


def equal_streams(trials: Sequence[SweptTrial]) -> list[str]:
    """Returns a warning for each set of trials that logged the same numbers at every step.

    Where they differ in their seeds alone, nothing of the run depends on those seeds.
    """
    found: dict[str, list[SweptTrial]] = {}
    for trial in trials:
        if trial.stream:
            found.setdefault(trial.stream, []).append(trial)
    out = []
    for same in (group for group in found.values() if len(group) > 1):
        numbers = listed([trial.number for trial in same])
        every = [{**trial.options, **trial.seeds} for trial in same]
        differ = [name for name in every[0] if len({text_of(one[name]) for one in every}) > 1]
        seeds = [name for name in differ if name in same[0].seeds]
        if differ and len(seeds) == len(differ):
            names = ", ".join(differ)
            why = f"they differ in {names}, which nothing in these runs reads: an unused seed"
        elif differ:
            why = f"though they differ in {', '.join(differ)}, which has no effect on these runs"
        else:
            why = "and have the same options: one of them says nothing new"
        out.append(f"Trials {numbers} logged the same numbers at every step; {why}.")
    return out


def within_noise(
    results: SweepResults, groups: Sequence[SeedGroup], level: float = 0.95
) -> list[str]:
    """Returns a warning where arms cannot be told from the best by the spread that is known."""
    groups = [group for group in groups if group.trials]
    if len(groups) < 2:
        return []
    means = {group.label: group.mean for group in groups}
    best = results.best(means)
    of_seeds = pooled_sd(groups)
    errors = [t.row_error for g in groups for t in g.trials if t.row_error is not None]
    if of_seeds is not None:
        size = {group.label: of_seeds**2 / len(group.trials) for group in groups}
        what = f"the spread between seeds (standard deviation {of_seeds:.3g})"
    elif errors:
        typical = sum(error**2 for error in errors) / len(errors)
        size = {group.label: typical for group in groups}
        what = "the noise of the rows alone; with one seed the noise of seeds comes on top"
    else:
        return ["Each arm has one seed, and no trial has bounds: how much is noise is not known."]
    reach = lambda name: bounds.z_of(level) * math.sqrt(size[name] + size[best])
    near = [name for name in means if name != best and abs(means[name] - means[best]) < reach(name)]
    if not near:
        return []
    verb = "lies" if len(near) == 1 else "lie"
    return [
        f"{len(near)} of the other {len(means) - 1} arms {verb} within the noise of the best,"
        f" {best}, by {what}: {listed(near)}."
    ]


def unfinished(results: SweepResults) -> list[str]:
    """Returns how many trials have no number, and why."""
    out = []
    count = lambda *kinds: [t.number for t in results.trials if t.status in kinds]
    if not results.trials:
        out.append("The plan has no trial.")
    if waiting := count(*UNFINISHED):
        out.append(f"{len(waiting)} of {len(results.trials)} trials are not finished.")
    if failed := count("failed"):
        out.append(f"{len(failed)} of {len(results.trials)} trials failed: {listed(failed)}.")
    if results.trials and not results.measured():
        out.append("No trial is finished and has the number that chooses: nothing is compared.")
    return out


def warnings(results: SweepResults, groups: Sequence[SeedGroup]) -> list[str]:
    """Returns all warnings, the gravest first."""
    done = [trial for trial in results.trials if trial.status == "done"]
    out = [*unfinished(results), *equal_streams(done), *within_noise(results, groups)]
    if results.seeds and groups and all(len(group.trials) < 2 for group in groups if group.trials):
        out.append("No arm has two seeds: what a seed does is not known.")
    return [*out, *results.notes]
