"""Scores several runs as one: the mean of their predictions, and of their weights.

  jaxsft ensemble runs=[runs/a,runs/b,runs/c] data.path=test.csv [output=FOLDER]
    [evaluation.metrics=[log_loss,calibration_equal_mass]] [options of the runs]
  jaxsft ensemble ... soup=uniform|greedy [select=FILE] [export=FOLDER]

Each run alone, and the ensemble: of labels and label sets the mean of the probabilities, of numbers
the mean. The runs may be of other models and tokenizers, of one task and the same labels.

soup= scores the mean of the weights too, of runs of one model that started from the same weights:
of all of them, or greedily of those that do not harm it on select=FILE, rows that no run was
trained on. Thresholds of label sets (task.threshold=tuned) are tuned on these rows as well.
export=FOLDER writes the soup as a folder of Hugging Face; export.head=body writes the model alone.

With output=FOLDER there are result.json, intervals.json and predictions for each (FOLDER/ensemble,
FOLDER/soup, FOLDER/NAME of a run), which jaxsft compare holds against each other.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.commands.transfer_of_runs import named
from jaxsft.errors import ConfigError

OWN = ("runs", "data.path", "output", "soup", "select", "export", "export.head")
SOUPS = ("uniform", "greedy")


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, OWN, ("runs", "data.path"))
    runs = named(mine["runs"])
    _check(mine, runs)

    from jaxsft import api

    models = {name: api.load(run, *overrides) for name, run in runs.items()}
    found, chosen = _scored(models, mine)
    results = {}
    for name, (_, one) in found.items():
        folder = Path(mine["output"]) / name if "output" in mine else None
        results[name] = one.evaluation.numbers, _bounds(one, folder)
    chosen_by = next(iter(models.values())).config.evaluation.metric
    _show(results, chosen_by.partition("/")[2], sys.stdout.isatty())
    if chosen is not None:
        print(f"soup: {', '.join(chosen)}", file=sys.stderr)
    if "export" in mine:
        from jaxsft.training.export import export

        export(found["soup"][0].run, mine["export"], head=mine.get("export.head", "class"))
    return 0


def _check(mine: dict[str, str], runs: dict[str, str]) -> None:
    """Raises ConfigError for what does not go together."""
    if len(runs) < 2:
        raise ConfigError(f"runs={mine['runs']}: expected two runs at least")
    if taken := {"ensemble", "soup"} & runs.keys():
        raise ConfigError(f"runs=: {taken.pop()} is the name of a result; give the run another one")
    places: dict[Path, str] = {}
    for name, run in runs.items():
        if (twice := places.setdefault(Path(run).resolve(), name)) != name:
            raise ConfigError(f"runs=: {twice} and {name} are one run, which would count twice")
        if "output" in mine:
            _check_folder(Path(mine["output"]), name)
    if mine.get("soup", SOUPS[0]) not in SOUPS:
        raise ConfigError(f"soup={mine['soup']}: expected one of {', '.join(SOUPS)}")
    if mine.get("soup") == "greedy" and "select" not in mine:
        raise ConfigError(
            "soup=greedy: chooses on select=FILE, rows that no run was trained on; give it"
        )
    if (head := mine.get("export.head", "class")) not in ("class", "body"):
        raise ConfigError(f"export.head={head}: expected class or body")
    if {"export", "export.head"} & mine.keys() and "soup" not in mine:
        raise ConfigError("export=: writes a soup; give soup=uniform or soup=greedy")
    if "select" in mine and _same(mine["select"], mine["data.path"]):
        raise ConfigError("select= is the file that is scored; what was chosen on it is no result")


def _same(one: str, other: str) -> bool:
    """Returns whether two paths are of one file, by whatever link."""
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):  # a missing one is told by its reader
        return one == other


def _check_folder(output: Path, name: str) -> None:
    """Raises ConfigError where results would leave the output or replace those of a run."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(
            f"runs=: {name} names no folder in output={output}; give names: runs={{a: DIR, b: DIR}}"
        )
    for folder in (output, output / "ensemble", output / "soup", output / name):
        if (folder / "config.yaml").exists():
            raise ConfigError(
                f"output={output}: {folder} is a run, whose results would be lost; give another"
                " folder"
            )


def _scored(models: dict[str, Any], mine: dict[str, str]) -> tuple[dict[str, Any], Any]:
    """Returns (model, scores) by name, and the runs that the soup is made of."""
    from jaxsft import ensembles

    alone = ensembles.score(models, mine["data.path"], "test")
    select = mine.get("select")
    tuned = list(ensembles.score(models, select, "select").values()) if select else None
    first = next(iter(models.values()))
    mean = ensembles.ensemble(first, list(alone.values()), tuned)
    found = {name: (models[name], one) for name, one in alone.items()}
    found["ensemble"] = (first, mean)
    chosen = None
    if "soup" in mine:
        chosen = models
        if mine["soup"] == "greedy":
            number = first.config.evaluation.metric.partition("/")[2]
            measured = next(
                (m for m in mean.evaluation.measured.values() if number in m.numbers()), None
            )
            lower = measured is None or number in measured.metric.lower_is_better
            chosen = ensembles.greedy_soup(models, mine["select"], number, lower)
        soup = ensembles.soup(chosen, select)
        found["soup"] = (soup, *ensembles.score({"soup": soup}, mine["data.path"], "test").values())
    return found, chosen


def _bounds(one: Any, folder: Path | None) -> dict[str, Any]:
    """Returns the bounds of the numbers; writes all of a model where a folder is given."""
    from jaxsft.evaluation.results import bounds_of, write_results

    if folder is None:
        return bounds_of(one.task, one.split, one.evaluation)
    found = write_results(folder, one.task, one.split, one.evaluation)
    named = lambda values: {f"{one.split.name}/{name}": value for name, value in values.items()}
    rundir.write_json(folder / "intervals.json", named(found))
    rundir.write_json(folder / "result.json", named(one.evaluation.numbers))
    return found


def _show(results: dict[str, Any], first: str, on_screen: bool) -> None:
    """Prints a table, a column for each model and `first` above, or JSON into a file or a pipe."""
    named = lambda place: {
        f"{name}/{number}": value
        for name, found in results.items()
        for number, value in found[place].items()
    }
    if not on_screen:
        print(rundir.json_text(named(0), indent=1))
        return
    from jaxsft.reports import scores

    print("\n".join(scores.lines(named(0), first, named(1))))
