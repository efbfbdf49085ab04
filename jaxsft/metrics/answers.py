"""How well an extracted answer matches a reader's: exact match and F1 of words, as in SQuAD
(Rajpurkar et al., 2016, arXiv:1606.05250).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """In lower case, without punctuation, without the articles a, an and the, and with single
    spaces.
    """
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split())


def exact(answer: str, reference: str) -> float:
    return float(normalised(answer) == normalised(reference))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the words, each as often as it stands; of an answer
    without words, whether both have none.
    """
    a, b = normalised(answer).split(), normalised(reference).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def best(score, answer: str, references: Sequence[str]) -> float:
    """Against the reference that it matches best; without references the right answer is none."""
    return max(score(answer, reference) for reference in references or ("",))
