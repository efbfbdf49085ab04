"""Scores of predicted tokens: their mean surprise as a perplexity, and how many are right."""

from __future__ import annotations

from typing import Any

from jaxsft.metrics.base import Metric, Outputs, namespace, ratio


def observe(outputs: Outputs) -> dict[str, Any]:
    """Returns of each row the sum of `-log p` of its trained tokens, in nats, and two counts."""
    return {name: outputs[name] for name in ("nll", "correct", "count")}


def value(state: dict[str, Any]) -> dict[str, Any]:
    """Computes perplexity, `exp` of the mean `-log p`, and the share of tokens that are the most
    probable ones.
    """
    count, xp = state["count"], namespace(state["count"])
    mean = ratio(state["nll"], count)
    return {
        "perplexity": xp.where(mean > 700, xp.inf, xp.exp(xp.where(mean > 700, 0, mean))),
        "token_accuracy": ratio(state["correct"], count),
        "tokens": count,
    }


def of_masked(state: dict[str, Any]) -> dict[str, Any]:
    """Computes the same of tokens that were masked, whose accuracy has a name of its own."""
    numbers = value(state)
    return {"masked_accuracy": numbers.pop("token_accuracy"), **numbers}


_OF_TOKENS = {
    "needs": ("nll", "correct", "count"),
    "observe": observe,
    "lower_is_better": ("perplexity",),
    "counts": ("tokens",),
}
METRICS = {
    "token_scores": Metric(("perplexity", "token_accuracy", "tokens"), value=value, **_OF_TOKENS),
    "masked_token_scores": Metric(
        ("perplexity", "masked_accuracy", "tokens"), value=of_masked, **_OF_TOKENS
    ),
}
