"""The dependency tree of the highest score: the maximum spanning arborescence (Chu and Liu, 1965;
Edmonds, 1967) with one word on the root.
"""

from __future__ import annotations

import numpy as np


def greedy(scores: np.ndarray) -> np.ndarray:
    """Returns the best head of each word on its own, whether or not they form a tree.

    Args:
      scores: `[words, 1 + words]`, of each head of each word; 0 is the root.

    Returns: `[words]` int64 heads.
    """
    scores = scores.astype(np.float64).copy()
    np.fill_diagonal(scores[:, 1:], -np.inf)
    return scores.argmax(1)


def best_tree(scores: np.ndarray) -> np.ndarray:
    """Returns the heads `[words]` of the best tree with exactly one word on the root.

    Best is the highest sum of arc scores; shapes as in `greedy`.
    """
    heads = greedy(scores)
    if (heads == 0).sum() == 1 and _circle(np.concatenate([[0], heads])) is None:
        return heads  # what is best for every word by itself is best for all
    words = len(scores)
    square = np.full((words + 1, words + 1), -np.inf)
    square[1:] = scores
    np.fill_diagonal(square, -np.inf)
    finite = square[np.isfinite(square)]
    # An arc from the root costs more than all others together can gain, so that the best tree has
    # one of them (Stanojević and Cohen, 2021).
    square[:, 0] -= 1 + words * (finite.max() - finite.min())
    return _arborescence(square)[1:]


def is_tree(heads: np.ndarray) -> bool:
    """Returns whether the heads form a tree with exactly one word on the root."""
    return (
        int((np.asarray(heads) == 0).sum()) == 1 and _circle(np.concatenate([[0], heads])) is None
    )


def _circle(heads: np.ndarray) -> list[int] | None:
    """Returns a cycle of nodes that does not reach node 0; None where there is none.

    `heads[0]` is not read.
    """
    state = np.zeros(len(heads), np.int64)  # 0: not seen, else the walk that came by first
    state[0] = -1
    for start in range(1, len(heads)):
        at = start
        while state[at] == 0:
            state[at] = start
            at = int(heads[at])
        if state[at] == start:
            circle, node = [at], int(heads[at])
            while node != at:
                circle.append(node)
                node = int(heads[node])
            return circle
    return None


def _arborescence(scores: np.ndarray) -> np.ndarray:
    """Returns the heads `[nodes]` of the maximum arborescence rooted at node 0.

    `scores[dependent, head]` is -inf where there is no arc.
    """
    heads = scores.argmax(1)
    heads[0] = 0
    circle = _circle(heads)
    if circle is None:
        return heads
    inside = np.array(circle)
    outside = np.array([node for node in range(len(scores)) if node not in set(circle)])
    # The circle becomes one node, the last: to enter it at a node is to give up that node's arc of
    # the circle.
    gain = scores[np.ix_(inside, outside)] - scores[inside, heads[inside]][:, None]
    enter, leave = gain.argmax(0), scores[np.ix_(outside, inside)].argmax(1)
    size = len(outside) + 1
    smaller = np.full((size, size), -np.inf)
    smaller[:-1, :-1] = scores[np.ix_(outside, outside)]
    smaller[-1, :-1] = gain.max(0)
    smaller[:-1, -1] = scores[np.ix_(outside, inside)].max(1)
    found = _arborescence(smaller)
    out = heads.copy()  # inside the circle, but for one node, its arcs stay
    for i in range(1, size - 1):
        out[outside[i]] = inside[leave[i]] if found[i] == size - 1 else outside[found[i]]
    out[inside[enter[found[-1]]]] = outside[found[-1]]
    return out
