"""Metrics that are the mean over rows of a number that each row has by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsft.metrics.base import Metric, Outputs, ratio

AT = (1, 5, 10)  # of the recall of retrieval


def mean(
    names: tuple[str, ...],
    needs: tuple[str, ...],
    of_row: Callable[[Outputs], list[Any]],
    rows: str = "rows",
    **more: Any,
) -> Metric:
    """Makes a metric of means over rows.

    Args:
      of_row: returns an array `[rows]` for each name but the last, which counts the rows.
    """

    def observe(outputs: Outputs) -> np.ndarray:
        columns = [np.asarray(x, np.float64) for x in of_row(outputs)]
        return np.stack([*columns, np.ones(len(outputs))], -1)

    def value(state: Any) -> dict[str, Any]:
        count = state[..., -1]
        return {name: ratio(state[..., i], count) for i, name in enumerate(names)} | {rows: count}

    return Metric((*names, rows), needs, observe, value, counts=(rows,), **more)


METRICS = {
    "row_count": mean((), (), lambda outputs: []),
    # of a joint task: the intent, and the intent with all tags
    "frame_scores": mean(
        ("intent_accuracy", "frame_accuracy"),
        ("intent_hit", "frame_hit"),
        lambda outputs: [outputs["intent_hit"], outputs["frame_hit"]],
    ),
    # of a stretch of text, as in SQuAD
    "answer_scores": mean(
        ("exact_match", "f1"),
        ("exact", "f1"),
        lambda outputs: [outputs["exact"], outputs["f1"]],
    ),
    # mean reciprocal rank (Voorhees, 1999), and recall among the first k
    "retrieval_scores": mean(
        ("mrr", *(f"recall_at_{k}" for k in AT)),
        ("rank",),
        lambda outputs: [1 / outputs["rank"], *(outputs["rank"] <= k for k in AT)],
    ),
    "stop_rate": mean(
        ("stopped",), ("stopped",), lambda outputs: [outputs["stopped"]], rows="generated_rows"
    ),
}
