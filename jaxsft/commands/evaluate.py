"""Scores a run on a file, from the run directory alone.

  jaxsft eval run=runs/mine data.path=test.jsonl [output=FOLDER] [evaluation.generate_rows=null] [data.columns.prompt=question]

All rows of the file are scored. The numbers are printed and, with predictions, written to FOLDER (default: RUN/evaluations/<file>).
"""

from __future__ import annotations

import json
from pathlib import Path

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.errors import ConfigError


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "output"), ("run",))
    path = next((a.partition("=")[2] for a in overrides if a.startswith("data.path=")), None)
    if not path:
        raise ConfigError("missing data.path=; give run=... data.path=...")
    run = from_run.open_run(mine["run"], overrides, {"train": None, "validation": None, "test": None})

    from jaxsft.evaluation import evaluate as evaluation
    from jaxsft.training import setup

    config, task = run.parts.config, run.parts.task
    rows, records = setup.read_records(config, path, type(task))
    split, result = from_run.evaluate_records(run, from_run.stem(path), (records, [row.where for row in rows]))
    if task.generates and config.evaluation.generate != "never":
        answers, numbers = evaluation.answer(task, run.parts.model, run.params, split, config, run.parts.mesh)
        result = evaluation.Evaluation(result.numbers | numbers, result.columns, answers)
    folder = Path(mine.get("output") or Path(mine["run"]) / "evaluations" / split.name)
    evaluation.write_results(folder, task, split, result)
    numbers = {f"{split.name}/{k}": v for k, v in result.numbers.items()} | {f"{split.name}/rows_read": len(records)}
    rundir.write_json(folder / "result.json", {**numbers, "checkpoint_step": run.step})
    print(json.dumps(numbers, indent=1))
    return 0
