"""Scores a run on a file, from the run directory alone.

  jaxsft eval run=runs/mine data.path=test.jsonl [output=FOLDER] [evaluation.generate_rows=null] [data.columns.prompt=question]

All rows of the file are scored. The numbers are printed and, with predictions, written to FOLDER (default: RUN/evaluations/<file>).
"""

from __future__ import annotations

import json
from pathlib import Path

from jaxsft import remote, rundir
from jaxsft.commands import from_run


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "output", "data.path"), ("run", "data.path"))

    from jaxsft import api
    from jaxsft.evaluation.evaluate import write_results
    from jaxsft.training import setup

    model, aside = api.load(mine["run"], *overrides), []
    split, result, numbers = model.scored(mine["data.path"], Path(mine["data.path"]).name.split(".")[0], aside)
    mirror = remote.Mirror(mine["run"], model.folder)
    folder = Path(mine.get("output") or model.folder / "evaluations" / split.name)
    write_results(folder, model.task, split, result)
    setup.write_quarantine(folder / "quarantine.jsonl", {split.name: aside})
    numbers = {f"{split.name}/{name}": value for name, value in numbers.items()}
    rundir.write_json(folder / "result.json", {**numbers, "checkpoint_step": model.step})
    mirror.push()
    print(json.dumps(numbers, indent=1))
    return 0
