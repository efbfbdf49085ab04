"""Generated answers: to which rows, how long, and whether the model has positions for them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from jaxsft.config.schema import Config
from jaxsft.data.pipeline import Split
from jaxsft.errors import ConfigError
from jaxsft.generation.decoding import generate
from jaxsft.models.model_base import Params
from jaxsft.models.transformer import Transformer
from jaxsft.tasks.task import Task


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
