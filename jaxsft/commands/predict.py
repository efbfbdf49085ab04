"""Predicts every row of a file, from the run directory alone; labels and answers need not be there.

  jaxsft predict run=runs/mine input=new.jsonl output=predictions.jsonl

The output (.jsonl, .csv or .tsv) has one line per input row, in order: its fields and what was predicted. It is written whole or not at all.
"""

from __future__ import annotations

from jaxsft.commands import from_run
from jaxsft.data import formats


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "input", "output"), ("run", "input", "output"))
    # A row that cannot be predicted is an error here, never a hole in the output.
    run = from_run.open_run(mine["run"], overrides, {"train": None, "validation": None, "test": None, "path": mine["input"], "max_dropped": 1.0})

    from jaxsft.evaluation import evaluate as evaluation
    from jaxsft.training import setup

    config, task = run.parts.config, run.parts.task
    rows = setup.read_rows(config, mine["input"], task.inputs(config.data.columns))
    records, where = [task.unlabelled(row, config.data.columns) for row in rows], [row.where for row in rows]
    if task.generates:
        limit = from_run.new_tokens(run)
        answers, stopped = evaluation.generate_answers(task, run.parts.model, run.params, records, where, config, limit, run.parts.mesh)
        lines = [{"prediction": answers[i], "stopped": stopped[i]} for i in range(len(records))]
    else:
        split, result = from_run.evaluate_records(run, "input", (records, where))
        found = {line["row"]: task.predicted(line) for line in task.predictions(split, result.columns, None)}
        lines = [found.get(i) or {"prediction": None, "dropped": split.dropped[i]} for i in range(len(records))]
    formats.write(({**row.fields, **line} for row, line in zip(rows, lines, strict=True)), mine["output"])
    print(f"{len(rows)} rows: {mine['output']}")
    return 0
