"""Tasks for annotators, and one answer out of what several of them send back.

  jaxsft annotate export schema=schema.yaml input=items.jsonl output=tasks.json tool=labelstudio
    (or doccano, conll)
  jaxsft annotate import schema=schema.yaml inputs=[anna.json,ben.json] tool=labelstudio
    output=adjudicated.jsonl
                         [method=majority|dawid_skene] [gold=FILE] [report=FILE.md]
                         [annotators=[anna,ben]]

export writes the labelling setup for Label Studio beside the tasks, as .xml. import takes the
exports of the tools, one file or one per annotator (called as the annotator, unless the tool names
them or annotators= does), and also tool=jsonl: rows with item, annotator and label, labels or
spans. The output has a row per item: its answer, how it was decided, and `candidates` where
annotators tie; a tie has no answer. gold= is a file of rows with item and answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.data import formats
from jaxsft.errors import ConfigError, DataError

READ = ("labelstudio", "doccano", "conll", "jsonl")


def main(arguments: list[str]) -> int:
    kinds = {"export": _export, "import": _import}
    if not arguments or arguments[0] not in kinds:
        raise ConfigError(
            "give export or import: jaxsft annotate export ..., not"
            f" {arguments[0] if arguments else 'nothing'}"
        )
    return kinds[arguments[0]](arguments[1:])


def _options(given: Sequence[str], needed: Sequence[str], more: Sequence[str]) -> dict[str, str]:
    mine, rest = from_run.arguments(given, (*needed, *more), needed)
    if rest:
        raise ConfigError(
            f"{rest[0]} is unknown here; there are"
            f" {', '.join(f'{key}=' for key in (*needed, *more))}"
        )
    return mine


def _export(given: Sequence[str]) -> int:
    from jaxsft.prepare import annotation_schema, annotation_tools

    mine = _options(given, ("schema", "input", "output", "tool"), ())
    schema = annotation_schema.load(mine["schema"])
    from_run.apart([mine["schema"], mine["input"]], [mine["output"]])
    items = formats.read(mine["input"])
    text = annotation_tools.export_tasks(items, schema, mine["tool"])
    written = [rundir.write_text(mine["output"], text)]
    if mine["tool"] == "labelstudio":
        written.append(
            rundir.write_text(
                Path(mine["output"]).with_suffix(".xml"),
                annotation_tools.label_studio_config(schema),
            )
        )
    print(f"{len(items)} tasks: {', '.join(map(str, written))}")
    return 0


def _import(given: Sequence[str]) -> int:
    from jaxsft.prepare import adjudicate, annotation, annotation_report, annotation_schema

    mine = _options(
        given, ("schema", "inputs", "tool", "output"), ("method", "gold", "report", "annotators")
    )
    if mine["tool"] not in READ:
        raise ConfigError(f"tool={mine['tool']!r} is unknown; expected one of {', '.join(READ)}")
    schema = annotation_schema.load(mine["schema"])
    paths = _list(mine["inputs"])
    names = (
        _list(mine["annotators"])
        if mine.get("annotators")
        else [Path(path.removesuffix(".gz")).stem for path in paths]
    )
    from_run.apart(
        [mine["schema"], *paths, *filter(None, [mine.get("gold")])],
        [mine["output"], *filter(None, [mine.get("report")])],
    )
    if len(names) != len(paths):
        raise ConfigError(
            f"annotators= has {len(names)} names and inputs= {len(paths)} files; expected as many"
            " of both"
        )
    work = annotation.collect(
        [
            (name, formats.read(path, format=mine["tool"]))
            for name, path in zip(names, paths, strict=True)
        ],
        schema,
    )
    if not work.items:
        raise DataError(f"{paths[0]}:1: found no annotation in {len(paths)} file(s)")
    gold = _gold(mine["gold"], schema) if mine.get("gold") else None
    found = adjudicate.adjudicate(work, schema, mine.get("method") or "majority")
    numbers = annotation_report.report(work, schema, found, gold)
    formats.write([_line(d, work, schema) for d in found.decisions], mine["output"])
    if mine.get("report"):
        rundir.write_text(mine["report"], annotation_report.markdown(numbers))
    alpha = numbers["agreement"].get("alpha")
    told = f", alpha {alpha:.3f}" if isinstance(alpha, float) else ""
    print(
        f"{len(work.annotators)} annotators, {len(work.items)} items, {len(numbers['ties'])}"
        f" ties{told}: {mine['output']}"
    )
    return 0


def _list(text: str) -> list[str]:
    """Returns the names of `[a,b]` or `a,b`. Raises ConfigError where one is empty."""
    names = [
        part.strip().strip("'\"")
        for part in text.strip().removeprefix("[").removesuffix("]").split(",")
    ]
    if not all(names):
        raise ConfigError(f"found {text!r}, expected names between commas, such as [a.json,b.json]")
    return names


def _gold(path: str, schema: Any) -> dict[str, Any]:
    from jaxsft.prepare import annotation

    out: dict[str, Any] = {}
    for row in formats.read(path):
        item = row.fields.get("item")
        value = annotation.value_of(row.fields, schema, row.where)
        if not isinstance(item, str | int) or value is None:
            raise DataError(
                f"{row.where}: found item {item!r} and no answer, or no item; expected both in"
                " every row of gold="
            )
        if str(item) in out:
            raise DataError(f"{row.where}: item {item!r} has a gold answer already")
        out[str(item)] = value
    return out


def _line(decision: Any, work: Any, schema: Any) -> Mapping[str, Any]:
    from jaxsft.prepare.annotation import fields_of

    text = {"text": work.texts[decision.item]} if decision.item in work.texts else {}
    about = {
        "status": decision.status,
        "annotators": decision.votes,
        "confidence": round(decision.confidence, 6),
    }
    candidates = [fields_of(value, schema) for value in decision.candidates]
    return {
        "item": decision.item,
        **text,
        **fields_of(decision.value, schema),
        **about,
        "candidates": candidates,
    }
