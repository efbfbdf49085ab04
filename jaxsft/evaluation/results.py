"""What an evaluation writes: predictions and statistics row by row, tables, figures and slices; and
the bounds of its numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Split
from jaxsft.evaluation import group_gaps, measured, score_curves, slices, statistics_file
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.tasks.task import Task

UNBOUNDED = {
    "loss": "a row is compared with the others of its batch, so that it has no loss alone",
    "rows_read": "it only counts",
}


def write_predictions(path: Any, task: Task, split: Split, result: Evaluation) -> None:
    """Writes one line per input row, in order; a dropped row says why."""
    lines = {line["row"]: line for line in task.predictions(split, result.columns, result.answers)}
    with rundir.atomic_lines(path) as file:
        for row in range(len(split.records)):
            line = lines.get(row) or {"row": row, "dropped": split.dropped[row]}
            file.write(rundir.json_text({**line, "where": split.where[row]}) + "\n")


def write_results(
    run_dir: Any, task: Task, split: Split, result: Evaluation
) -> dict[str, dict[str, Any]]:
    """Writes predictions, statistics of rows, tables, slices, and the confusion matrix and
    the curves of scores, if any.

    Returns the numbers of the split with their bounds, as `intervals.json` has them.
    """
    task, config = task.with_tuned(result.tuned), task.config
    write_predictions(run_dir / "predictions" / f"{split.name}.jsonl", task, split, result)
    figures, name = run_dir / "figures", split.name
    beside = {} if result.outputs is None else result.outputs.beside
    for table, (heads, lines) in measured.tables(result.measured, beside).items():
        rundir.write_json(figures / f"table_{table}_{name}.json", {"columns": heads, "rows": lines})
    if (matrix := measured.confusion(result.measured)) is not None:
        content = {"labels": task.labels, "matrix": matrix.tolist()}
        rundir.write_json(figures / f"confusion_{name}.json", content)
    if (curves := score_curves.score_curves(result.outputs)) is not None:
        rundir.write_json(figures / f"curves_{name}.json", curves)
    clusters = clusters_of(split, config)
    chosen = config.evaluation.metric.partition("/")[2]
    rows = statistics_file.of_measured(result.measured, split.records, clusters, chosen)
    statistics_file.save(run_dir / "predictions" / f"{name}.npz", rows)
    if config.evaluation.slices:
        found = slices.report(result.measured, slices.groups(split, config), clusters, config)
        rundir.write_json(figures / f"slices_{name}.json", found)
        apart = group_gaps.of_slices(result.measured, split, clusters, config)
        rundir.write_json(figures / f"slice_gaps_{name}.json", apart)
    return intervals_of(result, clusters, config)


def bounds_of(task: Task, split: Split, result: Evaluation) -> dict[str, dict[str, Any]]:
    """Returns the numbers of the split with their bounds; nothing is written."""
    return intervals_of(result, clusters_of(split, task.config), task.config)


def clusters_of(split: Split, config: Config) -> np.ndarray | None:
    """Returns what each record belongs to (`data.columns.cluster`); None: rows are independent."""
    if (column := config.data.columns.cluster) is None:
        return None
    return np.array([str(split.beside[where][column]) for where in split.where])


def intervals_of(
    result: Evaluation, clusters: np.ndarray | None, config: Config
) -> dict[str, dict[str, Any]]:
    """Returns each number of an evaluation with its bounds, or why it has none."""
    e, out = config.evaluation, {}
    if not e.replicates:
        return out
    for one in result.measured.values():
        if len(one.rows):
            out |= slices.interval_of(one, clusters, e.level, e.replicates)
    for name, value in result.numbers.items():
        if name == "loss" and name in out:
            out[name]["value"] = value  # to the bit that of the result
        elif name not in out:
            out[name] = {
                "value": value,
                "low": None,
                "high": None,
                "n": None,
                "clusters": None,
                "method": "none",
                "level": e.level,
                "reason": UNBOUNDED.get(name, "no sum over rows that is kept"),
            }
    return out
