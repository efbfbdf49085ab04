"""Evaluation of a split: one jitted pass, then generated answers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsft import rundir
from jaxsft.config.schema import Config
from jaxsft.data import pipeline
from jaxsft.data.pipeline import Batch, Batches, Split
from jaxsft.errors import ConfigError
from jaxsft.evaluation import measured
from jaxsft.evaluation.measured import Measured
from jaxsft.generation.decoding import generate
from jaxsft.metrics.registry import METRICS
from jaxsft.models import step_sums
from jaxsft.models.transformer import Params, Transformer
from jaxsft.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      numbers: by name, as in result.json.
      columns: `[examples, ...]` (`word.NAME`: `[words, ...]`), what the pass gave.
      measured: the metrics with the statistics of the rows, by name.
      answers: generated texts by row; None: none were asked for.
      tuned: what was learnt from this split, or given: entries of the state of the task.
      beside: numbers that tables of labels show too.
    """

    numbers: dict[str, float]
    columns: dict[str, np.ndarray]
    measured: dict[str, Measured]
    answers: dict[int, str] | None = None
    tuned: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    beside: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


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
        sums = step_sums.merge(sums, step_sums.widen(new))
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
    tuned: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Computes loss and metrics of a split.

    Args:
      run: the compiled evaluation of a batch.
      objective: the loss from merged (terms, totals): the one that training minimises.
      tuned: what the task has learnt from the validation split; None: this is that split, from
        which it learns thresholds.
    """
    (terms, totals, merged), columns = run_pass(run, batches, task.decoded)
    if tuned is None:
        tuned = task.tune(task.row_outputs(batches.split, columns))
    task = task.with_tuned(tuned)
    outputs = task.row_outputs(batches.split, columns)
    further = _further(task, of_answers=False)
    found = measured.measure(task.measures, further, outputs, task.name)
    numbers = {"loss": objective(terms, totals)}
    for one in found.values():
        numbers |= one.numbers(task.spelled)
    if "experts" in merged:
        numbers |= merged["experts"].brief()
    return Evaluation(numbers, columns, found, tuned=tuned, beside=outputs.beside)


def _further(task: Task, of_answers: bool) -> list[str]:
    """Returns the metrics of `evaluation.metrics` that are, or are not, of generated answers."""
    asked = task.config.evaluation.metrics
    return [name for name in asked if METRICS[name].of_answers == of_answers]


def rows_to_answer(split: Split, rows: int | None) -> list[int]:
    """Returns the first `rows` rows that were not dropped; None for all of them."""
    return [row for row in range(len(split.records)) if row not in split.dropped][:rows]


def check_prompts(lengths: Sequence[int], config: Config, where: Sequence[str]) -> None:
    """Raises ConfigError where a prompt is longer than the positions that are learnt, whatever
    training did with such rows.
    """
    context, learned = config.model.context, config.model.positions == "learned"
    if not learned and (config.model.positions != "rope" or config.generate.allow_long):
        return
    for length, place in zip(lengths, where, strict=True):
        if length > context:
            relaxed = "take model.positions=rope" if learned else "set generate.allow_long=true"
            raise ConfigError(
                f"{place}: the prompt has {length} tokens, but"
                f" model.positions={config.model.positions} is learnt up to model.context={context}"
                f" only; raise that, {relaxed}, or set evaluation.generate=never"
            )


def answer_limit(task: Task, split: Split, config: Config) -> tuple[int, int]:
    """Returns (new tokens generated per row, number of references that need more).

    Raises:
      ConfigError: a reference needs more than `generate.max_new_tokens`, so that it could not match
        whatever the model learns; or a prompt is longer than the positions that are learnt.
    """
    kept, limit = (
        rows_to_answer(split, config.evaluation.generate_rows),
        config.generate.max_new_tokens,
    )
    where = [split.where[row] for row in kept]
    check_prompts(
        [
            len(task.prompt(split.records[row], place))
            for row, place in zip(kept, where, strict=True)
        ],
        config,
        where,
    )
    needed = [len(task.answer(split.records[row], split.where[row])) for row in kept]
    if limit == "auto":
        # splits that are alike share a compiled program
        return -(-max(needed, default=1) // 64) * 64, 0
    long = [i for i, n in enumerate(needed) if n > limit]
    if long and not config.generate.allow_cut:
        raise ConfigError(
            f"{split.where[kept[long[0]]]}: the answer has {needed[long[0]]} tokens with its stop"
            f" token, more than generate.max_new_tokens={limit}, and cannot match ({len(long)} of"
            f" {len(kept)} such rows); set generate.max_new_tokens=auto, or generate.allow_cut=true"
            " to count them as wrong"
        )
    return limit, len(long)


def generate_answers(
    task: Task,
    model: Transformer,
    params: Params,
    records: Sequence[Any],
    where: Sequence[str],
    config: Config,
    limit: int,
    mesh: Mesh,
) -> tuple[list[str], list[bool]]:
    """Returns the generated last turn of each record and whether it ended with a stop token.

    Each has at most `limit` tokens.
    """
    prompts = [task.prompt(record, place) for record, place in zip(records, where, strict=True)]
    # Special tokens inside an answer are part of it: only the stop token, which is gone by now, is
    # not.
    read = functools.partial(
        task.tokenizer.decode if task.generates else task.tokenizer.continued, skip_special=False
    )
    given = {
        "max_new_tokens": limit,
        "stop_ids": task.stop_ids,
        "seed": config.seed,
        "mesh": mesh,
        "read": read,
        "start": task.start_ids,
    }
    out = generate(model, params, prompts, config.generate, pieces=task.tokenizer.pieces, **given)
    return [answer.text for answer in out], [answer.stopped for answer in out]


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
    outputs = dataclasses.replace(found, rows=np.array(kept, np.int64), arrays=arrays)
    names = (*task.answer_measures, "stop_rate")
    scored = measured.measure(names, _further(task, of_answers=True), outputs, task.name)
    numbers = dict(result.numbers)
    for one in scored.values():
        numbers |= one.numbers()
    return dataclasses.replace(
        result,
        numbers=numbers,
        measured={**result.measured, **scored},
        answers=dict(zip(kept, texts, strict=True)),
    )


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
