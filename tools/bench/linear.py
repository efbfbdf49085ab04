"""What simple models, most of them linear, of scikit-learn, reach on the data of a run: the floor
under every figure of a Transformer.

    python -m tools.bench.linear task=classify data.train=train.csv data.test=test.csv
    python -m tools.bench.linear task=tag data.columns.tags=upos data.train=train.conllu
        data.test=test.conllu

The options are those of `jaxsft train`; rows are read, split and scored as there.

- classify: logistic regression on TF-IDF of words, pairs of words, and characters.
- regress: ridge regression on TF-IDF of words and pairs of words, its strength by cross-validation.
- tag: logistic regression for each word on itself, its ends, its shape and its neighbours; joint:
  that, and classify for the text.
- parse: logistic regression for each pair of words on the words, their ends and neighbours, the
  direction and the distance; then the best tree. A first-order model as of McDonald et al. 2005,
  without its margin.
- seq2seq: the target of the training source that is most alike (cosine of TF-IDF of words and pairs
  of words); of several the first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler

import jaxsft
from jaxsft import tasks
from jaxsft.config.tasks import SCORES
from jaxsft.data import schemes
from jaxsft.data.records import LabelledText
from jaxsft.data.splits import read_splits
from jaxsft.errors import JaxsftError
from jaxsft.metrics.base import Outputs, measure
from jaxsft.metrics.by_name import METRICS
from jaxsft.models import trees
from jaxsft.training import setup

ROOT = "<root>"
MAX_DISTANCE = 40  # words further away than this are no candidates in training


# --- one text, one answer
# --------------------------------------------------------------------------------------------------
def classify(train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
    )
    model = make_pipeline(features, MaxAbsScaler(), LogisticRegression(C=10, max_iter=1000))
    model.fit([_text(r) for r in train], [r.label for r in train])
    return {
        "accuracy": float(
            np.mean(model.predict([_text(r) for r in test]) == np.array([r.label for r in test]))
        )
    }


def regress(train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    """The mean over the targets; a row without a target does not count there."""
    gold, features, told = (
        np.array([r.targets for r in test], float),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        [],
    )
    seen, new = (
        features.fit_transform([_text(r) for r in train]),
        features.transform([_text(r) for r in test]),
    )
    ridge = GridSearchCV(
        Ridge(solver="sparse_cg", random_state=0), {"alpha": [0.3, 1.0, 3.0, 10.0, 30.0]}, cv=3
    )
    for column in np.array([r.targets for r in train], float).T:
        known = ~np.isnan(column)
        told.append(ridge.fit(seen[known], column[known]).predict(new))
    arrays = {"targets": gold, "predictions": np.stack(told, -1)}
    return measure(METRICS["number_scores"], Outputs(np.arange(len(gold)), arrays))


def _text(record: Any) -> str:
    return record.text if record.text_pair is None else f"{record.text}\n{record.text_pair}"


# --- a text for a text
# --------------------------------------------------------------------------------------------------
def seq2seq(train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    # rows of length 1: their product is the cosine
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True)
    known, asked = (
        vectors.fit_transform([r.source for r in train]),
        vectors.transform([r.source for r in test]),
    )
    nearest = np.asarray((asked @ known.T).argmax(axis=1)).ravel()
    texts = {
        "answer": [train[i].target for i in nearest],
        "references": [list(r.references or (r.target,)) for r in test],
    }
    outputs = Outputs(np.arange(len(test)), {}, texts=texts)
    return {name: measure(METRICS[name], outputs)[name] for name in SCORES}


# --- words
# --------------------------------------------------------------------------------------------------
def tag(train: Sequence[Any], test: Sequence[Any], untagged: str | None = None) -> dict[str, float]:
    hasher = FeatureHasher(2**20, input_type="string")
    labels = np.array([label for r in train for label in r.tags])
    model = SGDClassifier(
        "log_loss", alpha=1e-6, max_iter=8, tol=None, random_state=0, average=True
    )
    model.fit(
        hasher.transform(_word_features(train))[labels != untagged], labels[labels != untagged]
    )
    guess = iter(model.predict(hasher.transform(_word_features(test))))
    told = [
        [(true, str(found)) for true, found in zip(r.tags, guess, strict=False) if true != untagged]
        for r in test
    ]
    gold, predicted = ([[pair[side] for pair in pairs] for pairs in told] for side in (0, 1))
    out = {"accuracy": _share_of_words(gold, predicted)}
    # what is said of each word alone need not be a sequence that the scheme allows
    if (scheme := test[0].scheme) != "none":
        repaired = [schemes.repaired(tags, scheme)[0] for tags in predicted]
        names = sorted({tag for tags in (*gold, *repaired) for tag in tags})
        number = lambda rows: np.array([names.index(tag) for tags in rows for tag in tags])
        arrays = {
            "word.row": np.repeat(np.arange(len(gold)), list(map(len, gold))),
            "word.tag": number(gold),
            "word.predicted": number(repaired),
        }
        outputs = Outputs(np.arange(len(gold)), arrays, names, scheme)
        out["f1"] = measure(METRICS["chunk_scores"], outputs)["f1_micro"]
    return out


def joint(
    train: Sequence[Any], test: Sequence[Any], untagged: str | None = None
) -> dict[str, float]:
    told = [
        [LabelledText(" ".join(r.tokens), None, r.label) for r in part] for part in (train, test)
    ]
    return {"intent_accuracy": classify(*told)["accuracy"], **tag(train, test, untagged)}


def _word_features(records: Sequence[Any]) -> Iterator[list[str]]:
    for record in records:
        padded = ["<s>", "<s>", *record.tokens, "</s>", "</s>"]
        for i, word in enumerate(record.tokens, start=2):
            lower = word.lower()
            shape = "".join(
                "X" if c.isupper() else "x" if c.islower() else "0" if c.isdigit() else c
                for c in word
            )[:6]
            around = [f"w{k}={padded[i + k].lower()}" for k in (-2, -1, 0, 1, 2)] + [
                f"p={padded[i - 1].lower()} {lower}"
            ]
            ends = [f"s{k}={lower[-k:]}" for k in (1, 2, 3, 4)] + [
                f"b{k}={lower[:k]}" for k in (1, 2, 3)
            ]
            yield ["bias", f"shape={shape}", f"first={i == 2} {word[:1].isupper()}", *around, *ends]


def parse(train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    hasher = FeatureHasher(2**20, input_type="string")
    model = SGDClassifier("log_loss", alpha=1e-6, random_state=0, average=True)
    for start in range(0, len(train), 500):  # all pairs at once would not fit
        part = [
            (r, list(_candidates(len(r.tokens), MAX_DISTANCE))) for r in train[start : start + 500]
        ]
        is_head = [r.heads[d - 1] == h for r, pairs in part for d, h in pairs]
        model.partial_fit(
            hasher.transform(_arc_features(r.tokens, d, h) for r, pairs in part for d, h in pairs),
            is_head,
            classes=[False, True],
        )
    heads = []
    for record in test:
        n, pairs = len(record.tokens), list(_candidates(len(record.tokens), len(record.tokens)))
        scores, (dependents, above) = np.zeros((n, n + 1)), np.array(pairs).T
        scores[dependents - 1, above] = model.decision_function(
            hasher.transform(_arc_features(record.tokens, d, h) for d, h in pairs)
        )
        heads.append(trees.best_tree(scores).tolist())
    previous = [list(range(len(r.tokens))) for r in test]
    gold = [list(r.heads) for r in test]
    return {
        "uas": _share_of_words(gold, heads),
        "uas of the word before": _share_of_words(gold, previous),
    }


def _share_of_words(gold: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> float:
    pairs = [
        a == b
        for one, other in zip(gold, predicted, strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    return float(np.mean(pairs))


def _candidates(n: int, distance: int) -> Iterator[tuple[int, int]]:
    """(word, its head), both from 1; head 0 is the root."""
    for d in range(1, n + 1):
        yield d, 0
        yield from ((d, h) for h in range(max(d - distance, 1), min(d + distance, n) + 1) if h != d)


def _arc_features(tokens: Sequence[str], d: int, h: int) -> list[str]:
    at = lambda i: tokens[i - 1].lower() if 1 <= i <= len(tokens) else "<s>"
    word, head = at(d), ROOT if h == 0 else at(h)
    gap = 0 if h == 0 else max(-6, min(6, h - d))
    where = f"{gap}" if h else f"root {min(d, 6)}"
    pairs = [
        f"{word}|{head}",
        f"{word[-3:]}|{head[-3:]}",
        f"{word}|{head[-2:]}",
        f"{word[-2:]}|{head}",
    ]
    around = [f"{at(d - 1)}|{word}", f"{word}|{at(d + 1)}"] + (
        [f"{at(h - 1)}|{head}", f"{head}|{at(h + 1)}"] if h else []
    )
    inside = [f"in={at(i)[-3:]}" for i in range(min(d, h) + 1, max(d, h))][:6] if h else []
    alone = [f"d={word}", f"h={head}", f"d3={word[-3:]}", f"h3={head[-3:]}"]
    return [
        f"at={where}",
        *(f"{x}@{where}" for x in (*pairs, *around, *alone, *inside)),
        *(f"p{i}={x}" for i, x in enumerate(pairs)),
    ]


MODELS = {
    "classify": classify,
    "regress": regress,
    "tag": tag,
    "joint": joint,
    "parse": parse,
    "seq2seq": seq2seq,
}


def main(options: Sequence[str]) -> None:
    try:
        config = jaxsft.compose(*options)
        if config.task.name not in MODELS:
            raise SystemExit(f"task={config.task.name}: there are models for {', '.join(MODELS)}")
        splits = read_splits(setup.resolve(config), tasks.get(config.task.name))
    except JaxsftError as error:
        raise SystemExit(str(error)) from None
    held = splits.get("test") or splits.get("validation")
    if held is None:
        raise SystemExit("data.test: give a split to score on")
    start = time.perf_counter()
    more = {"untagged": config.task.untagged} if config.task.name in ("tag", "joint") else {}
    scores = MODELS[config.task.name](splits["train"].records, held.records, **more)
    print(
        f"{len(splits['train'].records):,} rows of training, {len(held.records):,} of test,"
        f" {time.perf_counter() - start:.0f} s"
    )
    for name, value in scores.items():
        print(f"{name:<24} {value:.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
