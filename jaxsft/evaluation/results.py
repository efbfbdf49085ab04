"""What an evaluation writes: predictions row by row, tables, and a confusion matrix."""

from __future__ import annotations

from typing import Any

from jaxsft import rundir
from jaxsft.data.pipeline import Split
from jaxsft.evaluation import measured
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.tasks.base import Task


def write_predictions(path: Any, task: Task, split: Split, result: Evaluation) -> None:
    """Writes one line per input row, in order; a dropped row says why."""
    lines = {line["row"]: line for line in task.predictions(split, result.columns, result.answers)}
    with rundir.atomic_lines(path) as file:
        for row in range(len(split.records)):
            line = lines.get(row) or {"row": row, "dropped": split.dropped[row]}
            file.write(rundir.json_text({**line, "where": split.where[row]}) + "\n")


def write_results(run_dir: Any, task: Task, split: Split, result: Evaluation) -> None:
    """Writes `predictions/<split>.jsonl`, the tables of metrics, and a confusion matrix if any."""
    task = task.with_tuned(result.tuned)
    write_predictions(run_dir / "predictions" / f"{split.name}.jsonl", task, split, result)
    for name, (heads, lines) in measured.tables(result.measured, result.beside).items():
        rundir.write_json(
            run_dir / "figures" / f"table_{name}_{split.name}.json",
            {"columns": heads, "rows": lines},
        )
    if (matrix := measured.confusion(result.measured)) is not None:
        rundir.write_json(
            run_dir / "figures" / f"confusion_{split.name}.json",
            {"labels": task.labels, "matrix": matrix.tolist()},
        )
