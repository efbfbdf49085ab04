"""A run on whole texts beside a linear model of TF-IDF, on the same splits: what the Transformer
must beat.

    python -m tools.bench.texts RUN

classify, multilabel: logistic regression (one for each label, thresholds tuned on validation as in
the run); regress: ridge. Words and pairs of them; the strength of the regularisation is chosen on
the validation split. Prints the numbers of the test split, of both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, mean_absolute_error, mean_squared_error, r2_score
from sklearn.multiclass import OneVsRestClassifier

from jaxsft import tasks
from jaxsft.config import compose
from jaxsft.data import few_rows
from jaxsft.data.splits import read_splits
from jaxsft.metrics import label_sets
from jaxsft.rundir import read_json

STRENGTHS = (0.3, 1.0, 3.0, 10.0)
VECTORS: tuple[dict[str, Any], ...] = (
    {"ngram_range": (1, 1)},
    {"ngram_range": (1, 2), "sublinear_tf": True},
)


def texts_of(records: Sequence[Any]) -> list[str]:
    return [r.text if r.text_pair is None else f"{r.text} {r.text_pair}" for r in records]


def chosen(splits: dict[str, Any], fit: Callable, score: Callable) -> Any:
    """What `fit(x, records, strength)` gives on test, for the vectors and the strength with the
    best `score` on validation.
    """
    best, found = -np.inf, None
    for options in VECTORS:
        vectors = TfidfVectorizer(**options).fit(texts_of(splits["train"].records))
        x = {name: vectors.transform(texts_of(part.records)) for name, part in splits.items()}
        for strength in STRENGTHS:
            predict = fit(x["train"], splits["train"].records, strength)
            if (value := score(predict(x["validation"]), splits["validation"].records)) > best:
                best, found = value, {name: predict(x[name]) for name in ("validation", "test")}
    return found


SCORES = {
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
    "pearson": lambda gold, found: float(np.corrcoef(gold, found)[0, 1]),
}


def regress(splits: dict[str, Any], state: dict[str, Any]) -> dict[str, float]:
    targets = lambda records: np.array([r.targets for r in records])
    fit = lambda x, records, strength: Ridge(alpha=strength).fit(x, targets(records)).predict
    mean = lambda name, p, records: float(
        np.mean(
            [
                SCORES[name](g, y)
                for g, y in zip(targets(records).T, p.reshape(len(p), -1).T, strict=True)
            ]
        )
    )
    found = chosen(splits, fit, lambda p, records: mean("pearson", p, records))
    return {name: mean(name, found["test"], splits["test"].records) for name in SCORES}


def multilabel(splits: dict[str, Any], state: dict[str, Any]) -> dict[str, float]:
    names = state["labels"]
    gold = {
        name: np.array([[label in r.labels for label in names] for r in part.records])
        for name, part in splits.items()
    }
    model = lambda strength: OneVsRestClassifier(LogisticRegression(C=strength, max_iter=300))
    fit = lambda x, records, strength: model(strength).fit(x, gold["train"]).predict_proba
    tuned = lambda p: (
        label_sets.best_thresholds(gold["validation"], p)
        if "thresholds" in state
        else np.full(len(names), 0.5)
    )
    score = lambda average, gold, found: float(
        f1_score(gold, found, average=average, zero_division=0)
    )
    found = chosen(splits, fit, lambda p, _: score("micro", gold["validation"], p >= tuned(p)))
    test = gold["test"], found["test"] >= tuned(found["validation"])
    return {f"f1_{average}": score(average, *test) for average in ("micro", "macro")}


def classify(splits: dict[str, Any], state: dict[str, Any]) -> dict[str, float]:
    gold = lambda records: np.array([r.label for r in records])
    fit = lambda x, records, strength: (
        LogisticRegression(C=strength, max_iter=300).fit(x, gold(records)).predict
    )
    right = lambda p, records: float((p == gold(records)).mean())
    return {"accuracy": right(chosen(splits, fit, right)["test"], splits["test"].records)}


def main(run: Path) -> None:
    config = compose.read(run / "config.yaml")
    kind = tasks.get(config.task.name)
    splits = read_splits(config, kind)
    splits["train"] = few_rows.limit(splits["train"], config.data.limit, kind)
    linear = {"regress": regress, "multilabel": multilabel, "classify": classify}[config.task.name](
        splits, read_json(run / "task.json")
    )
    result = read_json(run / "result.json")
    for name, value in linear.items():
        print(
            f"{name:20} linear {value:10.4f}   run {result.get(f'test/{name}', float('nan')):10.4f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
