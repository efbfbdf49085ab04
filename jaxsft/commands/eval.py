"""Scores a run on a file, from the run directory alone.

  jaxsft eval run=runs/mine data.path=test.jsonl [output=FOLDER] [evaluation.generate_rows=null]
  [data.columns.prompt=question]

All rows of the file are scored. The numbers are printed (as a table on a terminal, as JSON into a
file or a pipe) and, with predictions, written to FOLDER (default: RUN/evaluations/<file>). A folder
of Hugging Face is no run directory, and stays as it is: without output= the numbers of its model
are only printed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jaxsft import remote, rundir
from jaxsft.commands import from_run
from jaxsft.data.split_notes import write_quarantine


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(
        arguments, ("run", "output", "data.path"), ("run", "data.path")
    )

    from jaxsft import api
    from jaxsft.evaluation.results import write_results
    from jaxsft.hf import read

    model, aside = api.load(mine["run"], *overrides), []
    split, result, numbers = model.scored(
        mine["data.path"], Path(mine["data.path"]).name.split(".")[0], aside
    )
    numbers = {f"{split.name}/{name}": value for name, value in numbers.items()}
    untrained = read.is_source(model.folder)
    if mine.get("output") or not untrained:
        mirror = remote.Mirror(mine["run"], model.folder)
        folder = Path(mine.get("output") or model.folder / "evaluations" / split.name)
        write_results(folder, model.task, split, result)
        write_quarantine(folder / "quarantine.jsonl", {split.name: aside})
        rundir.write_json(folder / "result.json", {**numbers, "checkpoint_step": model.step})
        if not untrained:
            mirror.push()
    else:
        print(
            f"{mine['run']} is no run directory, so that nothing is written; output=FOLDER keeps"
            " the predictions",
            file=sys.stderr,
        )
    if sys.stdout.isatty():
        from jaxsft.reports import scores

        print("\n".join(scores.lines(numbers, model.config.evaluation.metric.partition("/")[2])))
    else:
        print(rundir.json_text(numbers, indent=1))
    return 0
