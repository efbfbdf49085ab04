"""Answers one prompt, from the run directory alone: the template, the stop token and the tokenizer are those of training.

  jaxsft generate run=runs/mine prompt="translate: red cat" [generate.max_new_tokens=64] [generate.temperature=0.7 seed=1]

A run of task=lm continues the prompt as text.
"""

from __future__ import annotations

from jaxsft.commands import from_run
from jaxsft.data.formats import Row
from jaxsft.errors import ConfigError


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "prompt"), ("run", "prompt"))
    run = from_run.open_run(mine["run"], overrides)
    task = run.parts.task
    if not task.can_generate:
        raise ConfigError(f"run={mine['run']}: task={task.name} generates nothing; use jaxsft predict")

    from jaxsft.models.generate import generate

    config = run.parts.config
    columns = config.data.columns
    field = (columns.prompt or "prompt") if task.generates else (columns.text or "text")
    record = task.unlabelled(Row({field: mine["prompt"]}, "prompt", 1), columns)
    [(ids, _)] = generate(
        run.parts.model,
        run.params,
        [task.prompt(record, "prompt")],
        max_new_tokens=from_run.new_tokens(run),
        stop_ids=task.stop_ids,
        batch_size=1,
        temperature=config.generate.temperature,
        seed=config.seed,
    )
    print(task.tokenizer.decode(ids))
    return 0
