"""Word alignments of two CoNLL-U treebanks of the same sentences, for data that come without: a
line of links in Pharaoh's form for each pair.

    python -m tools.align SOURCE.conllu TARGET.conllu OUT.align

Each word is linked to its likeliest word of the other side: IBM model 1 (Brown et al. 1993, section
4.2), with the preference for the diagonal of Dyer et al. 2013 (equation 2, lambda = 4, no null
word), by five rounds of expectation and maximisation over the pairs themselves. The links that both
directions have are kept (Och and Ney 2003, section 3.1): fewer, and more of them right. A word
counts as its first four letters in lower case (as in Fraser and Marcu 2005), because a thousand
pairs are few.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxsft import rundir
from jaxsft.data import formats

ROUNDS, LAMBDA, LETTERS = 5, 4.0, 4
Pair = tuple[Sequence[str], Sequence[str]]


def diagonal(i: int, j: int, sizes: tuple[int, int]) -> float:
    """How likely word i of the source is to stand for word j of the target by their places, up to a
    factor.
    """
    return math.exp(-LAMBDA * abs(i / sizes[0] - j / sizes[1]))


def links(pairs: Sequence[Pair]) -> list[list[tuple[int, int]]]:
    """(source word, target word) of each pair: those that are each other's likeliest."""
    back = [
        {(i, j) for j, i in found}
        for found in one_way([(target, source) for source, target in pairs])
    ]
    return [
        [link for link in found if link in kept]
        for found, kept in zip(one_way(pairs), back, strict=True)
    ]


def one_way(pairs: Sequence[Pair]) -> list[list[tuple[int, int]]]:
    """(source word, target word), one for each target word, of each pair."""
    # t(target | source), uniform at the start
    table: dict[tuple[str, str], float] = collections.defaultdict(lambda: 1.0)
    for _ in range(ROUNDS):
        counts: dict[tuple[str, str], float] = collections.defaultdict(float)
        for source, target in pairs:
            for j, word in enumerate(target):
                share = [
                    table[other, word] * diagonal(i, j, (len(source), len(target)))
                    for i, other in enumerate(source)
                ]
                for other, part in zip(source, share, strict=True):
                    counts[other, word] += part / sum(share)
        totals: dict[str, float] = collections.defaultdict(float)
        for (other, _), count in counts.items():
            totals[other] += count
        table = {pair: count / totals[pair[0]] for pair, count in counts.items()}
    return [
        [(_best(table, source, word, j, len(target)), j) for j, word in enumerate(target)]
        for source, target in pairs
    ]


def _best(
    table: dict[tuple[str, str], float], source: Sequence[str], word: str, j: int, n: int
) -> int:
    return max(
        range(len(source)), key=lambda i: table[source[i], word] * diagonal(i, j, (len(source), n))
    )


def main(source: str, target: str, out: str) -> None:
    rows = formats.read(
        source, format="aligned", options={"target": str(Path(target).resolve()), "pair": "sent_id"}
    )
    pairs = [
        tuple(
            [word.lower()[:LETTERS] for word in row.fields[side]]
            for side in ("source_tokens", "target_tokens")
        )
        for row in rows
    ]
    found = links(pairs)
    rundir.write_text(
        out, "".join(" ".join(f"{i}-{j}" for i, j in of_pair) + "\n" for of_pair in found)
    )
    print(
        f"{len(pairs)} pairs, {sum(map(len, found))} links,"
        f" {sum(len(target) for _, target in pairs)} words of the target: {out}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
