"""Predicts every row of a file, from the run directory alone; labels and answers need not be there.

  jaxsft predict run=runs/mine input=new.jsonl output=predictions.jsonl

The output (.jsonl, .csv or .tsv) has one line per input row, in order: its fields and what was predicted. It is written whole or not at all.
"""

from __future__ import annotations

from jaxsft.commands import from_run
from jaxsft.data import formats


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, ("run", "input", "output"), ("run", "input", "output"))

    from jaxsft import api

    model = api.load(mine["run"], *overrides)
    lines = model.predict(model.read(mine["input"]))
    formats.write(lines, mine["output"])
    print(f"{len(lines)} rows: {mine['output']}")
    return 0
