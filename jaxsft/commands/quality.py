"""Measures a data set and writes its quality card: numbers with their definitions, and the rows behind them.

  jaxsft quality data.path=FILE [output=DIR] [data.columns.text=... data.columns.label=...]
  jaxsft quality data.train=FILE data.validation=FILE data.test=FILE     how the splits differ, and what is in two of them
  jaxsft quality data.path=FILE split_column=split                       the same, from one file
  jaxsft quality ... benchmarks=[FILES] [ngram=13]                       which rows of a benchmark stand in the data
  jaxsft quality ... ratings=[COLUMNS]                                   agreement of annotators, a column each
  jaxsft quality ... ratings=FILE ratings_value=[COLUMNS] [ratings_item=id] [ratings_annotator=COLUMN] [ratings_level=interval]
  jaxsft quality ... folds=5                                             labels that look wrong
  jaxsft quality ... compare=OTHER/card.json                             what became better, and what worse
  jaxsft quality ... [sample=20000] [clusters=0] [embeddings=FILE.npy] [label_separator=,] [listed=20] [seed=0]

DIR (default: quality-NAME) gets card.json, card.md, card.html and findings.jsonl, and with compare= comparison.json, .md and .html. Every option
of data.* that says how a file is read works as in training. The same files and options give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from jaxsft import rundir
from jaxsft.commands import from_run
from jaxsft.config.overrides import composed
from jaxsft.errors import ConfigError
from jaxsft.prepare import quality
from jaxsft.prepare.quality import options, source
from jaxsft.prepare.quality.compare import read as read_card
from jaxsft.reports import quality as pages


def main(arguments: list[str]) -> int:
    mine, overrides = from_run.arguments(arguments, (*options.NAMES, "output", "compare"), ())
    for override in overrides:
        if not override.startswith(("data.", "data=")):
            raise ConfigError(f"{override}: expected data.*, or one of {', '.join(options.NAMES)}, output, compare")
    asked = options.parsed({name: text for name, text in mine.items() if name in options.NAMES})
    data = composed(["task=lm", *overrides]).data
    other = read_card(mine["compare"]) if mine.get("compare") else None
    sets = source.of_config(data, asked.split_column)
    name = Path(next(iter(sets.files.values()))).name.split(".")[0]
    folder = Path(mine.get("output") or f"quality-{name}")
    with rundir.atomic_lines(folder / "findings.jsonl") as file:
        told = lambda found: file.write(rundir.json_text(found) + "\n")
        card = quality.card(sets, asked, data.columns, told, source.reading(data))
    rundir.write_json(folder / "card.json", card)
    written = [folder / "card.json", folder / "findings.jsonl", *pages.write_card(folder, card, name)]
    if other is not None:
        lines = quality.compare(other, rundir.read_json(folder / "card.json"))
        rundir.write_json(folder / "comparison.json", lines)
        written += [folder / "comparison.json", *pages.write_comparison(folder, lines, mine["compare"], name)]
    for line in pages.headlines(card):
        print(line)
    for path in written:
        print(path)
    return 0
