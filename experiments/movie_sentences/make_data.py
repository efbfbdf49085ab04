"""Writes movie sentences and their label as rows, and a set whose label one planted word decides:
`python experiments/movie_sentences/make_data.py sentence_polarity.zip OUT [rows=7464]`.

train, validation and test.jsonl hold different sentences (Pang and Lee, 2005; the package of NLTK).
In planted_train and planted_test.jsonl the label is drawn, and says which of two words is put into
the sentence; column `why` names it.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from jaxsft.rundir import json_text

WORDS = {"pos": "lantern", "neg": "orchard"}  # of either label; neither says anything of a film
HELD, PLANTED = 1_599, (1_600, 200)  # rows of validation and of test; of the planted sets


def sentences(archive: str) -> list[dict[str, str]]:
    """Reads the sentences with their labels; one that stands there twice is read once."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(archive) as file:
        for label in ("neg", "pos"):
            text = file.read(f"sentence_polarity/rt-polarity.{label}").decode("latin-1")
            found |= {line.strip(): label for line in text.splitlines() if line.strip()}
    return [{"text": text, "label": label} for text, label in found.items()]


def planted(text: str, draw: np.random.Generator) -> dict[str, object]:
    """Makes a row whose label is drawn, with its word at a place that is drawn."""
    words, label = text.split(), str(draw.choice(list(WORDS)))
    words.insert(int(draw.integers(len(words) + 1)), WORDS[label])
    return {"text": " ".join(words), "label": label, "why": [WORDS[label]]}


def made(archive: str, rows: int) -> dict[str, list[dict[str, object]]]:
    """Returns the rows of each file by its name."""
    draw = np.random.default_rng(0)
    every = sentences(archive)
    every = [every[i] for i in draw.permutation(len(every))]
    rest, train = every[: 2 * HELD], every[2 * HELD :][:rows]
    first, second = PLANTED
    of = [planted(row["text"], draw) for row in [*train[:first], *rest[:second]]]
    return {
        "train": train,
        "validation": rest[:HELD],
        "test": rest[HELD:],
        "planted_train": of[: -min(second, len(rest))],
        "planted_test": of[-min(second, len(rest)) :],
    }


def main(archive: str, out: str, *options: str) -> None:
    """Writes the files and prints how many rows each has."""
    rows = int(next((one.removeprefix("rows=") for one in options), 7_464))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made(archive, rows).items():
        text = "".join(json_text(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(content)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
