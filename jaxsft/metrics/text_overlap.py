"""Corpus scores of generated texts against references: exact match, BLEU, chrF and ROUGE-L.

Host code; the tokenizer is always named.

BLEU and chrF are those of sacrebleu, and ROUGE-L takes its tokens, so that all three depend on
nothing but the texts and the name of a tokenizer.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsft.config.tasks import SCORES
from jaxsft.errors import ConfigError

# of sacrebleu; those that download a model are left out
TOKENIZERS = ("13a", "intl", "zh", "char", "none")

Texts = Sequence[str]
# Letters of scripts whose words have no space between them. Chinese has a tokenizer of its own in
# sacrebleu; of the others each letter is a token (Thai, Lao, Burmese, Khmer, kana).
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff]")


def installed() -> tuple[str, ...]:
    """Returns the scores whose library is there."""
    return SCORES if importlib.util.find_spec("sacrebleu") is not None else ("exact_match",)


def left_out() -> tuple[str, ...]:
    """Returns the scores whose library is not there."""
    return tuple(name for name in SCORES if name not in installed())


def tokens_for(references: Texts) -> str:
    """Returns the one of TOKENIZERS that finds words in texts of this script.

    13a, which cuts at spaces and ASCII punctuation, takes a whole sentence of Chinese for one word.
    """
    text = "".join(references)
    letters = sum(map(str.isalpha, text))
    unspaced, han = len(_UNSPACED.findall(text)), len(_HAN.findall(text))
    if 2 * (unspaced + han) <= letters:
        return "13a"
    return "zh" if han > 4 * unspaced else "char"


def check(names: Sequence[str]) -> None:
    """Raises ConfigError where a score needs a library that is not installed."""
    needing = [name for name in names if name != "exact_match"]
    if needing and importlib.util.find_spec("sacrebleu") is None:
        raise ConfigError(
            f"task.scores: {', '.join(needing)} need sacrebleu; install jaxsft[text], or set"
            " task.scores=[exact_match]"
        )


def scores(
    names: Sequence[str], answers: Texts, references: Sequence[Texts], tokens: str
) -> dict[str, float]:
    """Computes the named scores over all answers.

    Args:
      names: some of SCORES.
      references: of each answer, one or several; their number may differ.
      tokens: one of TOKENIZERS, for BLEU and ROUGE-L.

    Returns: exact_match in [0, 1]; the others in [0, 100], as they are published.
    """
    known = {"exact_match": exact_match, "bleu": bleu, "chrf": chrf, "rouge_l": rouge_l}
    return {name: known[name](answers, references, tokens) for name in names}


def matches(answer: str, references: Texts) -> bool:
    """Returns whether the answer is one of the references, white space at the ends aside."""
    return answer.strip() in {reference.strip() for reference in references}


def exact_match(answers: Texts, references: Sequence[Texts], tokens: str) -> float:
    return float(np.mean([matches(a, r) for a, r in zip(answers, references, strict=True)]))


def bleu(answers: Texts, references: Sequence[Texts], tokens: str) -> float:
    """Computes corpus BLEU of up to four tokens, case kept, smoothed exponentially.

    Papineni et al., 2002; Post, 2018.
    """
    from sacrebleu.metrics import BLEU

    return float(BLEU(tokenize=tokens).corpus_score(list(answers), _streams(references)).score)


def chrf(answers: Texts, references: Sequence[Texts], tokens: str) -> float:
    """Computes chrF2 of up to six characters (Popović, 2015).

    Words play no part in it, so it suits any language.
    """
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(answers), _streams(references)).score)


def rouge_l(answers: Texts, references: Sequence[Texts], tokens: str) -> float:
    """Computes the mean F1 of the longest common token subsequence, in lower case (Lin, 2004).

    Each answer counts against the reference where its F1 is largest.
    """
    cut = tokenizer(tokens)
    split = lambda text: cut(text.lower()).split()
    return 100 * float(
        np.mean(
            [
                max(_f1(split(a), split(r)) for r in rs)
                for a, rs in zip(answers, references, strict=True)
            ]
        )
    )


@functools.cache
def tokenizer(name: str) -> Callable[[str], str]:
    """Returns a function from a text to its tokens, joined by spaces."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=name).tokenizer


def _streams(references: Sequence[Texts]) -> list[list[Any]]:
    """Returns one list for each reference number, with None where an answer has fewer."""
    return [
        [r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))
    ]


def _f1(a: Sequence[str], b: Sequence[str]) -> float:
    common = _longest_common(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]
