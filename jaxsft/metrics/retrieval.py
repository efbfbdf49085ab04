"""Retrieval scores: how well a text ranks its partner among those of the whole split, by cosine.

They do not depend on the batch size.
"""

from __future__ import annotations

import math

import numpy as np

CHUNK = 1024  # queries whose scores are held at once
AT = (1, 5, 10)
NAMES = ("mrr", *(f"recall_at_{k}" for k in AT), "rows")


def ranks(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Returns the rank, from 1, of candidate i for query i.

    Equal scores rank before it, so that vectors that are all alike retrieve nothing.

    Args:
      queries, candidates: `[rows, D]`, unit vectors.
    """
    out = np.zeros(len(queries), np.int64)
    right = (queries * candidates).sum(-1)
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        scores = queries[rows] @ candidates.T
        scores[np.arange(len(scores)), np.arange(len(queries))[rows]] = -np.inf
        out[rows] = 1 + (scores >= right[rows, None] - 1e-6).sum(1)
    return out


def scores(queries: np.ndarray, candidates: np.ndarray) -> dict[str, float]:
    """Computes the mean reciprocal rank (Voorhees, 1999) and the recall among the first k."""
    if not len(queries):
        return {name: math.nan for name in NAMES if name != "rows"} | {"rows": 0}
    found = ranks(queries, candidates)
    return (
        {"mrr": float((1 / found).mean())}
        | {f"recall_at_{k}": float((found <= k).mean()) for k in AT}
        | {"rows": len(found)}
    )
