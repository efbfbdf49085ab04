"""Retrieval scores: how well a text ranks its partner among those of the whole split, by cosine.

They do not depend on the batch size.
"""

from __future__ import annotations

import numpy as np

CHUNK = 1024  # queries whose scores are held at once


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
