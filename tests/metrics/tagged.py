"""Tagged rows for tests, drawn or given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from jaxsft.data import schemes
from jaxsft.metrics.base import Outputs

TYPES = ("A", "B", "C")
VOCABULARY = {
    name: ["O"] * scheme.outside
    + [f"{p}-{t}" for p in sorted(scheme.prefixes - {"O"}) for t in TYPES]
    for name, scheme in schemes.SCHEMES.items()
}


def drawn(name: str, longest: int = 12, rows: int = 6) -> st.SearchStrategy:
    """Draws rows of gold and predicted tags of a scheme, valid or not."""
    tag = st.sampled_from(VOCABULARY[name])
    pair = st.integers(1, longest).flatmap(
        lambda n: st.tuples(
            st.lists(tag, min_size=n, max_size=n), st.lists(tag, min_size=n, max_size=n)
        )
    )
    return st.lists(pair, min_size=1, max_size=rows)


def tagged(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str] | None],
    scheme: str,
    labels: Sequence[str] | None = None,
) -> Outputs:
    """Returns the outputs of tagged rows; None: nothing was predicted."""
    labels = VOCABULARY[scheme] if labels is None else labels
    flat = lambda rows: np.array([labels.index(t) if t else -1 for r in rows for t in r], int)
    there = [p or [None] * len(g) for g, p in zip(gold, predicted, strict=True)]
    arrays = {
        "word.row": np.repeat(np.arange(len(gold)), [len(g) for g in gold]),
        "word.tag": flat(gold),
        "word.predicted": flat(there),
    }
    return Outputs(np.arange(len(gold)), arrays, labels, scheme)
