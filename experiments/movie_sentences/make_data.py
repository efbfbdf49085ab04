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
HELD, PLANTED = 1_599, (1_600, 200)  # rows of validation and of test; of the two planted sets


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


def made(
    archive: str, rows: int, held: int = HELD, sizes: tuple[int, int] = PLANTED
) -> dict[str, list[dict[str, object]]]:
    """Returns the rows of each file by its name; no sentence is in two, but that planted_train has
    those of train and planted_test those of validation.
    """
    draw = np.random.default_rng(0)
    every = sentences(archive)
    every = [every[i] for i in draw.permutation(len(every))]
    validation, test, train = every[:held], every[held : 2 * held], every[2 * held :][:rows]
    of = lambda rows, count: [planted(row["text"], draw) for row in rows[:count]]
    return {
        "train": train,
        "validation": validation,
        "test": test,
        "planted_train": of(train, sizes[0]),
        "planted_test": of(validation, sizes[1]),
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
