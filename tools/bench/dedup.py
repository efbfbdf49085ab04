"""How fast near duplicates are found, against bare datasketch, on the same texts: `python -m
tools.bench.dedup [--rows 4000] [--rounds 5]`.

Both make 128-entry MinHash signatures of word 3-grams, band them for the same threshold and give
the pairs of candidates; jaxsft also verifies each candidate by its shingles, datasketch does not.
The two take turns, and the ratio is that of the medians: above 1 jaxsft is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH

from jaxsft.data.formats import read
from jaxsft.prepare.neighbours import Neighbours, banding, normalise


def jaxsft(texts: list[str], threshold: float) -> int:
    """The number of texts that have a neighbour before them."""
    groups, _ = Neighbours(threshold=threshold).groups(texts)
    return int(np.sum(groups != np.arange(len(texts))))


def datasketch(texts: list[str], threshold: float) -> int:
    """As its documentation does it: bulk signatures, then query and insert."""
    split = [text.split() for text in texts]
    shingles = [
        [" ".join(words[i : i + 3]).encode() for i in range(max(1, len(words) - 2))]
        for words in split
    ]
    lsh = MinHashLSH(num_perm=128, params=banding(threshold, 128))
    found = 0
    for i, signature in enumerate(MinHash.bulk(shingles, num_perm=128)):
        found += bool(lsh.query(signature))
        lsh.insert(i, signature)
    return found


def timed(
    work: Callable[[list[str], float], int], texts: list[str], threshold: float
) -> tuple[float, int]:
    start = time.perf_counter()
    found = work(texts, threshold)
    return time.perf_counter() - start, found


def texts_of(file: str | None, column: str, rows: int) -> list[str]:
    """Rows of a file; or, without one, sentences of random words, a tenth of them repeated with a
    word changed.
    """
    if file:
        return [normalise(str(row.fields[column])) for row in read(Path(file))[:rows]]
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(5000)])
    out = [
        " ".join(words[np.minimum(rng.zipf(1.3, int(rng.integers(20, 200))) - 1, 4999)])
        for _ in range(rows)
    ]
    for i in rng.integers(0, rows, rows // 10):
        out.append(out[i].replace(" ", " changed ", 1))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file")
    parser.add_argument("--column", default="text")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.8)
    args = parser.parse_args()
    texts = texts_of(args.file, args.column, args.rows)
    times: dict[str, list[float]] = {"jaxsft": [], "datasketch": []}
    found = {}
    for _ in range(args.rounds):
        for name, work in (("jaxsft", jaxsft), ("datasketch", datasketch)):
            seconds, found[name] = timed(work, texts, args.threshold)
            times[name].append(seconds)
        ours, theirs = times["jaxsft"][-1], times["datasketch"][-1]
        print(f"jaxsft {ours:.3f} s, datasketch {theirs:.3f} s, ratio {theirs / ours:.2f}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{len(texts)} texts, {np.mean([len(text.split()) for text in texts]):.0f} words on"
        f" average; with a neighbour: {found}"
    )
    print(
        f"texts per second: jaxsft {len(texts) / medians['jaxsft']:.0f}, datasketch"
        f" {len(texts) / medians['datasketch']:.0f}"
    )
    print(f"ratio of medians: {medians['datasketch'] / medians['jaxsft']:.2f}")


if __name__ == "__main__":
    main()
