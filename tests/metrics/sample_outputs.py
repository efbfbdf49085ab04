"""Rows that have everything a metric can read, and the same rows chosen and repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsft.metrics.base import Outputs

TAGS = ("O", "B-a", "I-a", "B-b")


def of_rows(
    rows: int,
    seed: int = 0,
    labels: Sequence[str] = TAGS,
    scheme: str = "bio",
    json: bool = False,
) -> Outputs:
    """Makes random rows with ties and missing targets; the last label never occurs."""
    rng, count = np.random.default_rng(seed), len(labels)
    used = max(count - 1, 2)
    pool = np.round(rng.normal(size=(max(rows // 2, 1), count)), 2)
    logits = pool[rng.integers(0, len(pool), rows)]  # rows that are equal
    label = np.where(
        rng.random(rows) < 0.4, rng.integers(0, used, rows), logits[:, :used].argmax(-1)
    )
    words = rng.integers(1, 5, rows)
    row = np.repeat(np.arange(rows), words)
    some = len(row)
    flips = lambda: rng.random(rows) < 0.6
    targets = rng.integers(0, 5, (rows, 2)).astype(float)
    predictions = np.round(targets + rng.normal(size=(rows, 2)), 1)
    targets[rng.random((rows, 2)) < 0.1] = np.nan
    heads = lambda: rng.integers(0, words[row] + 1)
    relations = lambda: rng.integers(0, count, some)
    spans = lambda: np.array(
        [
            (i, start, start + 3, rng.integers(0, 2))
            for i in range(rows)
            for start in (0, 5)
            if rng.random() < 0.6
        ],
        int,
    ).reshape(-1, 4)
    arrays = {
        "label": label,
        "predicted": logits.argmax(-1),
        "logits": logits,
        "labels": rng.random((rows, count)) < 0.3,
        "given": rng.random((rows, count)) < 0.4,
        "targets": targets,
        "predictions": predictions,
        "rank": rng.integers(1, 12, rows),
        "out_of_scope": rng.random(rows) < 0.3,
        "word.row": row,
        "word.tag": relations(),
        "word.predicted": relations(),
        "word.head": heads(),
        "word.predicted_head": heads(),
        "word.relation": relations(),
        "word.predicted_relation": relations(),
        "word.punctuation": rng.random(some) < 0.2,
        "word.upos": relations(),
        "word.predicted_upos": relations(),
        "is_tree": flips(),
        "span.gold": spans(),
        "span.predicted": spans(),
        "bytes": rng.integers(5, 50, rows),
        "nll": rng.exponential(size=rows) * 5,
        "correct": rng.integers(0, 4, rows),
        "count": rng.integers(4, 8, rows),
        **{name: flips() for name in ("intent_hit", "frame_hit", "stopped")},
        "exact": flips().astype(float),
        "f1": rng.random(rows),
        "loss_terms": rng.exponential(size=(rows, 2, 2)),
    }
    text = lambda: " ".join(rng.choice(["a", "cat", "sat", "on", "mats"], rng.integers(3, 9)))
    texts = {
        "answer": [text() for _ in range(rows)],
        "references": [[text() for _ in range(rng.integers(1, 3))] for _ in range(rows)],
    }
    if json:
        value = lambda: str(rng.choice(['{"a": 1}', '{"a": 2, "b": []}', "[1]", "null"]))
        texts = {
            "answer": [value() for _ in range(rows)],
            "references": [[value()] for _ in range(rows)],
            "schema": ['{"type": "object"}'] * rows,
        }
    return Outputs(np.arange(rows), arrays, labels, scheme, texts)


def chosen(outputs: Outputs, rows: Sequence[int]) -> Outputs:
    """Returns the given rows in their order, those that are given twice twice, with their words."""
    rows = np.asarray(rows, int)
    of_row = outputs.arrays["word.row"]
    words = [np.flatnonzero(of_row == row) for row in rows]
    place = np.concatenate([np.zeros(0, int), *words]).astype(int)
    spans = lambda x: np.concatenate(
        [np.zeros((0, 4), int)]
        + [np.insert(x[x[:, 0] == row][:, 1:], 0, i, axis=1) for i, row in enumerate(rows)]
    )
    arrays = {}
    for name, x in outputs.arrays.items():
        if name.startswith("span."):
            arrays[name] = spans(x)
        else:
            arrays[name] = x[place] if name.startswith("word.") else x[rows]
    arrays["word.row"] = np.repeat(np.arange(len(rows)), [len(w) for w in words])
    texts = {name: [values[row] for row in rows] for name, values in outputs.texts.items()}
    return Outputs(outputs.rows[rows], arrays, outputs.labels, outputs.scheme, texts)
