"""Says how far a run falls when its rows are perturbed, what it gets wrong in tests of behaviour,
and how few tokens an attack has to change.

  jaxsft robustness run=DIR data=FILE [OTHER_RUN ...] [output=FOLDER] [--json]
    [robustness.perturbations=[keyboard,delete]] [robustness.strengths=[0.1,0.3]]
    [robustness.metrics=[accuracy,f1_macro]] [robustness.limit=500] [options of the run]
  jaxsft robustness run=DIR data=clean.jsonl robustness.noisy=[ocr.jsonl]
  jaxsft robustness run=DIR tests=FILE.yaml
  jaxsft robustness run=DIR data=FILE attack.queries=100 [attack.rows=50] [attack.edits=3]

Perturbations: noise, keyboard, ocr, case, punctuation, homoglyphs, synonyms, code_switch (these
keep every word where it is, and so fit tags), delete, swap, insert, spaces, truncate, distract. A
strength is the share of characters or words that is changed. All models see the same perturbed
rows, and all bounds are paired by row. The page and its numbers are written to FOLDER (default:
RUN/robustness/<file>): robustness.md, robustness.json and figures/robustness.json. With attack.*
or robustness.noisy= (the same rows, row by row, in a noisy form) the perturbations are left out
unless robustness.perturbations= names some.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.commands import compare_runs, from_run
from jaxsft.errors import ConfigError

OWN = ("run", "data", "tests", "output")
GROUPS = ("robustness", "attack")


def main(arguments: list[str]) -> int:
    given = parsed(arguments)
    runs, mine, groups, overrides = given["runs"], given["mine"], given["groups"], given["rest"]
    if "data" not in mine and "tests" not in mine:
        raise ConfigError("give data=FILE, tests=FILE.yaml, or both")
    for name in GROUPS:
        if groups[name] and "data" not in mine:
            raise ConfigError(f"{name}.{next(iter(groups[name]))}: is of data=FILE; give one")

    from jaxsft.reports import robustness_page

    report, folder = measured(runs, mine, groups, overrides)
    if folder is not None:
        rundir.write_json(folder / "robustness.json", report)
        rundir.write_text(folder / "robustness.md", robustness_page.markdown(report))
        if "models" in report:
            curves = robustness_page.curves(report)
            rundir.write_json(folder / "figures" / "robustness.json", curves)
    else:
        from_run.tell_unwritten(runs[0])
    if "--json" in arguments:
        print(rundir.json_text(report, indent=1))
    else:
        print(robustness_page.markdown(report))
    return 0


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Returns what is asked: `runs`, `mine` (this command's own), `groups` (its options, by
    group), and `rest` (overrides of the runs). Raises ConfigError.
    """
    words = [a for a in arguments if a != "--json"]
    if flags := [a for a in words if a.startswith("-")]:
        raise ConfigError(f"{flags[0]}: unknown; there is --json")
    more, keyed = [a for a in words if "=" not in a], [a for a in words if "=" in a]
    groups: dict[str, dict[str, str]] = {name: {} for name in GROUPS}
    others = []
    for word in keyed:
        key, _, value = word.partition("=")
        group, dot, name = key.partition(".")
        if group in groups and dot:
            if name in groups[group]:
                raise ConfigError(f"{key}= is given twice; give one")
            groups[group][name] = value
        else:
            others.append(word)
    mine, rest = from_run.arguments(others, OWN, ("run",))
    runs = [mine["run"], *more]
    if len(set(runs)) < len(runs):
        raise ConfigError("a run is given twice; it is not compared with itself")
    return {"runs": runs, "mine": mine, "groups": groups, "rest": rest}


def measured(
    runs: list[str],
    mine: dict[str, str],
    groups: dict[str, dict[str, str]],
    overrides: list[str],
) -> tuple[dict[str, Any], Path | None]:
    """Measures every run, and returns the report with the folder that it is written to (None: a
    folder of Hugging Face stays as it is).
    """
    from jaxsft import api
    from jaxsft.evaluation import attack, behavioural, perturbed_runs, robustness
    from jaxsft.evaluation.compare import Settings

    asked = groups["robustness"]
    # files of noisy rows, or an attack, are asked for alone unless perturbations are named too
    alone = "perturbations" not in asked and ("noisy" in asked or bool(groups["attack"]))
    asked = asked | ({"perturbations": "[]"} if alone and "noisy" in asked else {})
    options = options_of(perturbed_runs.RobustnessOptions, "robustness", asked)
    options.check()
    attacking = options_of(attack.AttackOptions, "attack", groups["attack"])
    tests = behavioural.read(mine["tests"]) if "tests" in mine else None
    names = compare_runs.short_names([[run] for run in runs])
    perturbing = "data" in mine and not (alone and "noisy" not in asked)
    models: dict[str, Any] = {}
    report: dict[str, Any] = {"runs": dict(zip(names, runs, strict=True))}
    folder, settings, numbers = None, Settings(), list(options.metrics)
    for i, (name, run) in enumerate(zip(names, runs, strict=True)):
        model = api.load(run, *_with_probabilities(overrides, tests))
        if i == 0:
            file = mine.get("data") or mine["tests"]
            folder = from_run.home(model, mine, "robustness", Path(file).name.split(".")[0])
            e = model.config.evaluation
            settings = Settings(e.level, e.replicates or 1000, model.config.seed)
            _check_numbers(model, numbers)
        if "data" in mine:
            rows = perturbed_runs.rows_of_file(model, mine["data"], options.limit)
        if perturbing:
            tell = lambda what, name=name: print(f"{name}: {what}", file=sys.stderr)
            models[name] = perturbed_runs.measure(model, rows, options, tell)
            numbers = numbers or perturbed_runs.first_number(model, models[name][None])
        if tests is not None:
            found = behavioural.run(tests, model, settings.level)
            report.setdefault("tests", {})[name] = found
        if groups["attack"]:
            found = attack.run(model, rows, attacking, settings)
            report.setdefault("attacks", {})[name] = found
    if models:
        report |= robustness.report(models, numbers, settings)
        report["perturbation_seed"] = options.seed
    return report, folder


def _check_numbers(model: Any, numbers: list[str]) -> None:
    """Raises ConfigError for a number that no evaluation of the model gives."""
    known = model.task.metric_names(model.config)
    if unknown := [name for name in numbers if name not in known]:
        raise ConfigError(
            f"robustness.metrics=[{unknown[0]}]: is no number of task={model.task.name}; there are"
            f" {', '.join(known)}"
        )


def options_of(kind: type, group: str, given: dict[str, str]) -> Any:
    """Returns the options of a group, typed and checked. Raises ConfigError."""
    from jaxsft import documents
    from jaxsft.config import compose, option

    known, values = option.declarations(kind), {}
    for name, text in given.items():
        value: Any = documents.parse_yaml(text, f"{group}.{name}={text}", ConfigError)
        if name in known and "list" in str(known[name].hint) and not isinstance(value, list):
            value = [value]
        values[name] = value
    found = compose.filled(kind, values, group)
    for name, declaration in known.items():
        value = getattr(found, name)
        for one in value if isinstance(value, tuple | list) else [value]:
            option.check(f"{group}.{name}", declaration, one)
    return found


def _with_probabilities(overrides: list[str], tests: Any) -> list[str]:
    """Returns the overrides, with the probability of every label where tests read it."""
    from jaxsft.evaluation import behavioural

    key = "evaluation.probabilities"
    if tests is None or not behavioural.reads_probabilities(tests):
        return overrides
    return [text for text in overrides if not text.startswith(f"{key}=")] + [f"{key}=true"]
