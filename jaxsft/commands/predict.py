"""Predicts every row of a file, from the run directory alone; labels and answers need not be there.

  jaxsft predict run=runs/mine input=new.jsonl output=predictions.jsonl

The output (.jsonl, .csv or .tsv) has one line per input row, in order: its fields and what was
predicted. It is written whole or not at all. A row of which nothing can be predicted, such as an
empty text, has no prediction and says why in `dropped`. In .conll and .conllu, of task=tag and
task=parse, predicted tags, heads and relations stand in the columns that they were learnt from. A
number of the input that is not finite, which JSON does not have, becomes the text NaN, Infinity or
-Infinity. With checkpoint=STEP or checkpoint=newest another step than the best is used; a damaged
one is an error, never replaced. With data.on_bad_row=quarantine rows that cannot be read are left
out and told in OUTPUT.quarantine.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.data import formats
from jaxsft.data.split_notes import write_quarantine
from jaxsft.errors import DataError


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(
        arguments, ("run", "input", "output"), ("run", "input", "output")
    )
    from_run.apart([mine["input"]], [mine["output"]])

    from jaxsft import api

    model, aside = api.load(mine["run"], *overrides), []
    lines = model.predict(model.read(mine["input"], aside))
    # no answer is lost to a NaN in a column of the input
    strict = [json.loads(rundir.json_text(line)) for line in lines]
    name = Path(mine["output"]).name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        strict = table(strict, model.config.data.columns.separator)
    elif name.endswith((*formats.FORMATS["conll"].suffixes, *formats.FORMATS["conllu"].suffixes)):
        strict = list(annotated(model.task, strict))
    formats.write(strict, mine["output"])
    write_quarantine(told := f"{mine['output']}.quarantine.jsonl", {"input": aside})
    print(
        f"{len(lines)} rows: {mine['output']}"
        + (f"; {len(aside)} unreadable rows: {told}" if aside else "")
    )
    return 0


def annotated(task: Any, lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields lines for a file of words, with predictions in the columns that were learned from.

    Raises:
      DataError: of a row nothing was predicted.
    """
    for number, line in enumerate(lines, start=1):
        if line["prediction"] is None:
            raise DataError(
                f"row {number}: nothing was predicted ({line['dropped']}), so that its columns have"
                " no values; write .jsonl instead"
            )
        yield task.annotated(line)


def table(lines: Sequence[dict[str, Any]], separator: str) -> list[dict[str, Any]]:
    """Returns lines for a file of cells.

    Where a row was dropped there is a column `dropped` with the reason, and its predictions are
    empty.
    """
    rows, lost = (
        [cells(line, separator) for line in lines],
        [line["prediction"] is None and "dropped" in line for line in lines],
    )
    if not any(lost):
        return rows
    whole = next(
        (row for row, gone in zip(rows, lost, strict=True) if not gone), {"prediction": None}
    )
    rows = [
        {k: v for k, v in row.items() if not gone or k != "prediction" or k in whole}
        for row, gone in zip(rows, lost, strict=True)
    ]
    return [{**dict.fromkeys([*whole, "dropped"]), **row} for row in rows]


def cells(line: dict[str, Any], separator: str) -> dict[str, Any]:
    """Returns a prediction line for a file of cells.

    Several predictions are joined by `data.columns.separator`; named ones get a column each.
    """
    out: dict[str, Any] = {}
    for name, value in line.items():
        if name in ("prediction", "probability") and isinstance(value, dict):
            out |= {f"{name}_{part}": one for part, one in value.items()}
        elif name == "prediction" and isinstance(value, list):
            out[name] = separator.join(value)
        else:
            out[name] = value
    return out
