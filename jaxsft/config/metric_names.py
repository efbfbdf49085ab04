"""Names of metrics: which a reader wants first, which only count, and which only repeat another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxsft.config.rules import COUNTS
from jaxsft.rundir import number

# What a reader asks for first where a run says nothing else; of a run of any task at least one is
# there.
ORDER = (
    "exact_match", "bleu", "chrf", "rouge_l", "las", "uas", "frame_accuracy", "intent_accuracy",
    "f1", "f1_micro", "f1_macro", "accuracy",
    "subset_accuracy", "pearson", "spearman", "r2", "rmse", "mae", "mrr", "recall_at_1",
    "masked_accuracy", "perplexity", "token_accuracy", "loss",
)  # fmt: skip
# Where each row has one label, a label that is missed is another one that was given in excess.
EQUAL_TO_ACCURACY = ("f1_micro", "precision_micro", "recall_micro", "recall_weighted")
BRIEF = 5  # numbers in a line


def ordered(metrics: Iterable[str], first: str) -> list[str]:
    """Sorts metrics: `first` in front, then those of ORDER, then the others as they come."""
    rank = {name: i for i, name in enumerate(dict.fromkeys([first, *ORDER]))}
    return sorted(metrics, key=lambda metric: rank.get(metric, len(rank)))


def repeated(values: Mapping[tuple[Any, str], Any], metrics: Sequence[str]) -> list[str]:
    """Returns the metrics that are the accuracy under another name.

    That is so for single labels, where they have the same value everywhere.

    Args:
        values: numbers by (split or step, metric).
    """
    if "accuracy" not in metrics or "words" in metrics:  # of words, F1 counts chunks
        return []
    of = lambda metric: {at: value for (at, name), value in values.items() if name == metric}
    near = lambda a, b: a == b or abs(number(a) - number(b)) < 1e-9
    same = lambda a, b: a.keys() == b.keys() and all(near(a[at], b[at]) for at in a)
    return [
        metric
        for metric in EQUAL_TO_ACCURACY
        if metric in metrics and same(of(metric), of("accuracy"))
    ]


def brief(numbers: Mapping[str, float], first: str) -> str:
    """Formats the numbers of an evaluation that fit into a line, the choosing metric in front.

    The choosing metric, `first`, is the one that chooses the checkpoint.

    >>> f1 = {"f1_micro": 0.5, "f1_macro": 0.4}
    >>> brief({"loss": 1.25, "accuracy": 0.5, **f1, "recall_macro": 0.3, "rows": 10}, "accuracy")
    'accuracy 0.5, f1_macro 0.4, loss 1.25'
    """
    twice = repeated({("", name): value for name, value in numbers.items()}, list(numbers))
    kept = [
        n
        for n in ordered(numbers, first)
        if n in (first, *ORDER) and n not in twice and n not in COUNTS
    ]
    return ", ".join(f"{name} {numbers[name]:.4g}" for name in kept[:BRIEF])
