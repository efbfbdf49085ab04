"""Agreement of an answer with reference answers: what counts as the same text, and shared words.

Exact match and F1 of words are those of SQuAD (Rajpurkar et al., 2016, arXiv:1606.05250).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from jaxsft.metrics.base import Outputs
from jaxsft.metrics.text_overlap import Texts, of_texts, per_row, tokens_of

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Returns the text in lower case, without punctuation and articles, with single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split())


def exact(answer: str, reference: str) -> float:
    return float(normalised(answer) == normalised(reference))


def f1(answer: str, reference: str) -> float:
    """Computes the harmonic mean of precision and recall of the words, with their counts.

    Where one of the two has no words: 1 if neither has, else 0.
    """
    return f1_of_words(normalised(answer).split(), normalised(reference).split())


def f1_of_words(a: Sequence[str], b: Sequence[str]) -> float:
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def best(score, answer: str, references: Sequence[str]) -> float:
    """Returns the score against the best-matching reference.

    Without references the right answer is the empty one.
    """
    return max(score(answer, reference) for reference in references or ("",))


# --- metrics of generated answers
# --------------------------------------------------------------------------------------------------
def squeezed(text: str) -> str:
    """Returns the text with single spaces, and none at its ends."""
    return " ".join(text.split())


def caseless(text: str) -> str:
    """Returns the text without the difference of capitals (Unicode case folding)."""
    return squeezed(text).casefold()


def unpunctuated(text: str) -> str:
    """Returns the text without punctuation of any script."""
    return squeezed("".join(c for c in text if not unicodedata.category(c).startswith("P")))


SPELLINGS: dict[str, Callable[[str], str]] = {
    "exact_match_squad": normalised,
    "exact_match_squeezed": squeezed,
    "exact_match_caseless": caseless,
    "exact_match_unpunctuated": unpunctuated,
}


def observe(outputs: Outputs) -> np.ndarray:
    """Returns of each answer whether a reference is the same text, in each of SPELLINGS."""

    def same(answer: str, references: Texts) -> list[float]:
        return [spell(answer) in map(spell, references) for spell in SPELLINGS.values()]

    return per_row(outputs, same, len(SPELLINGS))


def observe_f1(outputs: Outputs) -> np.ndarray:
    """Returns of each answer the largest F1 with a reference of the words that SQuAD's normaliser
    leaves; where the tokenizer is one for a script without spaces, of its tokens.
    """
    cut = tokens_of(outputs) if outputs.tokenizer in ("zh", "char") else str.split
    words = lambda text: cut(normalised(text))
    of = lambda a, references: [max(f1_of_words(words(a), words(r)) for r in references)]
    return per_row(outputs, of)


METRICS = {
    "answer_matches": of_texts(tuple(SPELLINGS), observe),
    "answer_f1": of_texts(
        ("token_f1",),
        observe_f1,
        signature=lambda outputs: (
            f"norm:squad|tok:{outputs.tokenizer if outputs.tokenizer in ('zh', 'char') else 'none'}"
        ),
    ),
}
