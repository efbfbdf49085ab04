"""Writes sets that are noisy by themselves as rows for jaxsft.

python -m tools.robustness_sets advglue dev.json OUT     one file for each task of the GLUE
python -m tools.robustness_sets hipe FILE.tsv OUT        ocr.jsonl and corrected.jsonl, in pairs
python -m tools.robustness_sets digits OUT [seed=0]      train, test and test_noisy.jsonl
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxsft import documents, rundir
from jaxsft.errors import DataError

# of each task of Adversarial GLUE: the columns of its texts, and what its labels mean
ENTAILS = ("entailment", "neutral", "contradiction")
GLUE = {
    "sst2": (("sentence",), ("neg", "pos")),
    "qqp": (("question1", "question2"), ("different", "same")),
    "mnli": (("premise", "hypothesis"), ENTAILS),
    "mnli-mm": (("premise", "hypothesis"), ENTAILS),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
}
PIXEL_NOISE = 0.1  # the share of the pixels that are drawn anew
TEST = 360  # digits


def advglue(path: str, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Writes the rows of Adversarial GLUE (Wang et al., 2021), by task. Raises DataError."""
    content = documents.read_json(path, DataError, dict)
    if unknown := sorted(set(content) - set(GLUE)):
        raise DataError(f"{path}: {unknown[0]!r} is no task of {', '.join(GLUE)}")
    files = {}
    for task, entries in content.items():
        columns, labels = GLUE[task]
        files[task] = [
            {
                **dict(zip(("text", "text_pair"), (e[c] for c in columns), strict=False)),
                "label": labels[e["label"]],
            }
            for e in entries
        ]
    return _written(files, out)


def hipe(path: str, out: Path) -> dict[str, list[dict[str, Any]]]:
    """Writes names as a reader of print saw them and as they are, with their kind; row i of both
    files is the same name. Raises DataError.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    needed = ("entity_surface", "gold_transcript", "entity_fine_type")
    if not lines or any(name not in lines[0] for name in needed):
        raise DataError(f"{path}: expected the columns {', '.join(needed)}")
    kept = [line for line in lines if all((line[name] or "").strip() for name in needed)]
    kind = lambda line: line["entity_fine_type"].partition(".")[0]
    of = lambda column: [{"text": line[column], "label": kind(line)} for line in kept]
    return _written({"ocr": of(needed[0]), "corrected": of(needed[1])}, out)


def digits(out: Path, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Writes the handwritten digits of scikit-learn as sequences of 64 grey values, and the test
    digits once more with some pixels drawn anew.
    """
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(seed)
    order = rng.permutation(len(found.data))
    pixels, labels = found.data[order].astype(int), found.target[order]
    noisy = np.where(
        rng.random(pixels.shape) < PIXEL_NOISE, rng.integers(0, 17, pixels.shape), pixels
    )
    rows = lambda x, y: [
        {"text": " ".join(map(str, one)), "label": f"digit {label}"}
        for one, label in zip(x.tolist(), y.tolist(), strict=True)
    ]
    files = {
        "train": rows(pixels[TEST:], labels[TEST:]),
        "test": rows(pixels[:TEST], labels[:TEST]),
        "test_noisy": rows(noisy[:TEST], labels[:TEST]),
    }
    return _written(files, out)


def _written(files: dict[str, list[dict[str, Any]]], out: Path) -> dict[str, list[dict[str, Any]]]:
    for name, rows in files.items():
        with rundir.atomic_lines(out / f"{name}.jsonl") as file:
            for row in rows:
                file.write(rundir.json_text(row) + "\n")
    return files


def main(arguments: list[str]) -> int:
    match arguments:
        case ["advglue", path, out]:
            files = advglue(path, Path(out))
        case ["hipe", path, out]:
            files = hipe(path, Path(out))
        case ["digits", out, *rest] if all(text.startswith("seed=") for text in rest):
            files = digits(Path(out), *(int(text.partition("=")[2]) for text in rest))
        case _:
            print(__doc__, file=sys.stderr)
            return 1
    for name, rows in files.items():
        print(f"{name}.jsonl: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
