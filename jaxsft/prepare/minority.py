"""New texts of a class that has too few.

They are spliced from two of its texts, or written by a small language model and checked by a
classifier.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

BUCKETS = 1 << 18
END = ""  # no word is empty


def pieces(text: str) -> tuple[list[str], str]:
    """Splits a text into words and what joins them; into characters where it has no spaces."""
    words = text.split()
    return (words, " ") if len(words) > 1 else (list(text.strip()), "")


def spliced(first: str, second: str, share: float) -> str:
    """Splices the first `share` of one text and the rest of the other.

    This is mix-up (Zhang et al. 2018) inside a class, so that the label stays what it is.
    """
    a, between = pieces(first)
    b, _ = pieces(second)
    head, tail = a[: max(1, round(share * len(a)))], b[min(len(b) - 1, round(share * len(b))) :]
    return between.join([*head, *tail])


class NgramModel:
    """A language model of the words of some texts, without smoothing.

    Each word is drawn from those that followed the last `order` words.
    """

    def __init__(self, texts: Sequence[str], order: int):
        self.order, self.next = order, defaultdict(Counter)
        self.between = " " if sum(pieces(t)[1] == " " for t in texts) * 2 >= len(texts) else ""
        for text in texts:
            words = [END] * order + (text.split() if self.between else list(text.strip())) + [END]
            for i in range(order, len(words)):
                self.next[tuple(words[i - order : i])][words[i]] += 1

    def sample(self, rng: np.random.Generator, longest: int) -> str:
        """Draws a text of at most `longest` words."""
        words = [END] * self.order
        while len(words) < longest + self.order:
            found = self.next[tuple(words[-self.order :])]
            choices = sorted(found)
            share = np.cumsum([found[c] for c in choices])
            word = choices[int(np.searchsorted(share, rng.random() * share[-1], side="right"))]
            if word == END:
                break
            words.append(word)
        return self.between.join(words[self.order :])


class NgramClassifier:
    """A multinomial naive Bayes classifier over hashed n-grams of one and two words.

    Counts are smoothed by a half (McCallum and Nigam 1998); equal priors, since it judges texts
    of the rare classes.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]):
        self.classes = sorted(set(labels))
        counts = np.full((len(self.classes), BUCKETS), 0.5, np.float32)
        for text, label in zip(texts, labels, strict=True):
            np.add.at(counts[self.classes.index(label)], self._hashes(text), 1)
        self.logs = np.log(counts) - np.log(counts.sum(1, keepdims=True, dtype=np.float64))

    def probability(self, text: str, label: str) -> float:
        scores = self.logs[:, self._hashes(text)].sum(1)
        e = np.exp(scores - scores.max())
        return float(e[self.classes.index(label)] / e.sum())

    @staticmethod
    def _hashes(text: str) -> np.ndarray:
        words, _ = pieces(text.lower())
        grams = words + [f"{a}\0{b}" for a, b in itertools.pairwise(words)]
        return np.array(
            [zlib.crc32(g.encode("utf-8", "surrogatepass")) % BUCKETS for g in grams], np.int64
        )
