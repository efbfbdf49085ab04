"""Evaluation of a split: one jitted pass, then generated answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsft.config.schema import Config
from jaxsft.data import pipeline
from jaxsft.data.pipeline import Batch, Batches, Split
from jaxsft.evaluation.generated import answer_limit, generate_answers, rows_to_answer
from jaxsft.metrics import row_metrics, states
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Numbers by name, columns `[examples, ...]` (`word.NAME`: `[words, ...]`), and generated
    answers by row (None: none were asked for).
    """

    numbers: dict[str, float]
    columns: dict[str, np.ndarray]
    answers: dict[int, str] | None = None


def run_pass(
    run: Callable[[Batch], tuple[Any, Mapping[str, Any]]],
    batches: Batches,
    decoded: Callable[[dict], dict] = lambda columns: columns,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns (terms, totals, states) and columns of a split, each example and word exactly once.

    The device is read one batch late.

    Args:
      decoded: what the host makes of the columns of a batch.
    """
    sums, columns, seen = None, {}, np.zeros(batches.split.examples, np.int64)

    def read(step: int, result: tuple[Any, Mapping[str, Any]]) -> None:
        nonlocal sums
        new, values = jax.device_get(result)
        sums = states.merge(sums, states.widen(new))
        ids, words = batches.example_ids(step), batches.word_ids(step)
        np.add.at(seen, ids[ids >= 0], 1)
        for name, value in decoded(values).items():
            to, count = (
                (words, batches.split.words) if name.startswith("word.") else (ids, len(seen))
            )
            column = columns.setdefault(name, np.zeros((count, *value.shape[2:]), value.dtype))
            column[to[to >= 0]] = value[to >= 0]

    late = None
    for step, batch in enumerate(pipeline.stream(batches, 0, len(batches))):
        result = run(batch)
        if late is not None:
            read(*late)
        late = (step, result)
    read(*late)
    assert (seen == 1).all(), "an example was evaluated twice or not at all"
    return sums, columns


def evaluate(
    run: Callable[[Batch], Any],
    task: Task,
    batches: Batches,
    objective: Callable[[Any, Any], float],
    tune: bool = False,
) -> Evaluation:
    """Computes loss and metrics of a split.

    Args:
      run: the compiled evaluation of a batch.
      objective: the loss from merged (terms, totals): the one that training minimises.
      tune: this is the validation split of training, from which the task may learn thresholds.
    """
    (terms, totals, merged), columns = run_pass(run, batches, task.decoded)
    if tune:
        task.tune(batches.split, columns)
    numbers = {"loss": objective(terms, totals), **task.summarise(batches.split, merged, columns)}
    numbers |= _further(task, batches.split, columns)
    return Evaluation(
        numbers | (merged["experts"].compute() if "experts" in merged else {}), columns
    )


def _further(task: Task, split: Split, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the numbers of `evaluation.metrics`, of the predictions without generated answers."""
    if not (wanted := task.config.evaluation.metrics):
        return {}
    lines = list(task.predictions(split, columns, None))
    return {
        name: value
        for one in wanted
        for name, value in row_metrics.numbers(row_metrics.take(one, task.spec), lines).items()
    }


def answer(
    task: Task, model: Transformer, params: Params, split: Split, config: Config, mesh: Mesh
) -> tuple[dict[int, str], dict[str, float]]:
    """Generates the answers of the first `evaluation.generate_rows` kept rows and has the task
    score them. Raises as `answer_limit`.
    """
    kept, (limit, _) = (
        rows_to_answer(split, config.evaluation.generate_rows),
        answer_limit(task, split, config),
    )
    records, where = [split.records[row] for row in kept], [split.where[row] for row in kept]
    texts, stopped = generate_answers(task, model, params, records, where, config, limit, mesh)
    numbers = {
        **task.score(texts, records, where),
        "stopped": float(np.mean(stopped)),
        "generated_rows": len(kept),
    }
    return dict(zip(kept, texts, strict=True)), numbers
