"""Runs made by hand: their predictions and statistics, as an evaluation leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxsft.evaluation import statistics_file
from jaxsft.evaluation.compared_runs import RunRows
from jaxsft.evaluation.statistics_file import RowStatistics
from jaxsft.metrics.base import Outputs
from jaxsft.metrics.by_name import METRICS
from tests.tiny import write_lines

LABELS = ("a", "b", "c")


def labels(rows: int = 200, share: float = 0.8, seed: int = 0, gold_seed: int = 0) -> Outputs:
    """Returns rows of three labels of which about this share is right."""
    gold = np.random.default_rng(gold_seed).integers(0, 3, rows)
    rng = np.random.default_rng([seed, 1])
    predicted = np.where(rng.random(rows) < share, gold, (gold + 1 + rng.integers(0, 2, rows)) % 3)
    return Outputs(np.arange(rows), {"label": gold, "predicted": predicted}, LABELS)


def records(outputs: Outputs) -> list[dict[str, str]]:
    return [
        {"text": f"text {row}", "label": LABELS[label]}
        for row, label in zip(outputs.rows, outputs["label"], strict=True)
    ]


def content(outputs: Outputs, clusters: np.ndarray | None = None) -> RowStatistics:
    """Returns what an evaluation knows of the rows."""
    return RowStatistics(
        {"label_scores": METRICS.take("label_scores").observe(outputs)},
        outputs.rows,
        statistics_file.digests(records(outputs)),
        clusters,
        labels={"label_scores": LABELS},
        chosen="accuracy",
    )


def in_memory(name: str, outputs: Outputs, clusters: np.ndarray | None = None) -> RunRows:
    metrics = {"label_scores": METRICS.take("label_scores")}
    return RunRows(name, content(outputs, clusters), metrics)


def write(folder: Path, outputs: Outputs, statistics: bool = True) -> Path:
    """Writes the predictions of a run; with `statistics` those of its rows too."""
    path = folder / "predictions" / "test.jsonl"
    path.parent.mkdir(parents=True)
    write_lines(
        path,
        [
            {
                "row": int(row),
                **record,
                "correct": bool(label == predicted),
                "score": float(label == predicted) / 2,
                "where": f"test.jsonl:{row + 1}",
            }
            for row, record, label, predicted in zip(
                outputs.rows, records(outputs), outputs["label"], outputs["predicted"], strict=True
            )
        ],
    )
    if statistics:
        statistics_file.save(path.with_suffix(".npz"), content(outputs))
    return folder
