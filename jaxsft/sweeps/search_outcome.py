"""What a search came to, from its plan and its ledger alone: the number of each point, the best,
and how much of it is luck of the choice. `search.json` of a sweep's folder; Optuna is not needed.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import documents, rundir
from jaxsft.config.schema import Config
from jaxsft.config.search_options import COSTS, SearchConfig
from jaxsft.errors import DataError
from jaxsft.metrics import by_name
from jaxsft.sweeps import search_book
from jaxsft.sweeps.search_book import SearchPoint
from jaxsft.sweeps.sweep_plan import PlannedTrial, SweepPlan
from jaxsft.sweeps.trial_ledger import ENDED, TrialState

NAME, PRUNED = "search.json", "pruned: "  # how the message of a trial begins that was pruned
States = Mapping[str, TrialState]


@dataclasses.dataclass(frozen=True)
class PointResult:
    """What a point came to.

    Attributes:
      status: open | done | failed | pruned.
      values: of a finished one, a number for each metric: the mean over its seeds.
      breaches: by how much each constraint is broken; 0 or less: it is kept.
    """

    point: SearchPoint
    status: str
    values: tuple[float, ...] = ()
    breaches: tuple[float, ...] = ()
    message: str | None = None

    @property
    def feasible(self) -> bool:
        """Returns whether it is finished and keeps all constraints."""
        return self.status == "done" and all(breach <= 0 for breach in self.breaches)


def less_is_better(config: Config, name: str) -> bool:
    """Returns whether less of a number is better, as the task of a config says."""
    if name in COSTS:
        return True
    spec, number = config.task.spec, name.partition("/")[2]
    measures = [*spec.measures, *spec.answer_measures, *config.evaluation.metrics]
    low = {"loss", *by_name.lower_is_better(measures)}
    # of several targets each has a number of its own, as mse_LABEL
    known = {"loss", *by_name.numbers_of(measures)}
    return number in low or (
        number not in known and any(number.startswith(f"{one}_") for one in low)
    )


def value_of(name: str, trial: PlannedTrial, state: TrialState) -> float | None:
    """Returns a number of a finished trial; None where it has none that is finite."""
    if name == "seconds":
        found = state.seconds
    elif name in COSTS:
        path = trial.run_dir / "manifest.json"
        counts = documents.read_json(path, DataError, dict) if path.is_file() else {}
        key = "total" if name == "parameters" else "trainable"
        found = (counts.get("parameters") or {}).get(key)
    elif name == state.metric:
        found = state.value
    else:
        path = trial.run_dir / "result.json"
        numbers = documents.read_json(path, DataError, dict, halves=True) if path.is_file() else {}
        found = numbers.get(name)
    found = None if found is None else rundir.number(found)
    return found if found is not None and math.isfinite(found) else None


def result_of(
    options: SearchConfig, point: SearchPoint, trials: Sequence[PlannedTrial], states: States
) -> PointResult:
    """Returns what a point came to; it is open until all its trials have ended.

    Args:
      trials: those of the point.
    """
    if point.refused:
        return PointResult(point, "failed", message=point.refused)
    now = [states.get(one.id) or TrialState(one.id, one.number) for one in trials]
    if any(state.status not in ENDED for state in now):
        return PointResult(point, "open")
    for state in now:
        if state.status == "cancelled" and (state.message or "").startswith(PRUNED):
            return PointResult(point, "pruned", message=state.message)
    for state in now:
        if state.status != "done":
            return PointResult(point, "failed", message=state.message or state.status)
    return _finished(options, point, list(zip(trials, now, strict=True)))


def _finished(
    options: SearchConfig,
    point: SearchPoint,
    ended: Sequence[tuple[PlannedTrial, TrialState]],
) -> PointResult:
    """Returns the result of a point whose trials are all done."""
    limits = options.limits
    found: dict[str, float] = {}
    for name in dict.fromkeys([*options.metrics, *(limit[0] for limit in limits)]):
        numbers = [value_of(name, *one) for one in ended]
        if any(number is None for number in numbers):
            return PointResult(point, "failed", message=f"has no finite {name}")
        found[name] = statistics.fmean(numbers)
    breaches = tuple(
        found[name] - bound if kind == "at_most" else bound - found[name]
        for name, kind, bound in limits
    )
    return PointResult(point, "done", tuple(found[m] for m in options.metrics), breaches)


def best(options: SearchConfig, results: Sequence[PointResult]) -> list[PointResult]:
    """Returns the best of the points that keep the constraints; of several metrics all of which
    none is better in each.

    Args:
      options: with a direction for each metric.
    """
    signs = [-1 if one == "maximize" else 1 for one in options.directions]
    costs = {
        one.point.number: tuple(s * v for s, v in zip(signs, one.values, strict=True))
        for one in results
        if one.feasible
    }
    beats = lambda a, b: a != b and all(x <= y for x, y in zip(a, b, strict=True))
    front = [
        one
        for one in results
        if (mine := costs.get(one.point.number)) is not None
        and not any(beats(other, mine) for other in costs.values())
    ]
    seen: dict[tuple[float, ...], PointResult] = {}
    for one in front:
        seen.setdefault(one.values, one)
    return list(seen.values())


def results_of(plan: SweepPlan, states: States) -> list[PointResult]:
    """Returns what each point of a plan came to."""
    options, trials = search_book.options_of(plan), {one.id: one for one in plan.trials}
    return [
        result_of(options, point, [trials[name] for name in point.trials], states)
        for point in search_book.points_of(plan)
    ]


# --- the outcome
# --------------------------------------------------------------------------------------------------
def outcome(plan: SweepPlan, states: States) -> dict[str, Any]:
    """Returns the content of search.json."""
    options, results = search_book.options_of(plan), results_of(plan, states)
    counts = {
        status: sum(one.status == status for one in results)
        for status in ("done", "pruned", "failed", "open")
    }
    told = {
        "sampler": options.sampler,
        "metrics": options.metrics,
        "directions": options.directions,
        "constraints": options.constraints,
        "trials": options.trials,
        "points": counts,
        "infeasible": sum(one.status == "done" and not one.feasible for one in results),
    }
    winners = [_winner(plan, options, one, states) for one in best(options, results)]
    over = not counts["open"] and len(results) >= options.trials
    return {**told, "searched": over, "best": winners}


def _winner(
    plan: SweepPlan, options: SearchConfig, one: PointResult, states: States
) -> dict[str, Any]:
    """Returns the account of a best point, with its confirmation.

    `selection_bias` is how much better the search found it than other seeds do: the best of many
    noisy numbers is too good by chance.
    """
    trials = {trial.id: trial for trial in plan.trials}
    number_of = lambda ids: [trials[name].number for name in ids]
    out = {
        "point": one.point.number,
        "values": dict(one.point.values),
        "trials": number_of(one.point.trials),
        "found": dict(zip(options.metrics, one.values, strict=True)),
    }
    ids = search_book.confirmations_of(plan).get(one.point.number, ())
    if not ids:
        return {**out, "confirmed": False}
    ended = [(trials[name], states[name]) for name in ids if name in states]
    done = [pair for pair in ended if pair[1].status == "done"]
    whole = len(done) == len(ids)
    about: dict[str, Any] = {"trials": number_of(ids), "done": len(done), "of": len(ids)}
    for metric, direction in zip(options.metrics, options.directions, strict=True):
        numbers = [value for pair in done if (value := value_of(metric, *pair)) is not None]
        whole &= len(numbers) == len(ids)
        if numbers:
            mean = statistics.fmean(numbers)
            apart = out["found"][metric] - mean
            about[metric] = {
                "values": numbers,
                "mean": mean,
                "std": statistics.stdev(numbers) if len(numbers) > 1 else None,
                "selection_bias": apart if direction == "maximize" else -apart,
            }
    return {**out, "confirmed": whole, "confirmation": about}


def write(plan: SweepPlan, states: States) -> Path:
    """Writes search.json beside the report. Raises JaxsftError."""
    return rundir.write_json(plan.folder / NAME, outcome(plan, states))


def lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the outcome as lines of text."""
    counts = ", ".join(f"{n} {status}" for status, n in found["points"].items() if n)
    out = [f"search: {found['sampler']}, {found['trials']} sets of values ({counts or 'none yet'})"]
    if found["infeasible"]:
        out.append(f"search: {found['infeasible']} break a constraint")
    if not found["best"]:
        return [*out, "search: there is no best set of values yet"]
    for one in found["best"]:
        out += _winner_lines(one, "best" if found["searched"] else "best so far")
    return out


def _winner_lines(one: Mapping[str, Any], name: str) -> list[str]:
    chosen = " ".join(f"{key}={value}" for key, value in one["values"].items())
    numbers = ", ".join(f"{metric} {value:.4g}" for metric, value in one["found"].items())
    out = [f"search: {name}: point {one['point']}, {chosen}: {numbers} as found"]
    about = one.get("confirmation")
    if about is None:
        return [*out, "search:   not confirmed: the number as found is too good by chance"]
    for metric in one["found"]:
        if metric not in about:
            continue
        these = about[metric]
        std = "" if these["std"] is None else f" (sd {these['std']:.2g})"
        out.append(
            f"search:   with {len(these['values'])} other seeds: {metric} {these['mean']:.4g}{std};"
            f" the search found it {abs(these['selection_bias']):.2g}"
            f" {'better' if these['selection_bias'] >= 0 else 'worse'} than that"
        )
    if not one["confirmed"]:
        out.append(f"search:   {about['done']} of {about['of']} confirmations are done")
    return out
