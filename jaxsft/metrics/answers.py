"""Agreement of an extracted answer with reference answers.

Exact match and F1 of words, as in SQuAD (Rajpurkar et al., 2016, arXiv:1606.05250).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

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
    a, b = normalised(answer).split(), normalised(reference).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def best(score, answer: str, references: Sequence[str]) -> float:
    """Returns the score against the best-matching reference.

    Without references the right answer is the empty one.
    """
    return max(score(answer, reference) for reference in references or ("",))
