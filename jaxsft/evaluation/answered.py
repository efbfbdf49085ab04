"""Generated answers to the rows of a split that was evaluated, and their scores."""

from __future__ import annotations

import dataclasses

import numpy as np
from jax.sharding import Mesh

from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Split
from jaxsft.evaluation import measured
from jaxsft.evaluation.evaluate import Evaluation
from jaxsft.evaluation.generated import answer_limit, generate_answers, rows_to_answer
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.task import Task


def with_answers(
    result: Evaluation,
    task: Task,
    model: Transformer,
    params: Params,
    split: Split,
    config: Config,
    mesh: Mesh,
) -> Evaluation:
    """Returns the evaluation with generated answers to the first `evaluation.generate_rows` kept
    rows, and their scores. Raises as `answer_limit`.
    """
    kept, (limit, _) = (
        rows_to_answer(split, config.evaluation.generate_rows),
        answer_limit(task, split, config),
    )
    records, where = [split.records[row] for row in kept], [split.where[row] for row in kept]
    texts, stopped = generate_answers(task, model, params, records, where, config, limit, mesh)
    found = task.answer_outputs(texts, records, where)
    arrays = {**found.arrays, "stopped": np.array(stopped, bool)}
    schemas = {}
    if (column := config.data.columns.schema) is not None:
        schemas = {"schema": [split.beside[place][column] for place in where]}
    outputs = dataclasses.replace(
        found, rows=np.array(kept, np.int64), arrays=arrays, texts={**found.texts, **schemas}
    )
    names = (*task.answer_measures, "stop_rate")
    scored = measured.measure(names, measured.asked(config, of_answers=True), outputs, task.name)
    numbers = dict(result.numbers)
    for one in scored.values():
        numbers |= one.numbers()
    return dataclasses.replace(
        result,
        numbers=numbers,
        measured={**result.measured, **scored},
        answers=dict(zip(kept, texts, strict=True)),
    )
