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
from jaxsft.generation.decoding import generate
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


def write_predictions(path: Any, task: Task, split: Split, result: Evaluation) -> None:
    """Writes one line per input row, in order; a dropped row says why."""
    lines = {line["row"]: line for line in task.predictions(split, result.columns, result.answers)}
    with rundir.atomic_lines(path) as file:
        for row in range(len(split.records)):
            line = lines.get(row) or {"row": row, "dropped": split.dropped[row]}
            file.write(rundir.json_text({**line, "where": split.where[row]}) + "\n")


def write_results(run_dir: Any, task: Task, split: Split, result: Evaluation) -> None:
    """Writes `predictions/<split>.jsonl`, the task's tables, and its confusion matrix if any."""
    write_predictions(run_dir / "predictions" / f"{split.name}.jsonl", task, split, result)
    for name, (heads, rows) in task.tables(split, result.columns).items():
        rundir.write_json(
            run_dir / "figures" / f"table_{name}_{split.name}.json",
            {"columns": heads, "rows": rows},
        )
    if hasattr(task, "confusion"):
        matrix = task.confusion(split, result.columns).matrix
        rundir.write_json(
            run_dir / "figures" / f"confusion_{split.name}.json",
            {"labels": task.labels, "matrix": matrix.tolist()},
        )
