"""Diversity of words, in ways that do and do not depend on the length of the text.

These look at a sample of the rows (`RowSample`), so memory is bounded by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxsft.prepare.quality import text_measures

FACTOR = 0.72  # of MTLD, as McCarthy and Jarvis chose it
WINDOW = 500  # words, of the moving average
POINTS = 40  # of the curve of growth


@dataclasses.dataclass
class RowSample:
    """A sample of at most `size` rows of a split, chosen by a hash of their number and the seed.

    It needs one pass and no length, and a file that is sorted by class is taken from
    everywhere. Texts come out in the order of the hash, so that neighbours in the file are not
    neighbours here.
    """

    size: int
    seed: int = 0
    seen: int = 0
    heap: list[tuple[int, int, str, tuple[str, ...], str]] = dataclasses.field(default_factory=list)

    def add(self, text: str, labels: tuple[str, ...] = (), where: str = "") -> None:
        digest = hashlib.blake2b(f"{self.seed}:{self.seen}".encode(), digest_size=8).digest()
        item = (-int.from_bytes(digest, "big"), self.seen, text, labels, where)
        self.seen += 1
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, item)
        else:
            heapq.heappushpop(self.heap, item)

    def rows(self) -> list[tuple[int, str, tuple[str, ...], str]]:
        """Returns (number of the row in its split, from 0; text; labels; where it stands)."""
        return [item[1:] for item in sorted(self.heap, reverse=True)]


def distinct(words: Iterable[Sequence[str]], n: int) -> float | None:
    """Computes distinct-n: different n-grams divided by all n-grams. None where there are none.

    N-grams do not cross texts.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", who
    divide by the number of words; that of n-grams, as is usual today, makes 1 the highest value for
    every n. It falls with the length of the corpus: compare equally large ones.
    """
    found, total = set(), 0
    for text in words:
        grams = list(zip(*(text[i:] for i in range(n)), strict=False))
        found.update(grams)
        total += len(grams)
    return len(found) / total if total else None


def mtld(words: Sequence[str], threshold: float = FACTOR) -> float | None:
    """Computes MTLD, the measure of textual lexical diversity.

    It is the mean number of words in a row with a type/token ratio above `threshold`, forwards
    and backwards.

    McCarthy and Jarvis 2010, "MTLD, vocd-D, and HD-D: A validation study of sophisticated
    approaches to lexical diversity assessment". A stretch ends when its ratio falls to the
    threshold; the rest counts as the part (1 - ratio) / (1 - threshold) of one. None where the
    ratio never falls below 1.
    """

    def one_way(sequence: Iterable[str]) -> float:
        factors, types, tokens = 0.0, set(), 0
        for word in sequence:
            tokens += 1
            types.add(word)
            if len(types) <= threshold * tokens:
                factors, types, tokens = factors + 1, set(), 0
        if tokens:
            factors += (1 - len(types) / tokens) / (1 - threshold)
        return len(words) / factors if factors else math.nan

    value = (one_way(words) + one_way(reversed(words))) / 2 if words else math.nan
    return None if math.isnan(value) else value


def mattr(words: Sequence[str], window: int = WINDOW) -> float | None:
    """Computes the moving-average type/token ratio over every window. None for a shorter text.

    Covington and McFall 2010, "Cutting the Gordian Knot: The Moving-Average Type-Token Ratio
    (MATTR)".
    """
    if len(words) < window:
        return None
    counts: Counter[str] = Counter()
    held: deque[str] = deque()
    total = 0
    for word in words:
        held.append(word)
        counts[word] += 1
        if len(held) > window:
            gone = held.popleft()
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
        if len(held) == window:
            total += len(counts)
    return total / window / (len(words) - window + 1)


def growth(words: Sequence[str], points: int = POINTS) -> tuple[list[int], list[int]]:
    """Returns (words read, different ones among them) at about `points` places.

    They are evenly spaced in the logarithm, the last at the end.
    """
    places = sorted({round(x) for x in np.geomspace(1, len(words), points)}) if words else []
    seen, sizes, at = set(), [], 0
    for place in places:
        seen.update(words[at:place])
        at = place
        sizes.append(len(seen))
    return places, sizes


def heaps(tokens: Sequence[int], types: Sequence[int]) -> dict[str, float] | None:
    """Fits Heaps' law V(n) = K n^beta: K, beta and R² of the line through log V over log n.

    None with fewer than three points behind the 100th word.

    Heaps 1978, "Information Retrieval: Computational and Theoretical Aspects"; the first 100 words
    are left out, where nearly every word is new.
    """
    kept = [(n, v) for n, v in zip(tokens, types, strict=True) if n >= 100]
    if len(kept) < 3:
        return None
    x, y = np.log(np.array(kept, float)).T
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    rest = float(((y - slope * x - intercept) ** 2).sum())
    return {
        "heaps_k": math.exp(intercept),
        "heaps_beta": float(slope),
        "heaps_r2": 1 - rest / spread if spread else 1.0,
    }


def numbers(sample: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[int]], Counter[str]]:
    """Returns (numbers, curve of growth, counts of words) of a sample's texts, in its order."""
    split = [text_measures.words(text) for text in sample]
    flat = [word for text in split for word in text]
    counts = Counter(flat)
    tokens, types = growth(flat)
    out = {
        "sampled_rows": len(sample),
        "words": len(flat),
        "vocabulary": len(counts),
        "type_token_ratio": len(counts) / len(flat) if flat else None,
        "hapax": sum(count == 1 for count in counts.values()) / len(counts) if counts else None,
        **{f"distinct_{n}": distinct(split, n) for n in (1, 2, 3)},
        "mtld": mtld(flat),
        "mattr": mattr(flat),
        **(heaps(tokens, types) or {"heaps_k": None, "heaps_beta": None, "heaps_r2": None}),
    }
    return out, {"words": tokens, "vocabulary": types}, counts
