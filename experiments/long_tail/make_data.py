"""Writes a long-tailed training set of banking77, and balanced sets to choose and to score by.

    python experiments/long_tail/make_data.py BANKING77_FOLDER data/long_tail

The classes keep from `MOST` rows down to a 50th of that, in equal ratios, by how many they have;
ten rows of each class that are not trained on choose. The column `rare` says which classes are the
26 rarest.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

MOST, RATIO, CHOSEN_BY, RARE = 100, 50, 10, 26


def read(path: Path) -> dict[str, list[str]]:
    """Returns the texts of each class."""
    out: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            out[row["category"]].append(row["text"])
    return out


def write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerows([("text", "label", "rare"), *rows])


def tail(classes: int, most: int, ratio: float) -> list[int]:
    """Returns how many rows each class keeps, from the largest to the rarest."""
    steps = np.arange(classes) / max(classes - 1, 1)
    return np.maximum(np.round(most * ratio**-steps), 1).astype(int).tolist()


def main(source: Path, target: Path) -> None:
    rng, train, test = (
        np.random.default_rng(0),
        read(source / "train.csv"),
        read(source / "test.csv"),
    )
    target.mkdir(parents=True, exist_ok=True)
    by_size = sorted(train, key=lambda name: (-len(train[name]), name))
    rare = set(by_size[-RARE:])
    kept, chosen_by = [], []
    for name, count in zip(by_size, tail(len(by_size), MOST, RATIO), strict=True):
        texts = [train[name][i] for i in rng.permutation(len(train[name]))]
        chosen_by += [(text, name, str(name in rare)) for text in texts[:CHOSEN_BY]]
        kept += [(text, name, str(name in rare)) for text in texts[CHOSEN_BY:][:count]]
    scored = [(text, name, str(name in rare)) for name in test for text in test[name]]
    for file, rows in (("train", kept), ("validation", chosen_by), ("test", scored)):
        write(target / f"{file}.csv", rows)
    print(f"{len(kept)} rows to train on, {len(chosen_by)} to choose, {len(scored)} to score")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
