"""Near-duplicate texts: shingles, MinHash, and groups of neighbours.

It serves what drops duplicates, splits around them, or reports them.

The similarity of two texts is the Jaccard similarity of their sets of shingles (Broder 1997).
MinHash signatures and banding find candidates (Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, chapter 3); every candidate is then compared by its shingles, so that no pair below the
threshold is taken for one. A pair at the threshold is missed with the probability 1 -
`recall(...)`; a more similar one less often. Everything is a function of the texts, their order and
the seed: no hash depends on the process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxsft.data import split_rule as splitting
from jaxsft.data.graphemes import marks
from jaxsft.data.scripts import is_unspaced
from jaxsft.errors import ConfigError
from jaxsft.prepare.text_columns import batches

UNITS = ("auto", "word", "char")
BATCH = 2**10  # texts whose signatures are made at once
# 2**64 / the golden ratio, made odd (Knuth, TAOCP 6.4): of the rolling polynomial
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_punctuation = re.compile(f"[^\\w\\s{marks()}]|_")


def normalise(text: str, case: bool = True, space: bool = True, punctuation: bool = False) -> str:
    """Returns the text in NFC, without what should not count.

    That is case, the amount of white space, punctuation and symbols.
    """
    return splitting.normalise(text, case, space, _punctuation if punctuation else None)


# --- shingles
# --------------------------------------------------------------------------------------------------
class _WordHashes(dict[str, int]):
    """A cache of 64 bits for every word, cleared when there are a million."""

    def __missing__(self, word: str) -> int:
        if len(self) >= 2**20:
            self.clear()
        value = int.from_bytes(
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
        )
        self[word] = value
        return value


_word_bits = _WordHashes()


def shingles(
    texts: Sequence[str], words: int = 3, chars: int = 5, unit: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the shingles of many texts as 64-bit hashes, with repetitions.

    Args:
      texts: N of them.
      words: a shingle is so many words in a row (between white space).
      chars: or so many characters, for texts in scripts without spaces.
      unit: word, char, or auto: characters where a third of the letters are of a script without
        spaces. A text with fewer units than a shingle has one, of all its units; a text without any
        has none.

    Returns:
      hashes: uint64 [S], those of the first text first. counts: int64 [N], of each text; their sum
        is S.
    """
    by_char = np.array(
        [
            unit == "char" or (unit == "auto" and not text.isascii() and is_unspaced(text))
            for text in texts
        ],
        bool,
    )
    parts = []
    for chosen, size in ((~by_char, words), (by_char, chars)):
        if (which := np.flatnonzero(chosen)).size:
            found = [texts[i] for i in which]
            parts.append((which, *(_of_chars if chosen is by_char else _of_words)(found, size)))
    counts = np.zeros(len(texts), np.int64)
    for which, _, n in parts:
        counts[which] = n
    hashes, first = np.empty(counts.sum(), np.uint64), np.cumsum(counts) - counts
    for which, found, n in parts:
        hashes[np.repeat(first[which] - (np.cumsum(n) - n), n) + np.arange(found.size)] = found
    return hashes, counts


