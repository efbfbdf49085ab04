"""How far the numbers of models fall when their rows are perturbed.

Everything is paired by row: a drop, a flip and a difference of two models are of one row with
itself, and share the replicates of the bootstrap.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.config.rules import least_replicates
from jaxsft.errors import DataError
from jaxsft.evaluation import bounds, compare, statistics_file
from jaxsft.evaluation.compare import Arm, Settings
from jaxsft.evaluation.compared_runs import RunRows, column_metric
from jaxsft.evaluation.measured import Measured
from jaxsft.evaluation.perturbed_runs import Condition, ScoredRows
from jaxsft.evaluation.replicates import replicated
from jaxsft.metrics.base import Metric, Outputs, total

FLIPS = "flip_rate"
WORST = "worst_case"


def paired(
    models: Mapping[str, Mapping[Condition | None, ScoredRows]],
) -> dict[str, dict[Condition | None, RunRows]]:
    """Returns the statistics of the rows that every model could be evaluated on in every condition,
    in one order. Raises DataError where none is left.
    """
    every = [one for found in models.values() for one in found.values()]
    if any(list(one.where) != list(every[0].where) for one in every):
        raise DataError(
            "the models, or the conditions, do not make records of the same rows; they"
            " cannot be paired"
        )
    shared: dict[str, np.ndarray] = {}
    for name in every[0].measured:
        if all(name in one.measured for one in every):
            rows = [one.measured[name].rows for one in every]
            shared[name] = functools.reduce(np.intersect1d, rows)
    if not shared or not all(map(len, shared.values())):
        raise DataError("no row could be evaluated in every condition by every model")
    out: dict[str, dict[Condition | None, RunRows]] = {}
    for model, found in models.items():
        clean, out[model] = found[None], {}
        for condition, one in found.items():
            kept = {
                n: one.measured[n].of(np.isin(one.measured[n].rows, r)) for n, r in shared.items()
            }
            content = statistics_file.of_measured(kept, clean.records, clean.clusters)
            metrics = {name: measured.metric for name, measured in kept.items()}
            out[model][condition] = RunRows(model, content, metrics)
    return out


def report(
    models: Mapping[str, Mapping[Condition | None, ScoredRows]],
    numbers: Sequence[str],
    settings: Settings,
) -> dict[str, Any]:
    """Returns the numbers of each model in each condition, with their bounds.

    Args:
      numbers: that are told, of any metric of the task.

    Raises ConfigError for a number that the models do not have.
    """
    bounds.check(settings.level, settings.replicates)
    runs = paired(models)
    arms = [Arm(name, (found[None],)) for name, found in runs.items()]
    metrics = compare.shared_metrics(arms, numbers)
    told: dict[str, Any] = {"models": {}, "differences": []}
    drawn: dict[tuple[str, str], dict[Condition | None, np.ndarray]] = {}
    for name, found in runs.items():
        entries: dict[str, Any] = {}
        for metric_name, (metric, own) in metrics.items():
            replicates = _replicates(found, metric_name, metric, settings)
            for number in own:
                drawn[name, number] = {c: one[number] for c, one in replicates.items()}
                entries[number] = _of_number(
                    models[name], found, metric_name, metric, number, drawn[name, number], settings
                )
        told["models"][name] = {"numbers": entries, "flips": _flips(models[name], settings)}
    told["differences"] = _differences(told["models"], runs, metrics, drawn, settings)
    first = next(iter(models.values()))[None]
    return {
        **told,
        "rows": len(first.records),
        "rows_of_metrics": {
            name: len(next(iter(runs.values()))[None].content.rows_of(name)) for name in metrics
        },
        "level": settings.level,
        "replicates": settings.replicates,
        "seed": settings.seed,
    }


def _replicates(
    runs: Mapping[Condition | None, RunRows], name: str, metric: Metric, settings: Settings
) -> dict[Condition | None, dict[str, np.ndarray]]:
    out = {}
    for condition, run in runs.items():
        of = compare.units_of(run.content, name)
        statistics = run.content.metrics[name]
        out[condition] = replicated(metric, statistics, of, settings.replicates, settings.seed)
    return out


def _of_number(
    found: Mapping[Condition | None, ScoredRows],
    runs: Mapping[Condition | None, RunRows],
    name: str,
    metric: Metric,
    number: str,
    drawn: Mapping[Condition | None, np.ndarray],
    settings: Settings,
) -> dict[str, Any]:
    """Returns one number of a model: as it is, in each condition, and over all of them."""
    lower = number in metric.lower_is_better
    sign = -1 if lower else 1
    single = dataclasses.replace(settings, numbers=[number])
    clean, independent = runs[None], _independent(runs[None], name)
    out: dict[str, Any] = {
        "metric": name,
        "lower_is_better": lower,
        "clean": _interval(clean, name, metric, number, settings),
        "conditions": [],
    }
    for condition, run in runs.items():
        if condition is None:
            continue
        entry: dict[str, Any] = {
            "perturbation": condition.perturbation,
            "strength": condition.strength,
            **_interval(run, name, metric, number, settings),
        }
        entry["drop"] = _drop(clean, run, single, sign)
        entry["worst_slice"] = _worst_slice(found[None].masks, clean, run, name, metric, number,
                                            settings)  # fmt: skip
        out["conditions"].append(entry)
    drops = [entry["drop"] for entry in out["conditions"]]
    for drop, p in zip(drops, compare.holm([drop["p"] for drop in drops]), strict=True):
        drop["p_holm"] = p
    conditions = [condition for condition in runs if condition is not None]
    out["mean_drop"] = {
        name_of: _mean_drop(out, some, drawn, sign, independent, settings)
        for name_of, some in _families(conditions).items()
    }
    if worst := _worst_case(runs, name, metric, number, lower, settings):
        out[WORST] = worst
    return out


def _independent(run: RunRows, name: str) -> int:
    of = compare.units_of(run.content, name)
    return of.rows if of.clusters is None else of.clusters


def _interval(
    run: RunRows, name: str, metric: Metric, number: str, settings: Settings
) -> dict[str, Any]:
    content = run.content
    return bounds.intervals(
        metric,
        content.metrics[name],
        content.rows_of(name),
        clusters=content.clusters_of(name),
        level=settings.level,
        replicates=settings.replicates,
        seed=settings.seed,
    )[number]


def _drop(clean: RunRows, run: RunRows, settings: Settings, sign: int) -> dict[str, Any]:
    """Returns how much is lost (above 0: it is worse), with bounds and p of the paired test."""
    one, other = (dataclasses.replace(x, name=n) for n, x in (("clean", clean), ("changed", run)))
    arms = [Arm(x.name, (x,)) for x in (one, other)]
    found = compare.compare(arms, settings).pairs
    if not found:  # not finite in one of the two
        return {"value": math.nan, "low": None, "high": None, "p": None, "test": "none"}
    entry = found[0]
    out = {"value": 0.0 - sign * entry["difference"], "low": None, "high": None}
    if entry["low"] is not None:
        ends = sorted(0.0 - sign * entry[end] for end in ("low", "high"))
        out |= {"low": ends[0], "high": ends[1]}
    kept = ("se", "p", "test", "minimum_detectable")
    return out | {key: entry[key] for key in kept if key in entry}


def _families(conditions: Sequence[Condition]) -> dict[str, list[Condition]]:
    """Returns the conditions of each perturbation, and all of them."""
    out = {"all": list(conditions)}
    for condition in conditions:
        out.setdefault(condition.perturbation, []).append(condition)
    return out


def _mean_drop(
    told: Mapping[str, Any],
    conditions: Sequence[Condition],
    drawn: Mapping[Condition | None, np.ndarray],
    sign: int,
    independent: int,
    settings: Settings,
) -> dict[str, Any]:
    values = [
        entry["value"]
        for entry in told["conditions"]
        if Condition(entry["perturbation"], entry["strength"]) in conditions
    ]
    apart = sign * (drawn[None] - np.mean([drawn[c] for c in conditions], axis=0))
    value = sign * (told["clean"]["value"] - float(np.mean(values)))
    return {"value": value, **bounds.percentile(apart, settings.level, independent)}


def _worst_slice(
    masks: Mapping[str, np.ndarray],
    clean: RunRows,
    run: RunRows,
    name: str,
    metric: Metric,
    number: str,
    settings: Settings,
) -> dict[str, Any] | None:
    """Returns the slice with the worst number, whose bounds hold for all slices together
    (Bonferroni); None without slices.
    """
    rows, found = run.content.rows_of(name), []
    family = dataclasses.replace(settings, level=1 - (1 - settings.level) / max(len(masks), 1))
    replicates = max(settings.replicates, least_replicates(family.level))
    family = dataclasses.replace(family, replicates=replicates)
    for label, mask in masks.items():
        keep = mask[rows]
        if not keep.any():
            continue
        values = [
            _interval(_some_rows(x, name, keep), name, metric, number, family) for x in (run, clean)
        ]
        entry = {"slice": label, "rows": int(keep.sum()), **values[0], "clean": values[1]["value"]}
        found.append(entry)
    finite = [entry for entry in found if math.isfinite(entry["value"])]
    sign = -1 if number in metric.lower_is_better else 1
    return min(finite, key=lambda entry: sign * entry["value"], default=None)


def _some_rows(run: RunRows, name: str, keep: np.ndarray) -> RunRows:
    """Returns a run with one metric, of some of its rows."""
    content = run.content
    one = Measured(run.metrics[name], content.metrics[name], content.rows_of(name), ()).of(keep)
    clusters = content.clusters_of(name)
    new = statistics_file.RowStatistics(
        {name: one.statistics},
        one.rows,
        np.zeros(len(one.rows), np.uint64),
        None if clusters is None else clusters[keep],
    )
    return RunRows(run.name, new, {name: run.metrics[name]})


def _worst_case(
    runs: Mapping[Condition | None, RunRows],
    name: str,
    metric: Metric,
    number: str,
    lower: bool,
    settings: Settings,
) -> dict[str, Any] | None:
    """Returns the number where each row counts in the condition that is worst for it; None where it
    is no mean of 0 or 1 over rows.
    """
    if metric.reduce is not total:
        return None
    each = []
    for run in runs.values():
        statistics, count = run.content.metrics[name], len(run.content.rows_of(name))
        values = bounds.row_values(metric, statistics, count)
        of_rows = bounds.plain_means(metric, statistics, count, values)
        if number not in of_rows:
            return None
        each.append(of_rows[number])
    worst = (np.max if lower else np.min)(each, axis=0)
    there = np.isfinite(worst)
    content = runs[None].content
    return mean_of(WORST, worst[there], content.rows_of(name)[there],
                    _at(content.clusters_of(name), there), settings)  # fmt: skip


def _at(clusters: np.ndarray | None, keep: np.ndarray) -> np.ndarray | None:
    return None if clusters is None else clusters[keep]


def mean_of(
    name: str, values: np.ndarray, rows: np.ndarray, clusters: np.ndarray | None, settings: Settings
) -> dict[str, Any]:
    """Returns the mean of a number of each row, with its bounds."""
    metric = column_metric(name)
    statistics = metric.observe(Outputs(rows, {name: values.astype(np.float64)}))
    return bounds.intervals(
        metric,
        statistics,
        rows,
        clusters=clusters,
        level=settings.level,
        replicates=settings.replicates,
        seed=settings.seed,
    )[name]


def _flips(
    found: Mapping[Condition | None, ScoredRows], settings: Settings
) -> list[dict[str, Any]]:
    """Returns the share of rows whose prediction is another one, in each condition."""
    clean, out = found[None], []
    for condition, one in found.items():
        if condition is None or clean.predictions is None or one.predictions is None:
            continue
        rows = np.array(sorted(set(clean.predictions) & set(one.predictions)), np.int64)
        flips = np.array([clean.predictions[r] != one.predictions[r] for r in rows.tolist()])
        entry = mean_of(FLIPS, flips, rows, _at(clean.clusters, rows), settings)
        out.append(
            {"perturbation": condition.perturbation, "strength": condition.strength, **entry}
        )
    return out


def _differences(
    told: Mapping[str, Any],
    runs: Mapping[str, Mapping[Condition | None, RunRows]],
    metrics: Mapping[str, tuple[Metric, list[str]]],
    drawn: Mapping[tuple[str, str], Mapping[Condition | None, np.ndarray]],
    settings: Settings,
) -> list[dict[str, Any]]:
    """Returns how much more of each number the second of two models loses, on average over each
    perturbation; below 0: it is the more robust one.
    """
    out = []
    for (name, (metric, numbers)), (a, b) in itertools.product(
        metrics.items(), itertools.combinations(runs, 2)
    ):
        independent = _independent(runs[a][None], name)
        conditions = [condition for condition in runs[a] if condition is not None]
        for number, (family, some) in itertools.product(numbers, _families(conditions).items()):
            sign = -1 if number in metric.lower_is_better else 1
            losses = [
                sign * (d[None] - np.mean([d[c] for c in some], axis=0))
                for d in (drawn[a, number], drawn[b, number])
            ]
            values = [told[m]["numbers"][number]["mean_drop"][family]["value"] for m in (a, b)]
            bound = bounds.percentile(losses[1] - losses[0], settings.level, independent)
            entry = {"a": a, "b": b, "number": number, "perturbation": family}
            out.append(entry | {"value": values[1] - values[0], **bound})
    return out
