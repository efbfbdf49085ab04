"""Generated answers with references for tests, drawn or given."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from jaxsft.metrics.base import Metric, Outputs, measure

WORDS = (
    *("the", "a", "cat", "sat", "on", "mat,", "dog.", "runs", "fast", "Schön", "übel", "23.5"),
    *("(red)", "我喜欢", "红色的猫", "猫が", "\n", "it's", "🙂"),
)


def answered(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenizer: str = "13a",
    **texts: Sequence[str],
) -> Outputs:
    """Returns the outputs of generated answers."""
    texts = {"answer": list(answers), "references": [list(r) for r in references], **texts}
    return Outputs(np.arange(len(answers)), {}, texts=texts, tokenizer=tokenizer)


def score(metric: Metric, answers, references, tokenizer: str = "13a") -> float:
    """Returns the first number of a metric."""
    return measure(metric, answered(answers, references, tokenizer))[metric.names[0]]


def corpus(seed: int = 0, rows: int = 20, words: Sequence[str] = WORDS[:13]):
    """Returns answers that resemble the first of one to four references each."""
    rng = random.Random(seed)
    text = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(1, 12)))
    references = [[text() for _ in range(rng.randint(1, 4))] for _ in range(rows)]
    answers = [
        " ".join(w for w in r[0].split(" ") if rng.random() < 0.8) or "x" for r in references
    ]
    return answers, references


# of words that often meet, of any characters, and the empty one
texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join),
    st.lists(st.sampled_from("abc \n我猫."), max_size=20).map("".join),
    st.text(max_size=12),
)


def pairs(rows: int = 5, references: int = 3) -> st.SearchStrategy:
    """Draws rows of an answer and its references."""
    one = st.tuples(texts, st.lists(texts, min_size=1, max_size=references))
    return st.lists(one, min_size=1, max_size=rows)


def odd() -> Outputs:
    """Returns rows with all that is unusual: nothing generated, no references, other scripts."""
    answers, references = corpus(3, 6, WORDS)
    answers += ["", "", "x y", "我喜欢红色的猫", "a a a a a a a a", "same same"]
    references += [[""], ["x y"], [], ["我喜欢红色的猫和狗", "猫"], ["a b c"], ["same same"]]
    return answered(answers, references)
