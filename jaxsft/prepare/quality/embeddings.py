"""Diversity of meaning: similarity of texts to each other, and clusters of them.

It is seen as far as hashed n-grams (or embeddings that are given) show it.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence

import numpy as np

from jaxsft.errors import DataError

# of a hashed vector: for many texts; for few, where buckets that two n-grams share would tell
SIZE, FINE = 512, 4096
TEXTS = 5000  # texts per split that become vectors
NEAREST = 2000  # texts whose nearest neighbour is looked for
VENDI = 1000  # texts of the Vendi score
ITERATIONS = 50


def hashed(words: Sequence[Sequence[str]], size: int = SIZE) -> np.ndarray:
    """Computes unit vectors [texts, size] of hashed words and pairs of words; 0 without words.

    Feature hashing with signs (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
    Learning"); weights are log(1 + count) times log((1 + texts) / (1 + texts that have it)) + 1
    (the smoothed tf-idf of scikit-learn), per bucket.
    """
    counts = np.zeros((len(words), size), np.float32)
    known: dict[str, int] = {}
    for row, text in enumerate(words):
        grams = [*text, *(f"{a} {b}" for a, b in itertools.pairwise(text))]
        for gram in grams:
            code = known.get(gram)
            if code is None:
                code = known[gram] = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
            counts[row, code % size] += 1.0 if code & 0x80000000 else -1.0
    there = (counts != 0).sum(axis=0)
    idf = np.log((1 + len(words)) / (1 + there)) + 1
    return unit(np.sign(counts) * np.log1p(np.abs(counts)) * idf)


def unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def mean_similarity(vectors: np.ndarray) -> float | None:
    """Computes the mean cosine over all pairs of different texts, exactly.

    (|sum of unit vectors|² - n) / (n (n - 1)). Vectors of 0 are left out.

    Self-similarity as in Self-BLEU (Zhu et al. 2018, "Texygen"), with the cosine in place of BLEU:
    every pair is counted, none is drawn.
    """
    kept = vectors[np.any(vectors, axis=1)].astype(np.float64)
    n = len(kept)
    if n < 2:
        return None
    total = kept.sum(axis=0)
    return float((total @ total - (kept * kept).sum()) / (n * (n - 1)))


def nearest_similarity(vectors: np.ndarray) -> float | None:
    """Computes the mean cosine with the most similar other text; 1 where each has a twin.

    At most 2000 texts are looked at.
    """
    kept = vectors[np.any(vectors, axis=1)][:NEAREST]
    if len(kept) < 2:
        return None
    best = []
    for start in range(0, len(kept), 500):
        cosines = kept[start : start + 500] @ kept.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -1
        best.append(cosines.max(axis=1))
    return float(np.concatenate(best).astype(np.float64).mean())


def vendi(vectors: np.ndarray) -> float | None:
    """Computes the Vendi score, an effective number of different texts.

    It is exp of the entropy of the eigenvalues of K / n, where K are the cosines.

    Friedman and Dieng 2023, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning".
    At most 1000 texts are looked at, so that it says of how many of them; the eigenvalues are those
    of the smaller of the two matrices that share them.
    """
    kept = vectors[np.any(vectors, axis=1)][:VENDI].astype(np.float64)
    if not len(kept):
        return None
    small = kept.T @ kept if kept.shape[1] < len(kept) else kept @ kept.T
    values = np.linalg.eigvalsh(small / len(kept))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def kmeans(vectors: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters vectors by Lloyd's iterations from k-means++ seeds; at most 50 iterations.

    Returns (centres [k, size], cluster of each vector [n]).

    Arthur and Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding". A cluster that
    loses all its vectors keeps its centre.
    """
    rng = np.random.default_rng(seed)
    norms = (vectors.astype(np.float64) ** 2).sum(axis=1)
    centres = [vectors[rng.integers(len(vectors))]]
    nearest = _distances(vectors, norms, centres[0][None])[:, 0]
    while len(centres) < k:
        total = nearest.sum()
        at = (
            int(np.searchsorted(np.cumsum(nearest), rng.random() * total, side="right"))
            if total > 0
            else int(rng.integers(len(vectors)))
        )
        centres.append(vectors[min(at, len(vectors) - 1)])
        nearest = np.minimum(nearest, _distances(vectors, norms, centres[-1][None])[:, 0])
    centres, of = np.stack(centres), None
    for _ in range(ITERATIONS):
        found = _distances(vectors, norms, centres).argmin(axis=1)
        if of is not None and np.array_equal(found, of):
            break
        of = found
        for cluster in np.unique(of):
            centres[cluster] = vectors[of == cluster].mean(axis=0)
    return centres, of


def _distances(vectors: np.ndarray, norms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Computes squared distances [n, k]."""
    return np.maximum(
        norms[:, None] - 2 * (vectors @ centres.T) + (centres.astype(np.float64) ** 2).sum(axis=1),
        0,
    )


def cluster_count(texts: int, asked: int) -> int:
    """Returns the number of clusters: `asked`, or a rule of thumb.

    It is the square root of half the number of texts (Mardia et al. 1979), 50 at most.
    """
    return max(1, min(asked or min(50, round(math.sqrt(texts / 2))), texts))


def evenness(counts: Sequence[int]) -> tuple[float, float]:
    """Computes (relative entropy, exp of the entropy) of counts.

    The first is the entropy divided by its highest value; they are 1 and the number of counts
    where all are equal.

    Pielou 1966, "The measurement of diversity in different types of biological collections"; Hill
    1973, "Diversity and Evenness".
    """
    shares = np.array([count for count in counts if count], float)
    if not len(shares):
        return 0.0, 0.0
    shares /= shares.sum()
    entropy = float(-(shares * np.log(shares)).sum()) + 0.0
    return (entropy / math.log(len(counts)) if len(counts) > 1 else 1.0), math.exp(entropy)


def read_embeddings(path: str, rows: int) -> np.ndarray:
    """Reads unit vectors from a .npy file of numbers [rows, size].

    Raises DataError for anything else in it.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: not a readable .npy file of numbers ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: expected numbers of shape [rows, size] (found {getattr(found, 'dtype', '?')}"
            f" {getattr(found, 'shape', '?')})"
        )
    if len(found) != rows:
        raise DataError(
            f"{path}: found {len(found)} vectors, expected {rows}, one per row of the data"
        )
    if not np.isfinite(found).all():
        raise DataError(
            f"{path}: row {int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])} holds a value"
            " that is not finite"
        )
    return unit(found.astype(np.float64))
