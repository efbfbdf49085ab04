"""What an evaluation writes: predictions row by row, tables, and a confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsft import rundir
from jaxsft.data.pipeline import Split
from jaxsft.evaluation import measured, slices, statistics_file
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.evaluation.measured import Measured
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.tasks.base import Task


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
    """Writes predictions, statistics of rows, tables, slices, and a confusion matrix if any.

    Returns the numbers of the split with their bounds, as `intervals.json` has them.
    """
    task, config = task.with_tuned(result.tuned), task.config
    write_predictions(run_dir / "predictions" / f"{split.name}.jsonl", task, split, result)
    figures, name = run_dir / "figures", split.name
    for table, (heads, lines) in measured.tables(result.measured, result.beside).items():
        rundir.write_json(figures / f"table_{table}_{name}.json", {"columns": heads, "rows": lines})
    if (matrix := measured.confusion(result.measured)) is not None:
        content = {"labels": task.labels, "matrix": matrix.tolist()}
        rundir.write_json(figures / f"confusion_{name}.json", content)
    clusters = clusters_of(split, config)
    write_statistics(run_dir / "predictions", split, result, clusters, config)
    if config.evaluation.slices:
        found = slices.report(result.measured, slices.groups(split, config), clusters, config)
        rundir.write_json(figures / f"slices_{name}.json", found)
    return intervals_of(result, clusters, config)


def bounds_of(task: Task, split: Split, result: Evaluation) -> dict[str, dict[str, Any]]:
    """Returns the numbers of the split with their bounds; nothing is written."""
    return intervals_of(result, clusters_of(split, task.config), task.config)


def clusters_of(split: Split, config: Config) -> np.ndarray | None:
    """Returns what each record belongs to (`data.columns.cluster`); None: rows are independent."""
    if (column := config.data.columns.cluster) is None:
        return None
    return np.array([str(split.beside[where][column]) for where in split.where])


def write_statistics(
    folder: Any, split: Split, result: Evaluation, clusters: np.ndarray | None, config: Config
) -> None:
    """Writes the statistics of rows, from which runs are compared: `<split>.npz`, and
    `<split>_answers.npz` where answers were generated to some rows only.
    """
    groups: dict[bytes, dict[str, Measured]] = {}
    for name, one in result.measured.items():
        groups.setdefault(one.rows.tobytes(), {})[name] = one
    for number, group in enumerate(groups.values()):
        rows = next(iter(group.values())).rows
        content = RowStatistics(
            {name: one.statistics for name, one in group.items()},
            rows,
            statistics_file.digests(split.records[row] for row in rows),
            None if clusters is None else clusters[rows],
            tuple(next((one.labels for one in group.values() if one.labels), ())),
            config.evaluation.metric.partition("/")[2],
        )
        suffix = "_answers" if number else ""
        statistics_file.save(folder / f"{split.name}{suffix}.npz", content)


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
        if name not in out:
            out[name] = {
                "value": value,
                "low": None,
                "high": None,
                "n": None,
                "clusters": None,
                "method": "none",
                "level": e.level,
                "reason": "no sum over rows that is kept",
            }
    return out