def _of_words(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    split = [text.split() for text in texts]
    short = [""] * size
    units = [
        words if len(words) >= size or not words else [*words, *short[len(words) :]]
        for words in split
    ]
    lengths = np.fromiter(map(len, units), np.int64, len(units))
    bits = np.fromiter(
        (_word_bits[word] for words in units for word in words), np.uint64, lengths.sum()
    )
    return _windows(bits, lengths, size)


def _of_chars(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    units = [text if len(text) >= size or not text else text.ljust(size, "\0") for text in texts]
    lengths = np.fromiter(map(len, units), np.int64, len(units))
    code = np.frombuffer("".join(units).encode("utf-32-le", "surrogatepass"), np.uint32).astype(
        np.uint64
    )
    return _windows(_mix(code + np.uint64(1)), lengths, size)


def _windows(bits: np.ndarray, lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes every `size` units in a row of one text; returns hashes and counts per text."""
    counts = np.where(lengths > 0, lengths - size + 1, 0)
    if not bits.size:
        return np.empty(0, np.uint64), counts
    hashes = bits[: bits.size - size + 1].copy()
    for k in range(1, size):
        hashes *= _MULTIPLIER
        hashes += bits[k : bits.size - size + 1 + k]
    inside = np.ones(hashes.size, bool)
    ends = np.cumsum(lengths)[lengths > 0]
    for k in range(1, size):  # windows that begin in a text's last units reach into the next text
        inside[(ends - k)[ends - k < hashes.size]] = False
    return _mix(hashes[inside]), counts


def _mix(x: np.ndarray) -> np.ndarray:
    """Applies the finaliser of MurmurHash3 (Appleby) to 64 bits.

    It is a bijection whose low bits depend on all bits.
    """
    x = x ^ (x >> np.uint64(33))
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x


def jaccard(a: frozenset[int] | set[int], b: frozenset[int] | set[int]) -> float:
    """Computes |a & b| / |a or b|; 1 for two empty sets."""
    both = len(a & b)
    return both / (len(a) + len(b) - both) if a or b else 1.0


# --- signatures
# --------------------------------------------------------------------------------------------------
class MinHash:
    """MinHash signatures, whose share of equal entries estimates the Jaccard similarity.

    The standard error is sqrt(J (1 - J) / num_perm).

    Each permutation is x -> a x + b modulo 2**32 with an odd a, over hashes that are mixed before.
    """

    def __init__(self, num_perm: int = 128, seed: int = 0):
        rng = np.random.default_rng([seed, num_perm])
        self.a = rng.integers(0, 2**32, num_perm, np.uint32) | np.uint32(1)
        self.b = rng.integers(0, 2**32, num_perm, np.uint32)

    def signatures(self, hashes: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Computes uint32 signatures [N, num_perm] from `shingles`; all ones for an empty text."""
        signatures = np.full((self.a.size, counts.size), 2**32 - 1, np.uint32)
        some = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[some]
        low = hashes.astype(np.uint32)
        # the pieces stay in the cache of the processor
        for begin in range(0, some.size, BATCH) if some.size else ():
            texts = some[begin : begin + BATCH]
            first = starts[begin]
            last = starts[begin + BATCH] if begin + BATCH < some.size else low.size
            x, at = low[first:last], starts[begin : begin + BATCH] - first
            buffer = np.empty_like(x)
            for p in range(self.a.size):
                np.multiply(x, self.a[p], out=buffer)
                np.add(buffer, self.b[p], out=buffer)
                signatures[p, texts] = np.minimum.reduceat(buffer, at)
        return np.ascontiguousarray(signatures.T)


def recall(similarity: float, bands: int, rows: int) -> float:
    """Computes the probability that two texts are candidates: 1 - (1 - s**r)**b.

    s is their similarity (Leskovec et al., section 3.4.2).
    """
    return 1 - (1 - similarity**rows) ** bands


def banding(threshold: float, num_perm: int, least: float = 0.98) -> tuple[int, int]:
    """Returns (bands, rows of each) that find a pair at the threshold with probability `least`.

    They are the most selective ones.

    Raises:
      ConfigError: the threshold is not in (0, 1], or so low that no banding of `num_perm` sees it.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold={threshold}: expected a number above 0, up to 1")
    for rows in range(num_perm, 0, -1):
        if recall(threshold, num_perm // rows, rows) >= least:
            return num_perm // rows, rows
    raise ConfigError(
        f"num_perm={num_perm}: too few to find pairs of similarity {threshold}; set more, or a"
        " higher threshold"
    )


def buckets(signatures: np.ndarray, bands: int, rows: int) -> Iterator[np.ndarray]:
    """Yields the texts whose signatures are equal in a band, band by band.

    They are two or more indices in ascending order.
    """
    for band in range(bands):
        columns = signatures[:, band * rows : (band + 1) * rows]
        key = np.zeros(len(columns), np.uint64)
        for column in columns.T:
            key = _mix((key * _MULTIPLIER) + column)
        order = np.argsort(key, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else ():
            if group.size > 1:
                yield group


# --- groups
# --------------------------------------------------------------------------------------------------
class Union:
    """A union-find structure over 0 .. n-1; a group is named by its smallest member."""

    def __init__(self, n: int):
        self.parent = list(range(n))

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = sorted((self.find(i), self.find(j)))
        self.parent[j] = i

    def groups(self) -> np.ndarray:
        """Returns the name of the group of each member, int64 [n]."""
        return np.array([self.find(i) for i in range(len(self.parent))], np.int64)


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The options of the search for neighbours.

    Attributes:
      threshold: of the Jaccard similarity of shingles.
      num_perm: entries of a signature. words, chars, unit: see `shingles`.
      seed: of the permutations.
    """

    threshold: float = 0.8
    num_perm: int = 128
    words: int = 3
    chars: int = 5
    unit: str = "auto"
    seed: int = 0

    def check(self, option: str) -> None:
        """Raises ConfigError, which names the option, where the numbers make no sense."""
        if self.unit not in UNITS:
            raise ConfigError(f"{option}.unit={self.unit}: expected one of {', '.join(UNITS)}")
        for name in ("num_perm", "words", "chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{option}.{name}={getattr(self, name)}: expected at least 1")
        try:
            banding(self.threshold, self.num_perm)
        except ConfigError as error:
            raise ConfigError(f"{option}.{error}") from None

    def signatures(self, texts: Iterable[str]) -> np.ndarray:
        """Computes the signatures of texts, uint32 [N, num_perm]."""
        hasher = MinHash(self.num_perm, self.seed)
        parts = [
            hasher.signatures(*shingles(batch, self.words, self.chars, self.unit))
            for batch in batches(texts, BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.num_perm), np.uint32)

    def groups(self, texts: Iterable[str]) -> tuple[np.ndarray, list[tuple[int, int, float]]]:
        """Groups of texts that are linked by pairs at or above the threshold (single linkage: the
        ends of a chain may be less similar).

        Args:
          texts: gone through twice: the second time for the shingles of candidates, so that those
            of other texts are never kept. Already normalised.

        Returns:
          groups: int64 [N], for each text the smallest index of its group. links: (i, j,
            similarity) that made them.
        """
        signatures = self.signatures(texts)
        union, links = Union(len(signatures)), []
        # texts without a shingle are no neighbours of each other
        empty = np.all(signatures == 2**32 - 1, axis=1)
        found = [
            group
            for group in buckets(signatures, *banding(self.threshold, self.num_perm))
            if not empty[group[0]]
        ]
        sets = self._sets(
            texts, np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        )
        unlike: set[tuple[int, int]] = set()
        for group in found:
            # of this bucket, by group: a text is compared until one of a group is its neighbour
            seen: dict[int, list[int]] = {}
            for i in group.tolist():
                for root, members in list(seen.items()):
                    if union.find(i) == union.find(root):
                        continue
                    for j in members:
                        if (j, i) in unlike:
                            continue
                        if (similarity := jaccard(sets[i], sets[j])) >= self.threshold:
                            links.append((j, i, similarity))
                            union.join(i, j)
                            break
                        unlike.add((j, i))
                seen.setdefault(union.find(i), []).append(i)
        return union.groups(), links

    def _sets(self, texts: Iterable[str], wanted: np.ndarray) -> dict[int, frozenset[int]]:
        """Returns the shingles of the wanted texts, by their index."""
        sets: dict[int, frozenset[int]] = {}
        wanted_set = set(wanted.tolist())
        for batch in batches(((i, text) for i, text in enumerate(texts) if i in wanted_set), BATCH):
            hashes, counts = shingles(
                [text for _, text in batch], self.words, self.chars, self.unit
            )
            for (i, _), part in zip(batch, np.split(hashes, np.cumsum(counts)[:-1]), strict=True):
                sets[i] = frozenset(part.tolist())
        return sets
