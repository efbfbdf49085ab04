"""Writes the instructions of the study, and runs it.

python experiments/packing_and_schedule/run.py STORIES [option=value ...]

STORIES is a folder with a small decoder in the layout of Hugging Face; the study ran on one of
260 thousand weights that was trained on short stories.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
SPLITS = {"train": 480, "validation": 120, "test": 120}


def write_rows(folder: Path) -> None:
    """Writes English instructions of seven skills; no prompt occurs twice."""
    from jaxsft.data import synthetic
    from jaxsft.rundir import json_text

    folder.mkdir(exist_ok=True)
    made = synthetic.generate(seed=0, rows=4 * sum(SPLITS.values()))
    english = lambda row: row["language"] == "en" and row["skill"] != "translate"
    rows = iter([row for row in made if english(row)])
    for split, count in SPLITS.items():
        lines = [json_text(next(rows)) + "\n" for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def main(arguments: list[str]) -> int:
    from jaxsft import cli

    model, *words = arguments
    rows = HERE / "rows"
    write_rows(rows)
    places = [f"data.{name}={rows / name}.jsonl" for name in SPLITS]
    given = [f"task.template={HERE / 'turns.jinja'}", f"model.pretrained={model}"]
    return cli.main(["sweep", "run", str(HERE), *places, *given, "hydra/launcher=stacked", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
