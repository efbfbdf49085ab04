"""ROUGE (Lin, 2004): F1 of the tokens, of their pairs and of their longest common subsequence with
a reference, in percent; an answer counts against the reference where its F1 is largest.

`rouge_1`, `rouge_2`, `rouge_l` and `rouge_lsum` take the tokens of `outputs.tokenizer` in lower
case, so they suit any language. `rouge_score` gives the numbers of the library of that name, under
its own names: its tokens are runs of ASCII letters and digits, and a text of another script has
none. `rouge_score_stemmed` takes their stems (Porter, 1980), as most papers about summaries do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from jaxsft import extras
from jaxsft.metrics.base import Metric, Outputs
from jaxsft.metrics.text_overlap import Texts, of_texts, per_row, tokens_of

Tokens = Sequence[str]
Cut = Callable[[str], list[str]]  # from a text to its tokens
_WORD = re.compile("[a-z0-9]+")


def of_ngrams(answer: Tokens, reference: Tokens, n: int) -> float:
    """Computes the F1 of the n-grams, each counted as often as both have it."""
    a, b = (Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (answer, reference))
    return _f1((a & b).total(), a.total(), b.total())


def of_subsequence(answer: Tokens, reference: Tokens) -> float:
    """Computes the F1 of the longest common subsequence."""
    return _f1(longest_common(answer, reference), len(answer), len(reference))


def of_summary(answer: Sequence[Tokens], reference: Sequence[Tokens]) -> float:
    """Computes the F1 of the union of the longest common subsequences of each sentence of the
    reference with the sentences of the answer; a token counts as often as both texts have it.
    """
    ours, theirs = (Counter(token for s in x for token in s) for x in (answer, reference))
    left, hits = ours & theirs, 0
    for sentence in reference:
        union = set().union(*(_common_places(sentence, other) for other in answer))
        for place in sorted(union):
            if left[sentence[place]] > 0:
                left[sentence[place]] -= 1
                hits += 1
    return _f1(hits, ours.total(), theirs.total())


def longest_common(a: Tokens, b: Tokens) -> int:
    """Returns the length of the longest common subsequence.

    One bit for each token of `a` (Hyyrö, 2004): a row of the table is a sum of whole numbers.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    everywhere = (1 << len(a)) - 1
    row = everywhere  # a zero where the length grows
    for token in b:
        here = row & places.get(token, 0)
        row = (row + here | row - here) & everywhere
    return len(a) - row.bit_count()


def _common_places(a: Tokens, b: Tokens) -> set[int]:
    """Returns the places in `a` of a longest common subsequence: of several, the one that the
    implementation of Google finds from the end.
    """
    numbers = {token: i for i, token in enumerate(dict.fromkeys([*a, *b]))}
    ours, theirs = (np.array([numbers[token] for token in x], int) for x in (a, b))
    table = np.zeros((len(a) + 1, len(b) + 1), np.int64)
    for i, token in enumerate(ours, start=1):
        above = table[i - 1]
        longer = np.where(theirs == token, above[:-1] + 1, above[1:])
        np.maximum.accumulate(longer, out=table[i, 1:])
    out, i, j = set(), len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            out.add(i)
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return out


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0


def _sentences(text: str, cut: Cut) -> list[list[str]]:
    """Returns the tokens of each line."""
    return [cut(line) for line in text.split("\n")]


SCORES: dict[str, Callable[[str, str, Cut], float]] = {
    "rouge_1": lambda a, r, cut: of_ngrams(cut(a), cut(r), 1),
    "rouge_2": lambda a, r, cut: of_ngrams(cut(a), cut(r), 2),
    "rouge_l": lambda a, r, cut: of_subsequence(cut(a), cut(r)),
    "rouge_lsum": lambda a, r, cut: of_summary(_sentences(a, cut), _sentences(r, cut)),
}
_THEIR_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def observe(outputs: Outputs, names: Sequence[str], cut: Cut) -> np.ndarray:
    """Returns the scores of each answer in percent, `[rows, names]`."""

    def best(answer: str, references: Texts) -> list[float]:
        return [100 * max(SCORES[name](answer, r, cut) for r in references) for name in names]

    return per_row(outputs, best, len(names))


def _of(name: str) -> Metric:
    def of_rows(outputs: Outputs) -> np.ndarray:
        cut = tokens_of(outputs)
        return observe(outputs, [name], lambda text: cut(text.lower()))

    signature = lambda outputs: f"case:lc|tok:{outputs.tokenizer}|stem:no|refs:best"
    return of_texts((name,), of_rows, signature=signature)


def _stemmed(outputs: Outputs) -> np.ndarray:
    library = extras.need("rouge_score.tokenizers", "the metric rouge_score_stemmed")
    return observe(outputs, list(SCORES), library.DefaultTokenizer(use_stemmer=True).tokenize)


METRICS = {
    **{name: _of(name) for name in SCORES},
    "rouge_score": of_texts(
        _THEIR_NAMES,
        lambda outputs: observe(outputs, list(SCORES), lambda text: _WORD.findall(text.lower())),
        signature=lambda outputs: "case:lc|tok:rouge_score|stem:no|refs:best",
    ),
    "rouge_score_stemmed": of_texts(
        tuple(f"{name}_stemmed" for name in _THEIR_NAMES),
        _stemmed,
        signature=lambda outputs: "case:lc|tok:rouge_score|stem:porter|refs:best",
    ),
}
