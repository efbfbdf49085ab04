"""The words of a text, where something is said of each word: of tags, trees and entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class EncodedWords(NamedTuple):
    """The words of a text, one after another between the special tokens of an `Encoded`.

    Attributes:
      offsets: `[words + 1]` int32, in ids: word i is `ids[offsets[i]:offsets[i + 1]]`.
      values: what belongs to each word, `[words]` arrays by name. `weight` is that of its loss,
        `head` another word of the text from 1 (0: none).
      first_word: the number of the first word in its text.
      owned_words: the words, as a slice, that this window of the text answers for; None: all.
      whole: how many words the text has; None: all of them are here.
    """

    offsets: np.ndarray
    values: Mapping[str, np.ndarray]
    first_word: int = 0
    owned_words: tuple[int, int] | None = None
    whole: int | None = None

    @property
    def count(self) -> int:
        return len(self.offsets) - 1


def flat_words(words: Sequence[EncodedWords]) -> dict[str, np.ndarray]:
    """Returns flat arrays of all words of the examples.

    Where each begins and ends in its example, its number in its text, and whether its window
    owns it.
    """
    joined = lambda parts, kind: np.concatenate([*parts]).astype(kind)
    numbers = [np.arange(w.count) for w in words]
    owned = [
        np.ones(w.count, bool)
        if w.owned_words is None
        else (n >= w.owned_words[0]) & (n < w.owned_words[1])
        for w, n in zip(words, numbers, strict=True)
    ]
    arrays = {
        "word_offsets": np.concatenate([[0], np.cumsum([w.count for w in words])]).astype(np.int64),
        "word.start": joined([w.offsets[:-1] for w in words], np.int32),
        "word.stop": joined([w.offsets[1:] for w in words], np.int32),
        "word.index": joined(
            [n + w.first_word for w, n in zip(words, numbers, strict=True)], np.int32
        ),
        "word.own": joined(owned, bool),
        "word.last": joined(
            [
                n + w.first_word + 1 == (w.count if w.whole is None else w.whole)
                for w, n in zip(words, numbers, strict=True)
            ],
            bool,
        ),
    }
    return arrays | {
        f"word.{name}": np.concatenate([w.values[name] for w in words]) for name in words[0].values
    }


def weighted_words(words: EncodedWords, weight: float) -> EncodedWords:
    """Multiplies the weight of each word's loss."""
    weights = words.values["weight"] * np.float32(weight)
    return words._replace(values={**words.values, "weight": weights})
