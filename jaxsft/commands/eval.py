"""Scores a run on a file, or on several, from the run directory alone.

  jaxsft eval run=runs/mine data.path=test.jsonl [output=FOLDER] [evaluation.generate_rows=null]
  [data.columns.prompt=question]
  jaxsft eval run=runs/mine eval.sets={dev: dev.csv, reviews: reviews.csv} [output=FOLDER]

  jaxsft eval run=runs/mine eval.harness=[arc_easy,hellaswag] [eval.harness_path=FOLDER]
  [eval.fewshot=5] [eval.limit=100]

All rows of a file are scored. The numbers are printed with their bounds (as a table on a terminal,
as JSON into a file or a pipe) and, with predictions, written to FOLDER (default:
RUN/evaluations/<file>; of several sets, a folder each). A folder of Hugging Face is no run
directory, and stays as it is: without output= the numbers of its model are only printed.

eval.harness scores a decoder on tasks of lm-evaluation-harness (the extra harness), and
on those of your own in eval.harness_path; a chat is asked through its template.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from jaxsft import documents, remote, rundir
from jaxsft.commands import from_run
from jaxsft.data.split_notes import write_quarantine
from jaxsft.errors import ConfigError

HARNESS = ("eval.harness", "eval.harness_path", "eval.fewshot", "eval.limit")


def main(arguments: list[str]) -> int:
    own = ("run", "output", "data.path", "eval.sets", *HARNESS)
    mine, overrides = from_run.arguments(arguments, own, ("run",))
    files = {"harness": ""} if HARNESS[0] in mine else sets(mine)

    from jaxsft import api
    from jaxsft.hf import pretrained_folder

    model = api.load(mine["run"], *overrides)
    untrained = pretrained_folder.is_source(model.folder)
    home = Path(mine.get("output") or model.folder / "evaluations")
    several, numbers, intervals = "eval.sets" in mine, {}, {}
    for name, file in files.items():
        nested = several or not mine.get("output")
        folder = None if untrained and not mine.get("output") else home / name if nested else home
        asked = HARNESS[0] in mine
        found, bounds = (
            _by_harness(model, mine, folder) if asked else _scored(model, name, file, folder)
        )
        numbers |= found
        intervals |= bounds
    if untrained and not mine.get("output"):
        print(
            f"{mine['run']} is no run directory, so that nothing is written; output=FOLDER keeps"
            " the predictions",
            file=sys.stderr,
        )
    elif not untrained:
        remote.Mirror(mine["run"], model.folder).push()
    if sys.stdout.isatty():
        from jaxsft.reports import scores

        first = model.config.evaluation.metric.partition("/")[2]
        print("\n".join(scores.lines(numbers, first, intervals)))
    else:
        print(rundir.json_text(numbers, indent=1))
    return 0


def sets(mine: dict[str, str]) -> dict[str, str]:
    """Returns the files to score, by name. Raises ConfigError."""
    if ("data.path" in mine) == ("eval.sets" in mine):
        raise ConfigError(
            "give one of data.path=FILE, eval.sets={NAME: FILE, ...} and eval.harness=[TASK, ...]"
        )
    if "data.path" in mine:
        return {Path(mine["data.path"]).name.split(".")[0]: mine["data.path"]}
    where = f"eval.sets={mine['eval.sets']}"
    found = documents.parse_yaml(mine["eval.sets"], where, ConfigError)
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{where}: expected {{NAME: FILE, ...}}")
    for name, file in found.items():
        if not isinstance(file, str) or not re.fullmatch(r"\w[\w.-]*", str(name)):
            raise ConfigError(
                f"{where}: expected a name of letters, digits, - and _, and a file; found {name!r}:"
                f" {file!r}"
            )
    return {str(name): file for name, file in found.items()}


def _by_harness(
    model: Any, mine: dict[str, str], folder: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the numbers of tasks of the library and their bounds; writes both if asked."""
    from jaxsft.evaluation import harness

    read = {
        key: documents.parse_yaml(mine[key], key, ConfigError) for key in HARNESS if key in mine
    }
    tasks = read[HARNESS[0]]
    tasks = tasks if isinstance(tasks, list) else [tasks]
    whole = {key: read[key] for key in HARNESS[2:] if key in read}
    if bad := [key for key, x in whole.items() if isinstance(x, bool) or not isinstance(x, int)]:
        raise ConfigError(f"{bad[0]}={mine[bad[0]]}: expected a whole number")
    more = {key.removeprefix("eval."): x for key, x in whole.items()}
    path = mine.get("eval.harness_path")
    numbers, intervals, found = harness.scored(model, list(map(str, tasks)), folder=path, **more)
    if found["cut_prompts"]:
        print(
            f"{found['cut_prompts']} prompts are longer than model.context, and lost their"
            " beginning",
            file=sys.stderr,
        )
    if folder is not None:
        rundir.write_json(folder / "intervals.json", intervals)
        rundir.write_json(folder / "result.json", {**numbers, "checkpoint_step": model.step})
        harness.write(folder, found)
    return numbers, intervals


def _scored(
    model: Any, name: str, file: str, folder: Path | None
) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the numbers of a file and their bounds, by `name/number`; writes both if asked."""
    from jaxsft.evaluation.results import bounds_of, write_results

    aside: list[Any] = []
    split, result, numbers = model.scored(file, name, aside)
    numbers = {f"{name}/{metric}": value for metric, value in numbers.items()}
    if folder is None:
        found = bounds_of(model.task, split, result)
    else:
        found = write_results(folder, model.task, split, result)
    intervals = {f"{name}/{metric}": entry for metric, entry in found.items()}
    if folder is not None:
        write_quarantine(folder / "quarantine.jsonl", {name: aside})
        rundir.write_json(folder / "intervals.json", intervals)
        rundir.write_json(folder / "result.json", {**numbers, "checkpoint_step": model.step})
    return numbers, intervals
