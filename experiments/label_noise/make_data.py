"""Writes training sets of banking77 in which a share of the labels is wrong, what confident
learning makes of them, and clean sets to choose and to score by.

    python experiments/label_noise/make_data.py BANKING77_FOLDER MODEL_FOLDER data/label_noise

Wrong labels are drawn evenly from the other classes. The probabilities that confident learning
reads are those of logistic regression on the frozen features of the model, on folds that it did not
see; the stage `label_noise` then drops rows, and writes how often each label is given for each.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from jaxsft import api
from jaxsft.prepare import confident_learning
from jaxsft.training import setup
from jaxsft.training.session import Session

SHARES, MOST, CHOSEN_BY, FOLDS = (20, 40), 50, 10, 5


def read(path: Path) -> dict[str, list[str]]:
    """Returns the texts of each class."""
    out: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            out[row["category"]].append(row["text"])
    return out


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("text", "label"), *rows])


def flipped(labels: np.ndarray, classes: int, share: float, seed: int = 0) -> np.ndarray:
    """Returns the labels, of which a share is another class, each as likely."""
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    out = labels.copy()
    out[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return out


def features(model: str, train: Path, validation: Path) -> np.ndarray:
    """Returns the vector of each training text, divided by its length, from the frozen model."""
    session = Session(setup.resolve(api.compose(
        "task=classify", f"data.train={train}", f"data.validation={validation}",
        f"model.pretrained={model}", "model.dropout=0", "train.backbone=cached",
    )))  # fmt: skip
    session.trial()
    session.cache_backbone()
    split = session.batches["train"].split
    vectors = np.asarray(split.arrays["segment.backbone"])[np.argsort(split.arrays["row"]), 0]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(source: Path, model: str, target: Path) -> None:
    rng, train, test = (
        np.random.default_rng(0),
        read(source / "train.csv"),
        read(source / "test.csv"),
    )
    target.mkdir(parents=True, exist_ok=True)
    kept, chosen_by, names = [], [], sorted(train)
    for name in names:
        texts = [train[name][i] for i in rng.permutation(len(train[name]))]
        chosen_by += [(text, name) for text in texts[:CHOSEN_BY]]
        kept += [(text, name) for text in texts[CHOSEN_BY:][:MOST]]
    write(target / "train.csv", kept)
    write(target / "validation.csv", chosen_by)
    write(target / "test.csv", [(text, name) for name in names for text in test[name]])
    vectors = features(model, target / "train.csv", target / "validation.csv")
    true = np.array([names.index(label) for _, label in kept])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for share in SHARES:
        given = flipped(true, len(names), share / 100)
        file, table = target / f"noise{share}.csv", target / f"noise{share}.npy"
        write(file, [(text, names[g]) for (text, _), g in zip(kept, given, strict=True)])
        linear = LogisticRegression(C=10.0, max_iter=100)
        np.save(table, cross_val_predict(linear, vectors, given, cv=folds, method="predict_proba"))
        stage = {
            "action": "drop",
            "probabilities": str(table),
            "transition": str(target / f"transition{share}.json"),
        }
        cleaned = target / f"cleaned{share}"
        given_to = {"data.train": str(file), "stages": [{"label_noise": stage}]}
        api.prepare(**given_to, **{"output.dir": str(cleaned), "output.overwrite": True})
        wrong, found = given != true, confident_learning.find_issues(given, np.load(table))
        hits = (found & wrong).sum()
        print(
            f"{share} % noise: {wrong.sum()} of {len(kept)} labels are wrong, {found.sum()} are"
            f" found: precision {hits / found.sum():.3f}, recall {hits / wrong.sum():.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
