"""Explains the predictions of a run: which tokens a score comes from, and whether that is true.

  jaxsft explain run=runs/mine data=new.jsonl explain.method=integrated_gradients explain.rows=32
  jaxsft explain run=runs/mine data=new.jsonl explain.method=occlusion,shapley explain.layers=true
  jaxsft explain run=runs/mine data=new.jsonl explain.influence=train.jsonl
  jaxsft explain run=runs/mine data=new.jsonl explain.rationale=why explain.against=runs/other

Writes explanations.jsonl (tokens with scores), summary.json and explanations.html, into output= or
into RUN/explanations/<file>, and prints the summary with bounds. Every option is in
docs/explain.md. Scores are computed with precision=fp32, unless another one is given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsft import documents, remote, rundir
from jaxsft.commands import from_run
from jaxsft.config.explain_options import ExplainOptions
from jaxsft.config.option import check, declarations
from jaxsft.errors import ConfigError

OWN = ("run", "data", "output")


def main(arguments: list[str]) -> int:
    names = declarations(ExplainOptions)
    own = (*OWN, *(f"explain.{name}" for name in names))
    mine, overrides = from_run.arguments(arguments, own, ("run", "data"))
    if unknown := [a for a in overrides if a.startswith("explain.")]:
        key = unknown[0].partition("=")[0]
        raise ConfigError(
            f"{key}=: unknown; there are {', '.join(f'explain.{name}' for name in names)}"
        )
    options = parsed(mine)

    from jaxsft import api

    exact = [] if any(a.startswith("precision=") for a in overrides) else ["precision=fp32"]
    load = lambda run, *more: api.load(run, *overrides, *more)
    model = load(mine["run"], *exact)
    result = explained(model, mine["data"], options, load, mine["run"])
    name = Path(mine["data"]).name.split(".")[0]
    home = Path(mine.get("output") or model.folder / "explanations" / name)
    write(home, result)
    if "output" not in mine:
        remote.Mirror(mine["run"], model.folder).push()
    print("\n".join(table(result["summary"])))
    print(f"{len(result['lines'])} texts: {home / 'explanations.html'}", file=sys.stderr)
    return 0


def parsed(mine: Mapping[str, str]) -> ExplainOptions:
    """Returns the options among the arguments. Raises ConfigError for a value that is none."""
    given = {}
    for name, declaration in declarations(ExplainOptions).items():
        key = f"explain.{name}"
        if key not in mine:
            continue
        text = isinstance(declaration.default, str) or declaration.default is None
        value = mine[key] if text else documents.parse_yaml(mine[key], key, ConfigError)
        check(key, declaration, value)
        given[name] = value
    return ExplainOptions(**given)


def explained(
    model: Any, path: str, options: ExplainOptions, load: Any, run: str
) -> dict[str, Any]:
    """Returns what is written: `lines`, `summary`, and `influence` and `layers` where asked for."""
    from jaxsft.evaluation import explain, influence, probing

    split, rows = model.encoded(path, "explain", options.rows)
    one = explain.explain(model.task, model.parts.model, model.params, split, options)
    gold = None
    if options.rationale is not None:
        given = [row.fields.get(options.rationale) for row in rows]
        gold = explain.rationales(split, one.texts, model.task, given, options.rationale)
    result = {"lines": explain.lines(one), "summary": explain.summary(one, options, gold)}
    others = {"against": (options.against, ["precision=fp32"])} if options.against else {}
    if options.against_precision:
        others[options.against_precision] = (run, [f"precision={options.against_precision}"])
    for name, (place, more) in others.items():
        other = load(place, *more)
        theirs = other.encoded(path, "explain", options.rows)[0]
        two = explain.explain_same(
            one, other.task, other.parts.model, other.params, theirs, options
        )
        result["summary"] += explain.compared(one, two, name, options)
    if options.influence:
        train, _ = model.encoded(options.influence, "influence", sys.maxsize)
        result["influence"] = influence.lines(one, train)
    if options.layers:
        result["layers"] = probing.layers(one, options)
    return result


def write(home: Path, result: Mapping[str, Any]) -> None:
    """Writes the files of an explanation into a folder."""
    from jaxsft.reports import explanation_page

    for name, lines in (("explanations", result["lines"]), ("influence", result.get("influence"))):
        if lines is not None:
            with rundir.atomic_lines(home / f"{name}.jsonl") as file:
                file.writelines(rundir.json_text(line) + "\n" for line in lines)
    rundir.write_json(home / "summary.json", result["summary"])
    if "layers" in result:
        rundir.write_json(home / "layers.json", result["layers"])
    explanation_page.write_page(home / "explanations.html", result)


def table(summary: list[dict[str, Any]]) -> list[str]:
    """Returns the summary as lines of text."""
    out = [f"{'method':<22}{'number':<28}{'value':>9}  {'bounds':<20}{'over random':>12}  bounds"]
    for line in summary:
        text = f"{line['method']:<22}{line['number']:<28}{line['value']:>9.4f}  "
        text += f"{_bounds(line['low'], line['high']):<20}"
        if "difference" in line:
            bounds = _bounds(line["difference_low"], line["difference_high"])
            text += f"{line['difference']:>+12.4f}  {bounds}"
        out.append(text.rstrip())
    return out


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
