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
from jaxsft.metrics.base import Metric, Outputs, namespace, ratio

# of sacrebleu; those that download a model are left out
TOKENIZERS = ("13a", "intl", "zh", "char", "none")

ORDERS, CHARACTERS = 4, 6  # the longest n-grams, of BLEU's tokens and of chrF's characters

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


def matches(answer: str, references: Texts) -> bool:
    """Returns whether the answer is one of the references, white space at the ends aside."""
    return answer.strip() in {reference.strip() for reference in references}


# --- statistics of a row, and what their sums come to
# --------------------------------------------------------------------------------------------------
def exact_match(outputs: Outputs) -> np.ndarray:
    return _per_row(outputs, lambda answer, references: [matches(answer, references)])


def bleu_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer its length, that of the nearest reference, and of one to four tokens
    how many are right and how many there are.
    """
    from sacrebleu.metrics import BLEU

    return _statistics(BLEU(tokenize=outputs.tokenizer, force=True), outputs, 2 + 2 * ORDERS)


def bleu(state: Any) -> dict[str, Any]:
    """Computes corpus BLEU of up to four tokens, case kept, smoothed exponentially.

    Papineni et al., 2002; Post, 2018: an order of which none is right counts as `1 / (2^k total)`,
    k the number of such orders so far.
    """
    xp, counts = namespace(state["sums"]), state["sums"]
    length, nearest = counts[..., 0], counts[..., 1]
    right, there = counts[..., 2 : 2 + ORDERS], counts[..., 2 + ORDERS :]
    none = right == 0
    smoothed = xp.where(none, 0.5 ** xp.cumulative_sum(none.astype(counts.dtype), axis=-1), right)
    precision = smoothed / xp.where(there > 0, there, 1)
    log = xp.log(xp.where(precision > 0, precision, 1)).mean(-1)
    brevity = xp.where(length < nearest, 1 - nearest / xp.where(length > 0, length, 1), 0)
    useful = (right.sum(-1) > 0) & (there > 0).all(-1)
    nan = ratio(state["rows"], state["rows"])  # 1, or NaN without rows
    return {"bleu": nan * xp.where(useful, 100 * xp.exp(log + brevity), 0)}


def chrf_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer, for one to six characters, how many it and the best-matching
    reference have, and how many both.
    """
    from sacrebleu.metrics import CHRF

    return _statistics(CHRF(), outputs, 3 * CHARACTERS)


def chrf(state: Any) -> dict[str, Any]:
    """Computes chrF2 of up to six characters (Popović, 2015), over the orders that both have.

    Words play no part in it, so it suits any language.
    """
    xp, counts = namespace(state["sums"]), state["sums"]
    ours, theirs, both = (counts[..., i::3] for i in range(3))
    counted = (ours > 0) & (theirs > 0)
    mean = lambda share: ratio(xp.where(counted, share, 0).sum(-1), counted.sum(-1), 0.0)
    precision, recall = mean(ratio(both, ours, 0.0)), mean(ratio(both, theirs, 0.0))
    nan = ratio(state["rows"], state["rows"])
    return {"chrf": 100 * nan * ratio(5 * precision * recall, 4 * precision + recall, 0.0)}


def rouge_l(outputs: Outputs) -> np.ndarray:
    """Returns of each answer the F1 of the longest common token subsequence, in lower case (Lin,
    2004), in percent; it counts against the reference where its F1 is largest.
    """
    cut = tokenizer(outputs.tokenizer)
    split = lambda text: cut(text.lower()).split()
    best = lambda a, rs: 100 * max(_f1(split(a), split(r)) for r in rs)
    return _per_row(outputs, lambda answer, references: [best(answer, references)])


def _per_row(outputs: Outputs, score: Callable[[str, Texts], list[float]]) -> np.ndarray:
    pairs = zip(outputs["answer"], outputs["references"], strict=True)
    return np.array([score(*pair) for pair in pairs], np.float64).reshape(len(outputs), 1)


def _statistics(scorer: Any, outputs: Outputs, width: int) -> np.ndarray:
    """Returns the statistics of sacrebleu of each answer, `[rows, width]`."""
    answers, references = list(outputs["answer"]), outputs["references"]
    if not answers:
        return np.zeros((0, width))
    # what its own bootstrap calls; `corpus_score` would give the sum alone
    counts = scorer._extract_corpus_statistics(answers, _streams(references))
    return np.array(counts, np.float64)


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


def _of_texts(name: str, observe: Callable[[Outputs], np.ndarray], value: Any = None) -> Metric:
    """Makes a metric of answers: the mean over rows, or what `value` makes of sums."""
    return Metric(
        (name,),
        ("answer", "references"),
        lambda outputs: {"sums": observe(outputs), "rows": np.ones(len(outputs))},
        value or (lambda state: {name: ratio(state["sums"][..., 0], state["rows"])}),
    )


METRICS = {
    "exact_match": _of_texts("exact_match", exact_match),
    "bleu": _of_texts("bleu", bleu_counts, bleu),
    "chrf": _of_texts("chrf", chrf_counts, chrf),
    "rouge_l": _of_texts("rouge_l", rouge_l),
}
