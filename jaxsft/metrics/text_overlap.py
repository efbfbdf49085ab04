"""Corpus scores of generated texts against references: exact match, BLEU, chrF, edit rate, length.

Host code; the tokenizer is always named. BLEU, chrF and TER are those of sacrebleu, and other
scores take its tokens, so that all depend on nothing but the texts and the name of a tokenizer.

An answer without references is compared with the empty text.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsft import extras
from jaxsft.config.schema import Config
from jaxsft.config.tasks import SCORES
from jaxsft.config.until import Until
from jaxsft.errors import ConfigError
from jaxsft.metrics.base import Metric, Outputs, namespace, ratio

# metrics that count its tokens, or are its own
_OF_SACREBLEU = (*SCORES[1:], "ter", "length_ratio")
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


def check_asked(config: Config) -> None:
    """Raises ConfigError where a metric that the config names needs a library that is not
    installed.
    """
    e, until = config.evaluation, config.train.until
    chosen = {f"evaluation.metric={e.metric}": e.metric.partition("/")[2]}
    if until is not None:
        chosen[f"train.until={until}"] = Until.read(until).metric.partition("/")[2]
    chosen |= {f"evaluation.metrics=[{name}]": name for name in e.metrics}
    for option, name in chosen.items():
        if name in _OF_SACREBLEU and importlib.util.find_spec("sacrebleu") is None:
            raise ConfigError(f"{option}: needs sacrebleu; install jaxsft[text]")


def matches(answer: str, references: Texts) -> bool:
    """Returns whether the answer is one of the references, white space at the ends aside."""
    return answer.strip() in {reference.strip() for reference in references}


# --- statistics of a row, and what their sums come to
# --------------------------------------------------------------------------------------------------
def exact_match(outputs: Outputs) -> np.ndarray:
    return per_row(outputs, lambda answer, references: [matches(answer, references)])


def bleu_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer its length, that of the nearest reference, and of one to four tokens
    how many are right and how many there are.
    """
    return _statistics(_bleu(outputs), outputs, 2 + 2 * ORDERS)


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
    precision = 100 * smoothed / xp.where(there > 0, there, 1)
    log = xp.log(xp.where(precision > 0, precision, 1)).sum(-1) / ORDERS
    short = length < nearest
    brevity = xp.exp(xp.where(short, 1 - nearest / xp.where(length > 0, length, 1), 0))
    useful = (right.sum(-1) > 0) & (there > 0).all(-1)
    nan = ratio(state["rows"], state["rows"])  # 1, or NaN without rows
    return {"bleu": nan * xp.where(useful, brevity * xp.exp(log), 0)}


def chrf_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer, for one to six characters, how many it and the best-matching
    reference have, and how many both.
    """
    return _statistics(_chrf(outputs), outputs, 3 * CHARACTERS)


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


def edit_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer the fewest edits that make it a reference, and the mean length of its
    references.
    """
    return _statistics(_ter(outputs), outputs, 2)


def edit_rate(state: Any) -> dict[str, Any]:
    """Computes TER (Snover et al., 2006): edits in percent of the tokens of the references.

    An edit inserts, deletes or replaces a token, or moves a stretch of them.
    """
    xp, edits, length = namespace(state["sums"]), state["sums"][..., 0], state["sums"][..., 1]
    nan = ratio(state["rows"], state["rows"])  # 1, or NaN without rows
    without = xp.where(edits > 0, 1.0, 0.0)  # references are empty
    rate = xp.where(length > 0, edits / xp.where(length > 0, length, 1), without)
    return {"ter": 100 * nan * rate}


def length_counts(outputs: Outputs) -> np.ndarray:
    """Returns of each answer its number of tokens, and that of the reference nearest in length."""
    cut = tokens_of(outputs)

    def lengths(answer: str, references: Texts) -> list[float]:
        ours, theirs = len(cut(answer)), [len(cut(reference)) for reference in references]
        return [ours, min(theirs, key=lambda n: (abs(n - ours), n))]

    return per_row(outputs, lengths, 2)


def length_ratio(state: Any) -> dict[str, Any]:
    """Computes the tokens of all answers by those of the references: under 1, answers are short."""
    ours, theirs = state["sums"][..., 0], state["sums"][..., 1]
    return {"length_ratio": ratio(ours, theirs), "answer_tokens": ratio(ours, state["rows"])}


