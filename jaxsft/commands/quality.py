"""Measures a data set and writes its quality card: numbers with their definitions, and the rows
behind them.

  jaxsft quality data.path=FILE [output=DIR] [data.columns.text=... data.columns.label=...]
  jaxsft quality data.train=FILE data.validation=FILE data.test=FILE     how the splits differ, and
    what is in two of them
  jaxsft quality data.path=FILE split_column=split                       the same, from one file
  jaxsft quality ... benchmarks=[FILES] [ngram=13]                       which rows of a benchmark
    stand in the data
  jaxsft quality ... ratings.columns=[COLUMNS]                           agreement of annotators, a
    column each
  jaxsft quality ... ratings.file=FILE ratings.values=[COLUMNS] [ratings.item=id]
    [ratings.annotator=COLUMN] [ratings.level=interval]
  jaxsft quality ... folds=5                                             labels that look wrong
  jaxsft quality ... compare=OTHER/card.json                             what became better, and
    what worse

DIR (default: quality-NAME) gets card.json, card.md, card.html and findings.jsonl, and with compare=
comparison.json, .md and .html. The options of data.* read files as `jaxsft prepare` does. The same
files and options give the same bytes. jaxsft quality --cfg job shows all options.
"""

from __future__ import annotations

from pathlib import Path

from jaxsft import rundir
from jaxsft.commands import hydra_app
from jaxsft.config.schema import QualityConfig
from jaxsft.prepare import quality
from jaxsft.prepare.quality.card_comparison import read
from jaxsft.reports import quality_page as pages


def main(arguments: list[str]) -> int:
    return hydra_app.run(arguments, run, "quality")


def run(config: QualityConfig) -> int:
    other = read(config.compare) if config.compare is not None else None
    sets = quality.of_config(config.data, config.split_column)
    name = Path(next(iter(sets.files.values()))).name.split(".")[0]
    folder = Path(config.output or f"quality-{name}")
    with rundir.atomic_lines(folder / "findings.jsonl") as file:
        card = quality.card(sets, config, lambda found: file.write(rundir.json_text(found) + "\n"))
    rundir.write_json(folder / "card.json", card)
    written = [
        folder / "card.json",
        folder / "findings.jsonl",
        *pages.write_card(folder, card, name),
    ]
    if other is not None:
        lines = quality.compare(other, read(str(folder / "card.json")))
        rundir.write_json(folder / "comparison.json", lines)
        written += [
            folder / "comparison.json",
            *pages.write_comparison(folder, lines, config.compare, name),
        ]
    for line in [*pages.headlines(card), *map(str, written)]:
        print(line)
    return 0
