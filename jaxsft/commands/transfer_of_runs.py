"""Scores runs, each trained on one language, on files of several: the transfer matrix.

  jaxsft transfer runs={de: runs/de, en: runs/en} eval.sets={de: de.csv, en: en.csv, zh: zh.csv}
    [metric=accuracy] [aligned=order] [output=FOLDER] [--json] [options of the runs]

Of each run (a row) and file (a column) the metric with its bounds. A run whose name is that of a
set was trained on its language; runs=[DIR, DIR] are named by their folders. gain: how much better a
run is on its own set than the others are there. gaps: of each run, how far its best set is from its
worst one and from their mean, with bounds that hold for all sets together. One run is enough.

aligned= says that the files hold the same sentences, in the same order or with the same id in a
column (aligned=sent_id): sentences are then drawn together, and of each run is told how alike its
predictions are, for each pair of sets. transfer.json, transfer.md and transfer.html are written to
FOLDER (default: FIRST_RUN/transfer).
"""

from __future__ import annotations

import sys
from typing import Any

from jaxsft import documents, rundir
from jaxsft.commands import compare_runs, eval, from_run
from jaxsft.errors import ConfigError, DataError

OWN = ("runs", "eval.sets", "metric", "aligned", "output")


def main(arguments: list[str]) -> int:
    words = [a for a in arguments if a != "--json"]
    mine, overrides = from_run.arguments(words, OWN, ("runs", "eval.sets"))
    runs, files = named(mine["runs"]), eval.sets({"eval.sets": mine["eval.sets"]})

    from jaxsft import api
    from jaxsft.reports import heat_page

    models = {name: api.load(run, *overrides) for name, run in runs.items()}
    first = next(iter(runs))
    report = measured(models, files, mine)
    report = {"runs": runs, "sets": files, **report}
    folder = from_run.home(models[first], {**mine, "run": runs[first]}, "transfer")
    content = heat_page.of_transfer(report)
    if folder is None:
        from_run.tell_unwritten(runs[first])
    else:
        rundir.write_json(folder / "transfer.json", report)
        rundir.write_text(folder / "transfer.md", heat_page.markdown(content))
        heat_page.write_page(folder / "transfer.html", content)
    asked = "--json" in arguments
    print(rundir.json_text(report, indent=1) if asked else heat_page.markdown(content))
    return 0


def named(text: str) -> dict[str, str]:
    """Returns the runs by name. Raises ConfigError."""
    found = documents.parse_yaml(text, f"runs={text}", ConfigError)
    if isinstance(found, str):
        found = compare_runs.listed(found)
    if isinstance(found, list) and found and all(isinstance(run, str) for run in found):
        names = compare_runs.short_names([[run] for run in found])
        found = dict(zip(names, found, strict=True))
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"runs={text}: expected {{NAME: DIR, ...}} or [DIR, ...]")
    if bad := next((name for name, run in found.items() if not isinstance(run, str)), None):
        raise ConfigError(f"runs={text}: {bad}: expected a run directory, found {found[bad]!r}")
    if len(set(found.values())) < len(found):
        raise ConfigError(f"runs={text}: a run is given twice")
    return {str(name): run for name, run in found.items()}


def measured(models: dict[str, Any], files: dict[str, str], mine: dict[str, str]) -> dict[str, Any]:
    """Returns the matrix, and how alike predictions are where the files are parallel."""
    from jaxsft.evaluation import parallel_predictions, perturbed_runs, transfer_matrix
    from jaxsft.evaluation.compare import Settings

    first = next(iter(models.values()))
    e = first.config.evaluation
    settings = Settings(e.level, e.replicates or 1000, first.config.seed)
    tasks = {model.task.name for model in models.values()}
    if len(tasks) > 1:
        raise ConfigError(f"runs: are of several tasks, {', '.join(sorted(tasks))}")
    if "aligned" in mine and first.task.generates:
        raise ConfigError(
            f"aligned=: task={first.task.name} writes texts, which are not comparable between"
            " languages; leave it out"
        )
    more = [mine["aligned"]] if mine.get("aligned", transfer_matrix.ORDER) != "order" else []
    rows = {n: perturbed_runs.rows_of_file(first, f, None, more) for n, f in files.items()}
    ids = transfer_matrix.aligned(rows, mine["aligned"]) if "aligned" in mine else None
    if ids is not None and len(files) < 2:
        raise ConfigError("aligned=: give two sets at least")
    scored: dict[str, dict[str, Any]] = {}
    for name in files:
        for run, model in models.items():
            print(f"{run} on {name}", file=sys.stderr)
            scored.setdefault(name, {})[run] = perturbed_runs.scored(model, rows[name])
    number = mine.get("metric")
    if number is None:
        [number] = perturbed_runs.first_number(
            first, next(iter(next(iter(scored.values())).values()))
        )
    report = transfer_matrix.matrix(scored, number, settings, ids)
    report["rows"] = {name: len(found) for name, found in rows.items()}
    if ids is not None:
        report["consistency"] = {
            run: parallel_predictions.consistency(
                {name: _predictions(model, rows[name], ids[name]) for name in files}, settings
            )
            for run, model in models.items()
        }
    return report


def _predictions(model: Any, rows: Any, ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Returns what is predicted of each sentence, by its id."""
    lines = model.predict(rows)
    if len(lines) != len(rows):
        raise DataError(f"{rows[0].file}: {len(rows) - len(lines)} rows have no prediction")
    return dict(zip((ids[row.where] for row in rows), lines, strict=True))