def per_row(
    outputs: Outputs, score: Callable[[str, Texts], list[float]], numbers: int = 1
) -> np.ndarray:
    """Returns the numbers of each answer and its references, `[rows, numbers]` float64."""
    pairs = zip(outputs["answer"], references_of(outputs), strict=True)
    return np.array([score(*pair) for pair in pairs], np.float64).reshape(len(outputs), numbers)


def references_of(outputs: Outputs) -> list[Texts]:
    """Returns the references of each answer: at least the empty one."""
    return [list(references) or [""] for references in outputs["references"]]


def tokens_of(outputs: Outputs) -> Callable[[str], list[str]]:
    """Returns a function from a text to its tokens, as `outputs.tokenizer` cuts them."""
    if outputs.tokenizer == "none":  # white space; needs no library
        return str.split
    cut = tokenizer(outputs.tokenizer)
    return lambda text: cut(text).split()


def _statistics(scorer: Any, outputs: Outputs, width: int) -> np.ndarray:
    """Returns the statistics of sacrebleu of each answer, `[rows, width]`."""
    answers, references = list(outputs["answer"]), references_of(outputs)
    if not answers:
        return np.zeros((0, width))
    # what its own bootstrap calls; `corpus_score` would give the sum alone
    counts = scorer._extract_corpus_statistics(answers, _streams(references))
    return np.array(counts, np.float64)


@functools.cache
def tokenizer(name: str) -> Callable[[str], str]:
    """Returns a function from a text to its tokens, joined by spaces."""
    return _sacrebleu(f"the tokenizer {name}").BLEU(tokenize=name).tokenizer


# --- scorers of sacrebleu, and what it calls their signature
# --------------------------------------------------------------------------------------------------
def _sacrebleu(asked: str) -> Any:
    return extras.need("sacrebleu.metrics", asked)


def _bleu(outputs: Outputs) -> Any:
    return _sacrebleu("the metric bleu").BLEU(tokenize=outputs.tokenizer, force=True)


def _chrf(outputs: Outputs) -> Any:
    return _sacrebleu("the metric chrf").CHRF()


def _ter(outputs: Outputs) -> Any:
    """Returns the scorer of TER: tokens parted by white space, in lower case; of Chinese, and of
    other scripts without spaces as far as it knows them, characters.
    """
    unspaced = outputs.tokenizer in ("zh", "char")
    return _sacrebleu("the metric ter").TER(normalized=unspaced, asian_support=unspaced)


def signature(scorer: Callable[[Outputs], Any]) -> Callable[[Outputs], str]:
    """Returns a function from outputs to the signature of sacrebleu, as papers state it, such as
    `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`.
    """

    def text(outputs: Outputs) -> str:
        of = scorer(outputs)
        numbers = {len(references) for references in references_of(outputs)}
        of.num_refs = numbers.pop() if len(numbers) == 1 else -1  # they differ: `nrefs:var`
        return of.get_signature().format()

    return text


def _streams(references: Sequence[Texts]) -> list[list[Any]]:
    """Returns one list for each reference number, with None where an answer has fewer."""
    return [
        [r[i] if i < len(r) else None for r in references] for i in range(max(map(len, references)))
    ]


def of_texts(
    names: tuple[str, ...],
    observe: Callable[[Outputs], np.ndarray],
    value: Callable[[Any], dict[str, Any]] | None = None,
    **more: Any,
) -> Metric:
    """Makes a metric of answers: means over rows, or what `value` makes of the sums.

    Args:
      observe: returns `[rows, numbers]`.
      value: from `sums` `[..., numbers]` and the number of `rows` `[...]`; None: the mean of each.
    """

    def means(state: Any) -> dict[str, Any]:
        return {n: ratio(state["sums"][..., i], state["rows"]) for i, n in enumerate(names)}

    return Metric(
        names,
        more.pop("needs", ("answer", "references")),
        lambda outputs: {"sums": observe(outputs), "rows": np.ones(len(outputs))},
        value or means,
        **more,
    )


METRICS = {
    "exact_match": of_texts(("exact_match",), exact_match),
    "bleu": of_texts(("bleu",), bleu_counts, bleu, signature=signature(_bleu)),
    "chrf": of_texts(("chrf",), chrf_counts, chrf, signature=signature(_chrf)),
    "ter": of_texts(
        ("ter",), edit_counts, edit_rate, signature=signature(_ter), lower_is_better=("ter",)
    ),
    "length_ratio": of_texts(("length_ratio", "answer_tokens"), length_counts, length_ratio),
}
