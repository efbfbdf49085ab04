"""Writes the rows of the study out of Banking77, and runs it.

python experiments/how_much_is_trained/run.py BANKING77 MINILM [option=value ...]

BANKING77 is a folder with train.csv and test.csv of that data set, MINILM one with a sentence
encoder in the layout of Hugging Face.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

HERE = Path(__file__).parent
LABELS = (
    "card_about_to_expire",
    "card_arrival",
    "card_delivery_estimate",
    "card_linking",
    "card_not_working",
    "declined_card_payment",
    "getting_spare_card",
    "getting_virtual_card",
    "lost_or_stolen_card",
    "order_physical_card",
    "pending_card_payment",
    "visa_or_mastercard",
)
# rows of each label, from which file
SPLITS = {"train": ("train", 20), "validation": ("train", 10), "test": ("test", 20)}


def write_rows(source: Path, folder: Path) -> None:
    """Writes train.csv, validation.csv and test.csv: twelve labels, the same rows every time."""
    folder.mkdir(exist_ok=True)
    rng, taken = random.Random(0), {}
    for name in ("train", "test"):
        with open(source / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for label in LABELS:
            own = [row for row in rows if row["category"] == label]
            rng.shuffle(own)
            taken[name, label] = iter(own)
    for split, (name, count) in SPLITS.items():
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "category"], lineterminator="\n")
            writer.writeheader()
            for label in LABELS:
                writer.writerows(next(taken[name, label]) for _ in range(count))


def main(arguments: list[str]) -> int:
    from jaxsft import cli

    source, model, *words = arguments
    rows = HERE / "rows"
    write_rows(Path(source), rows)
    places = [f"data.{name}={rows / name}.csv" for name in SPLITS]
    given = [*places, f"model.pretrained={model}", "hydra/launcher=stacked", *words]
    return cli.main(["sweep", "run", str(HERE), *given])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
