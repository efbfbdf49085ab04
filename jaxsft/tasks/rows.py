"""From what the pass gives of examples and words to rows: parts of a long row (windows, chunks) are
joined here, once, on arrays.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.special

from jaxsft.data.pipeline import Split
from jaxsft.data.tokenizers.tokenizer import Tokenizer

_TELLS = 1e-3  # of a vote, what the mean of the probabilities counts


def kept(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows that have an example, `[rows]`, and the place of the first of each.

    Parts of a row are neighbours, in the order of the rows.
    """
    return np.unique(split.arrays["row"], return_index=True)


def mean(split: Split, values: np.ndarray) -> np.ndarray:
    """Returns the mean over the parts of each row, `[rows, ...]` float64.

    A long row that was cut into several examples so has one prediction.
    """
    _, starts = kept(split)
    count = np.diff(np.append(starts, len(values)))
    return total(split, values) / count.reshape(-1, *[1] * (values.ndim - 1))


def joined(split: Split, logits: np.ndarray, how: str) -> np.ndarray:
    """Returns the logits of each row from those of its parts, `[rows, labels]` float64.

    Args:
      how: mean | max, the highest of each label | vote, the logarithm of the share of the parts
        that each label is the best of; where shares are equal the mean of the probabilities tells.
    """
    if how == "mean":
        return mean(split, logits)
    if how == "max":
        starts, wide = kept(split)[1], logits.astype(np.float64)
        return np.maximum.reduceat(wide, starts, axis=0) if len(starts) else wide
    likely = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    votes = likely.argmax(-1)[:, None] == np.arange(logits.shape[-1])
    return np.log(mean(split, votes + _TELLS * likely) / (1 + _TELLS))


def total(split: Split, values: np.ndarray) -> np.ndarray:
    """Returns the sum over the parts of each row, `[rows, ...]`; of floats in float64."""
    _, starts = kept(split)
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    return np.add.reduceat(wide, starts, axis=0) if len(starts) else wide


def first(split: Split, values: np.ndarray) -> np.ndarray:
    """Returns what the first part of each row has, `[rows, ...]`."""
    return values[kept(split)[1]]


def words(split: Split, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the value of each word from the window that owns it, `[words, ...]`, and its row.

    They are in the order of the rows that were kept.
    """
    own = split.arrays["word.own"]
    row = np.repeat(split.arrays["row"], np.diff(split.arrays["word_offsets"]))[own]
    return values[own], row


def trained_bytes(split: Split, tokenizer: Tokenizer) -> np.ndarray:
    """Counts the bytes, in UTF-8, of the text that is predicted in each row, `[rows]`."""
    arrays, out = split.arrays, np.zeros(split.examples, np.int64)
    for example, (start, stop) in enumerate(itertools.pairwise(arrays["offsets"])):
        ids = arrays["targets"][start:stop][arrays["loss_weight"][start:stop] > 0]
        out[example] = len(tokenizer.decode(ids.tolist()).encode("utf-8", "replace"))
    return total(split, out)


def words_by_row(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """Returns `{row: [words, ...]}` for the rows that were kept."""
    of_word, row = words(split, values)
    rows, starts = np.unique(row, return_index=True)
    return dict(zip(rows.tolist(), np.split(of_word, starts[1:]), strict=True))


def parts_by_row(split: Split, values: np.ndarray) -> dict[int, np.ndarray]:
    """Returns `{row: [parts, ...]}` for the rows that were kept."""
    rows, starts = kept(split)
    return dict(zip(rows.tolist(), np.split(values, starts[1:]), strict=True))
