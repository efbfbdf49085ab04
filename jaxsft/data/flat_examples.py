"""The examples of a split as flat arrays with offsets, one after another: what the cache stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsft.data.encode import Example
from jaxsft.data.encoded_words import flat_words


def flat(examples: Sequence[Example]) -> dict[str, Any]:
    """Returns the flat arrays of a split: `[tokens]` of all examples, or what is said below.

    `tokens`, `targets`, `loss_weight` and, where some example has them, `types`. Those of example i
    stand in `offsets[i]:offsets[i + 1]`; `row` and `part` say which it is, `[examples]`.
    `source_tokens` and `source_offsets` are the second stream; `segment.NAME` belongs to a whole
    text, `[examples, ...]`; `word.NAME` to a word, `[words]`, with `word_offsets`.
    """
    lengths = np.array([len(e.tokens) for e in examples], np.int64)
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "row": np.array([e.row for e in examples], np.int64),
        "part": np.array([e.part for e in examples], np.int32),
        "tokens": np.concatenate([e.tokens for e in examples]).astype(np.int32),
    }
    if examples[0].targets is not None:
        arrays["targets"] = np.concatenate([e.targets for e in examples]).astype(np.int32)
        arrays["loss_weight"] = np.concatenate([e.loss_weight for e in examples]).astype(np.float32)
    if examples[0].source is not None:
        arrays["source_offsets"] = np.concatenate(
            [[0], np.cumsum([len(e.source) for e in examples])]
        ).astype(np.int64)
        arrays["source_tokens"] = np.concatenate([e.source for e in examples]).astype(np.int32)
    if any(e.types is not None for e in examples):
        arrays["types"] = np.concatenate(
            [np.zeros(len(e.tokens)) if e.types is None else e.types for e in examples]
        ).astype(np.int32)
    for name in sorted(examples[0].segment):
        arrays[f"segment.{name}"] = np.array([e.segment[name] for e in examples])
    if examples[0].words is not None:
        arrays |= flat_words([e.words for e in examples])
    return arrays
