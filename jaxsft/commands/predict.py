"""Predicts every row of a file, from the run directory alone; labels and answers need not be there.

  jaxsft predict run=runs/mine input=new.jsonl output=predictions.jsonl

The output (.jsonl, .csv or .tsv) has one line per input row, in order: its fields and what was predicted. It is written whole or not at all.
In .conll and .conllu, of task=tag and task=parse, predicted tags, heads and relations stand in the columns that they were learnt from.
A number of the input that is not finite, which JSON does not have, becomes the text NaN, Infinity or -Infinity.
With data.on_bad_row=quarantine rows that cannot be read are left out and told in OUTPUT.quarantine.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.data import formats
from jaxsft.errors import DataError


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "input", "output"), ("run", "input", "output"))

    from jaxsft import api
    from jaxsft.training import setup

    model, aside = api.load(mine["run"], *overrides), []
    lines = model.predict(model.read(mine["input"], aside))
    strict = (json.loads(rundir.json_text(line)) for line in lines)  # no answer is lost to a NaN in a column of the input
    name = Path(mine["output"]).name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        strict = (cells(line, model.config.data.columns.separator) for line in strict)
    elif name.endswith((*formats.FORMATS["conll"].suffixes, *formats.FORMATS["conllu"].suffixes)):
        strict = annotated(model.task, strict)
    formats.write(strict, mine["output"])
    setup.write_quarantine(told := f"{mine['output']}.quarantine.jsonl", {"input": aside})
    print(f"{len(lines)} rows: {mine['output']}" + (f"; {len(aside)} unreadable rows: {told}" if aside else ""))
    return 0


def annotated(task: Any, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines for a file of words: what is predicted stands in the columns that it was learnt from.

    Raises:
      DataError: of a row nothing was predicted.
    """
    for number, line in enumerate(lines, start=1):
        if line["prediction"] is None:
            raise DataError(f"row {number}: nothing was predicted ({line['dropped']}), so that its columns have no values; write .jsonl instead")
        yield task.annotated(line)


def cells(line: dict[str, Any], separator: str) -> dict[str, Any]:
    """A line for a file of cells: several predictions are joined by `data.columns.separator`, those that have names get a column each."""
    out: dict[str, Any] = {}
    for name, value in line.items():
        if name in ("prediction", "probability") and isinstance(value, dict):
            out |= {f"{name}_{part}": one for part, one in value.items()}
        elif name == "prediction" and isinstance(value, list):
            out[name] = separator.join(value)
        else:
            out[name] = value
    return out
