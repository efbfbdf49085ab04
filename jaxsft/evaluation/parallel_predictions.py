"""Whether a model says the same of the same sentence in several languages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsft.errors import ConfigError
from jaxsft.evaluation.compare import Settings
from jaxsft.evaluation.robustness import mean_of

# what of a tree can be compared where the words are others, the first that is there
_OF_TREES = ("upos", "tags", "deprel")


def comparable(line: Mapping[str, Any]) -> Any:
    """Returns what of a prediction can be held against that of a translation; None: nothing was
    predicted. Raises ConfigError where nothing can.
    """
    value = line.get("predicted_intent", line.get("prediction"))
    if isinstance(value, Mapping):
        name = next((name for name in _OF_TREES if name in value), None)
        value = value[name] if name else {}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Sequence) and all(isinstance(x, str) for x in value):
        return tuple(value)
    raise ConfigError(
        "aligned=: labels, sets of labels, tags and single numbers are compared between languages;"
        f" found the prediction {line.get('prediction')!r:.60}"
    )


def kind_of(values: Sequence[Any]) -> tuple[str, Callable[[Any, Any], float]]:
    """Returns the name of what is told of pairs of predictions, and its value of one pair."""
    value = next(x for x in values if x is not None)
    if isinstance(value, str):
        return "same", lambda a, b: float(a == b)
    if isinstance(value, tuple):
        return "overlap", overlap
    return "difference", lambda a, b: abs(float(a) - float(b))


def overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Returns the share of two bags of names that they have in common (Dice, 1945)."""
    if not a and not b:
        return 1.0
    return 2 * (Counter(a) & Counter(b)).total() / (len(a) + len(b))


def consistency(
    predictions: Mapping[str, Mapping[str, Mapping[str, Any]]],
    settings: Settings,
) -> dict[str, Any]:
    """Returns how alike the predictions of parallel sentences are, for each pair of sets.

    Args:
      predictions: of each set, by the id of a sentence, what was predicted of it.

    Returns: `measure`: `same`, the share of sentences with the same label; `overlap`, the mean
      share of names in common of label sets and tags; `difference`, the mean distance of numbers.
      `pairs`: of each `a`, `b`, the value with bounds over sentences, `left_out` (nothing was
      predicted in one of them) and, of `same`, `by_chance`: what predictions that are as frequent
      would have in common.
    """
    by_set = {
        name: {x: comparable(line) for x, line in lines.items()}
        for name, lines in predictions.items()
    }
    every = [x for found in by_set.values() for x in found.values()]
    if all(x is None for x in every):
        raise ConfigError("aligned=: nothing was predicted")
    measure, value_of = kind_of(every)
    order = {name: i for i, name in enumerate(next(iter(by_set.values())))}
    pairs = []
    for a, b in itertools.combinations(by_set, 2):
        one, other = by_set[a], by_set[b]
        kept = [x for x in order if one[x] is not None and other[x] is not None]
        entry: dict[str, Any] = {"a": a, "b": b, "left_out": len(order) - len(kept)}
        if kept:
            rows = np.array([order[x] for x in kept])
            values = np.array([value_of(one[x], other[x]) for x in kept])
            entry |= mean_of(measure, values, rows, None, settings)
        if measure == "same" and kept:
            counts = Counter(one[x] for x in kept), Counter(other[x] for x in kept)
            both = sum(n * counts[1][label] for label, n in counts[0].items())
            entry["by_chance"] = both / len(kept) ** 2
        pairs.append(entry)
    return {"measure": measure, "sentences": len(order), "pairs": pairs}
